"""How many messages customers wrote to each number this second: Meta counts them against what the number may send."""

from __future__ import annotations

from collections.abc import Mapping

import redis.asyncio
import structlog
from redis.exceptions import RedisError

log = structlog.get_logger()

# One key per number and second of Redis's clock, so that no two machines' clocks need agree; gone soon after.
_COUNT = """
local second = redis.call('TIME')[1]
for i = 1, #ARGV, 2 do
  local key = 'wa:inbound:' .. ARGV[i] .. ':' .. second
  redis.call('INCRBY', key, ARGV[i + 1])
  redis.call('EXPIRE', key, 8)
end
"""


class InboundRate:
    """The recorder's side; who paces reads the keys in its own script (services/sender/pacing.py)."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._count = client.register_script(_COUNT)

    async def count(self, by_number: Mapping[str, int]) -> None:
        """Add messages that came in just now, by phone_number_id. Never raises for Redis: it is a hint."""
        if not by_number:
            return
        try:
            await self._count(args=[part for pair in by_number.items() for part in pair])
        except RedisError as error:
            log.warning("inbound.not_counted", error=type(error).__name__)
