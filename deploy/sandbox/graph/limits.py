"""Meta's rates: messages a second of a number, messages to one person, calls an hour of an account. Values, no clock.

Source: Meta, "Throughput" (M:throughput), read 2026-11-22.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PairRule = Literal["repay", "borrow", "off"]

PAIR_EVERY_S = 6.0
PAIR_BURST = 45
MOST_PAIRS = 200_000


class Throughput:
    """One bucket per number, filled with its tier every second; what comes in empties it like what goes out.

    The bucket holds one second's worth: over any minute a number gets 60 times its tier and a second more, while a
    sender whose clock jitters by some milliseconds is not refused. Meta does not say how it measures its second.
    """

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}  # number → what is left, as of when

    def take(self, number: str, tier: int, now: float) -> bool:
        """Let one message out, or say that this second is full."""
        left = self._left(number, tier, now)
        if left < 1:
            self._buckets[number] = (left, now)
            return False
        self._buckets[number] = (left - 1, now)
        return True

    def give_back(self, number: str) -> None:
        """Undo one take: the message was refused for another reason."""
        left, at = self._buckets[number]
        self._buckets[number] = (left + 1, at)

    def count_inbound(self, number: str, tier: int, now: float) -> None:
        """Count a message that came in; it is never refused, so the bucket may go below nothing, by one second."""
        self._buckets[number] = (max(self._left(number, tier, now) - 1, -tier), now)

    def _left(self, number: str, tier: int, now: float) -> float:
        left, at = self._buckets.get(number, (float(tier), now))
        return min(float(tier), left + (now - at) * tier)


@dataclass(slots=True)
class _Pair:
    free_at: float  # when everything sent would have been sent at one per six seconds
    burst_from: float
    burst: int


class Pairs:
    """One message per six seconds and person; up to 45 within six seconds are lent by the future.

    `repay` is what Meta describes: after a burst of 20 the next one waits two minutes. `borrow` is milder, one more
    every six seconds while the debt stays under 45: for trying a sender that paces with a plain token bucket.
    """

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], _Pair] = {}

    def take(self, pair: tuple[str, str], now: float, rule: PairRule) -> bool:
        if rule == "off":
            return True
        known = self._pairs.get(pair)
        if known is None or known.free_at <= now:
            self._pairs.pop(pair, None)  # so that the dict's order is by last burst, oldest first
            self._pairs[pair] = _Pair(now + PAIR_EVERY_S, now, 1)
            if len(self._pairs) > MOST_PAIRS:
                del self._pairs[next(iter(self._pairs))]
            return True
        if rule == "borrow":
            allowed = known.free_at - now <= (PAIR_BURST - 1) * PAIR_EVERY_S
        else:
            allowed = now - known.burst_from < PAIR_EVERY_S and known.burst < PAIR_BURST
        if allowed:
            known.free_at += PAIR_EVERY_S
            known.burst += 1
        return allowed


class Hourly:
    """So many calls an hour of something."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def take(self, name: str, most: int, now: float) -> bool:
        hour = int(now // 3600)
        counted_in, count = self._counts.get(name, (hour, 0))
        if counted_in != hour:
            count = 0
        if count >= most:
            return False
        self._counts[name] = (hour, count + 1)
        return True
