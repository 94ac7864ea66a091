"""What a call costs, and that its parts add up to it."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ai_worker.pricing import PRICES, Usage, cost_usd, share
from services.ai_worker.settings import AnthropicSettings

tokens = st.integers(0, 2_000_000)
usages = st.builds(Usage, tokens, tokens, tokens, tokens)


def in_the_column(cost: Decimal) -> Decimal:
    """The cost as PostgreSQL keeps it in numeric(12, 8): halves go away from zero."""
    return cost.quantize(Decimal("0.00000001"), rounding=ROUND_HALF_UP)


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(), "0"),
        (Usage(input_tokens=1), "0.0000001"),
        (Usage(output_tokens=1), "0.0000005"),
        (Usage(cache_read_tokens=1), "0.00000001"),
        (Usage(cache_write_tokens=1), "0.00000013"),  # 12.5 units: rounded once, as the column would
        (Usage(cache_write_tokens=2), "0.00000025"),
        (Usage(1_000_000, 1_000_000, 1_000_000, 1_000_000), "0.735"),
    ],
)
def test_a_call_costs_what_the_price_table_says(usage: Usage, cost: str) -> None:
    assert cost_usd("claude-haiku-5-5", usage) == Decimal(cost)


def test_a_model_without_a_price_is_not_free() -> None:
    with pytest.raises(KeyError):
        cost_usd("claude-unheard-of", Usage(input_tokens=1))
    with pytest.raises(ValueError, match="no price is known"):
        AnthropicSettings(api_key="key", model="claude-unheard-of")


def test_the_default_model_has_a_price() -> None:
    assert AnthropicSettings.model_fields["model"].default in PRICES


@given(usage=usages, parts=st.integers(1, 40), model=st.sampled_from(sorted(PRICES)))
def test_shares_add_up_to_the_tokens_and_differ_by_one_at_most(usage: Usage, parts: int, model: str) -> None:
    shares = [part for part, _ in share(usage, cost_usd(model, usage), parts=parts)]

    assert len(shares) == parts
    for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"):
        counts = [getattr(part, name) for part in shares]
        assert sum(counts) == getattr(usage, name)
        assert max(counts) - min(counts) <= 1


@given(usage=usages, parts=st.integers(1, 40), model=st.sampled_from(sorted(PRICES)))
def test_shares_add_up_to_the_cost_as_its_column_keeps_it(usage: Usage, parts: int, model: str) -> None:
    cost = cost_usd(model, usage)

    assert sum(part for _, part in share(usage, cost, parts=parts)) == in_the_column(cost) == cost


@given(cost=st.decimals(min_value=0, max_value=9999, places=8), parts=st.integers(1, 40))
def test_shares_of_a_cost_the_column_holds_add_up_to_it_exactly(cost: Decimal, parts: int) -> None:
    costs = [part for _, part in share(Usage(), cost, parts=parts)]

    assert sum(costs) == cost
    assert all(part == in_the_column(part) >= 0 for part in costs)
    assert max(costs) - min(costs) <= Decimal("0.00000001")
