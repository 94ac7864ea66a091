"""A bell that dispatchers hear: there is something to send. Losing a ring costs at most one poll; nothing is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import redis.asyncio
import structlog
from redis.exceptions import RedisError

log = structlog.get_logger()

CHANNEL = "outbox"
_AGAIN_AFTER_S = 1.0
_SAY_EVERY = 30  # once, then now and then: an outage is not a flood of lines


class OutboxBell:
    """Rings, and hears rings, over Redis pub/sub: whoever listens at that moment hears it, nobody else ever does."""

    def __init__(self, connection: redis.asyncio.Redis) -> None:
        self._redis = connection
        self._unrung = 0  # in a row
        self._unheard = 0

    async def ring(self) -> None:
        """Wake who listens. Never raises for Redis: what is to be sent is in the outbox, and found by polling."""
        try:
            await self._redis.publish(CHANNEL, b"")
            self._unrung = 0
        except RedisError as error:
            if self._unrung % _SAY_EVERY == 0:
                log.warning("bell.not_rung", error=type(error).__name__, failures=self._unrung + 1)
            self._unrung += 1

    async def listen(self) -> AsyncIterator[None]:
        """Yield at once, and then at each ring; rings that come while the caller is busy are one.

        Yields too after a lost connection is back: what was rung meanwhile was not heard. Never ends by itself.
        """
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as heard:
                    await heard.subscribe(CHANNEL)
                    self._unheard = 0
                    yield
                    while True:
                        # None: nothing for so long; the socket's own timeout is shorter than silence may last.
                        if await heard.get_message(timeout=1.0) is None:
                            continue
                        while await heard.get_message(timeout=0) is not None:
                            pass
                        yield
            except RedisError as error:
                if self._unheard % _SAY_EVERY == 0:
                    log.warning("bell.not_heard", error=type(error).__name__, failures=self._unheard + 1)
                self._unheard += 1
                await asyncio.sleep(_AGAIN_AFTER_S)
