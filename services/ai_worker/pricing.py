"""What Claude costs: data, with its date.

Source: Anthropic, "Pricing", read on PRICED_ON. USD per million tokens; cache writes are the five-minute kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input_tokens` excludes what the cache read or wrote, as Anthropic counts."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


def _price(input_usd: str, output_usd: str, *, cache_read: str, cache_write: str) -> Price:
    return Price(Decimal(input_usd), Decimal(output_usd), Decimal(cache_read), Decimal(cache_write))


PRICED_ON = date(2026, 11, 23)
BATCH_SHARE = Decimal("0.5")  # of every price, for what is sent in a message batch

PRICES: dict[str, Price] = {
    # Haiku 5.5 costs five times this for prompts over 100,000 tokens; ours hold 20 + 20 messages.
    "claude-haiku-5-5": _price("0.10", "0.50", cache_read="0.01", cache_write="0.125"),
    "claude-haiku-4-5": _price("1.00", "5.00", cache_read="0.10", cache_write="1.25"),
    "claude-sonnet-5-5": _price("2.00", "10.00", cache_read="0.10", cache_write="2.50"),
    "claude-opus-5-5": _price("4.00", "20.00", cache_read="0.20", cache_write="5.00"),
}

_MILLION = Decimal(1_000_000)
_UNIT = Decimal("0.00000001")  # as its columns; rounded once, so that shares and sums agree


def cost_usd(model: str, usage: Usage, *, share_of_price: Decimal = Decimal(1)) -> Decimal:
    """Return what a call cost, to eight decimals. Raises: KeyError for a model without a price (settings refuse it).

    `share_of_price`: BATCH_SHARE for a request of a batch.
    """
    price = PRICES[model]
    exact = (
        usage.input_tokens * price.input
        + usage.output_tokens * price.output
        + usage.cache_read_tokens * price.cache_read
        + usage.cache_write_tokens * price.cache_write
    ) / _MILLION
    return (exact * share_of_price).quantize(_UNIT, ROUND_HALF_UP)


def dearest_usd(model: str) -> tuple[Decimal, Decimal]:
    """Return USD per token of input, all of it written to the cache, and of output."""
    price = PRICES[model]
    return max(price.input, price.cache_write) / _MILLION, price.output / _MILLION


def share(usage: Usage, cost: Decimal, *, parts: int) -> list[tuple[Usage, Decimal]]:
    """Split a call's price over the messages it was about, so that the parts add up to the whole.

    Remainders go to the first parts.
    """
    counts = [
        _split(getattr(usage, name), parts)
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    ]
    units = _split(int(cost / _UNIT), parts)
    return [(Usage(*(c[i] for c in counts)), units[i] * _UNIT) for i in range(parts)]


def _split(total: int, parts: int) -> list[int]:
    each, rest = divmod(total, parts)
    return [each + (i < rest) for i in range(parts)]
