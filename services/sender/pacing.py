"""How fast each number may send: one bucket per number, shared by all dispatchers through Redis.

A number's rate is its tier less what customers write to it (Meta counts both), never under half the tier, and half of
that for a minute after Meta said it was too fast. Without Redis each process sends at a quarter of the tier by itself.
The rate per person is the database's (claim_messages).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import redis.asyncio
import structlog
from redis.exceptions import RedisError

log = structlog.get_logger()

# Below the tier, so that two clocks that differ by a little still agree: two dispatchers at a tier of 80 send 79.2.
HEADROOM = 0.99
# What a bucket holds: who looks every tenth of a second loses nothing, and no second holds much more than its rate.
HOLDS_S = 0.1
SLOWED_S = 60
WITHOUT_REDIS = 0.25
_SAY_EVERY_S = 60.0

# KEYS: none, as they follow from the numbers (one Redis, no cluster). ARGV: headroom, s a bucket holds, then for each
# number: id, tier, most. Returns for each: tokens taken, ms until the next one is there.
# Inbound is the busiest of the last three seconds: Meta refuses by the second, not by the average.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local headroom, holds_s = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer = {}
for i = 3, #ARGV, 3 do
  local id, tier, most = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local inbound = 0
  for second = time[1] - 2, time[1] do
    inbound = math.max(inbound, tonumber(redis.call('GET', string.format('wa:inbound:%s:%d', id, second)) or 0))
  end
  local rate = math.max(tier * headroom - inbound, tier / 2)
  if redis.call('EXISTS', 'wa:slowed:' .. id) == 1 then rate = rate / 2 end
  local holds = math.max(1, rate * holds_s)
  local key = 'wa:pace:' .. id
  local known = redis.call('HMGET', key, 'tokens', 'at')
  local tokens = holds
  if known[1] then tokens = math.min(holds, known[1] + (now - known[2]) * rate) end
  local taken = math.max(0, math.min(most, math.floor(tokens)))
  tokens = tokens - taken
  redis.call('HSET', key, 'tokens', string.format('%.6f', tokens), 'at', string.format('%.6f', now))
  redis.call('PEXPIRE', key, 10000)
  answer[#answer + 1] = taken
  answer[#answer + 1] = math.ceil(math.max(0, 1 - tokens) / rate * 1000)
end
return answer
"""
_GIVE_BACK = """
for i = 1, #ARGV, 2 do
  local key = 'wa:pace:' .. ARGV[i]
  if redis.call('EXISTS', key) == 1 then redis.call('HINCRBYFLOAT', key, 'tokens', ARGV[i + 1]) end
end
"""


@dataclass(frozen=True, slots=True)
class Want:
    """How many messages a number would send now."""

    number: str  # phone_number_id
    tier_mps: int
    most: int


@dataclass(frozen=True, slots=True)
class Granted:
    """How many it may, and in how many seconds there is another."""

    tokens: int
    next_in_s: float


class Pacing:
    """Takes tokens for many numbers in one call."""

    def __init__(self, client: redis.asyncio.Redis, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._take = client.register_script(_TAKE)
        self._give_back = client.register_script(_GIVE_BACK)
        self._local = LocalPacing(clock)
        self._clock = clock
        self._silent_until = float("-inf")

    async def take(self, wants: Sequence[Want]) -> dict[str, Granted]:
        """Take up to `most` tokens for each number; never raises for Redis."""
        if not wants:
            return {}
        arguments: list[str | int | float] = [HEADROOM, HOLDS_S]
        for want in wants:
            arguments += [want.number, want.tier_mps, want.most]
        try:
            answer = await self._take(args=arguments)
        except RedisError as error:
            self._say(error)
            return self._local.take(wants)
        return {
            want.number: Granted(int(tokens), int(next_ms) / 1000)
            for want, tokens, next_ms in zip(wants, answer[::2], answer[1::2], strict=True)
        }

    async def give_back(self, unused: Mapping[str, int]) -> None:
        """Return tokens that were not used: there were fewer messages than it seemed."""
        if not unused:
            return
        try:
            await self._give_back(args=[part for pair in unused.items() for part in pair])
        except RedisError as error:
            self._say(error)

    async def slow_down(self, number: str) -> None:
        """Halve a number's rate for a minute, for every dispatcher: Meta said it was too fast."""
        self._local.slow_down(number)
        try:
            await self._client.set(f"wa:slowed:{number}", 1, ex=SLOWED_S)
        except RedisError as error:
            self._say(error)

    def _say(self, error: RedisError) -> None:
        if self._clock() >= self._silent_until:  # it is asked many times a second
            self._silent_until = self._clock() + _SAY_EVERY_S
            log.warning("pacing.fell_back", error=type(error).__name__, share_of_tier=WITHOUT_REDIS)


class LocalPacing:
    """The same without Redis, for one process: a quarter of the tier, since up to four may be sending."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # number → tokens, as of when
        self._slowed_until: dict[str, float] = {}

    def take(self, wants: Sequence[Want]) -> dict[str, Granted]:
        """See `Pacing.take`."""
        return {want.number: self._take(want, self._clock()) for want in wants}

    def _take(self, want: Want, now: float) -> Granted:
        rate = want.tier_mps * WITHOUT_REDIS
        if self._slowed_until.get(want.number, now) > now:
            rate /= 2
        holds = max(1.0, rate * HOLDS_S)
        tokens, at = self._buckets.get(want.number, (holds, now))
        tokens = min(holds, tokens + (now - at) * rate)
        taken = min(want.most, int(tokens))
        self._buckets[want.number] = (tokens - taken, now)
        return Granted(taken, max(0.0, 1 - (tokens - taken)) / rate)

    def slow_down(self, number: str) -> None:
        """See `Pacing.slow_down`."""
        self._slowed_until[number] = self._clock() + SLOWED_S
