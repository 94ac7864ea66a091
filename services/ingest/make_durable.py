"""Keep a webhook body before its 200: one append carries all bodies that wait at that moment (group commit)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from shared.domain.errors import ParleyError, Unavailable
from shared.queue.streams import append
from shared.store.webhooks import Webhooks
from shared.telemetry import metrics
from shared.whatsapp.events import WebhookBody

log = structlog.get_logger()

# The bounds keep one append from holding up Redis, and one entry within what a recorder takes in a batch.
_GROUP_BODIES = 256
_GROUP_BYTES = 4 * 1024 * 1024
_MOST_WAITING = 4096  # beyond this we are not keeping up: Meta is told to come back rather than memory to grow
_MOST_WAITING_BYTES = 64 * 1024 * 1024
# What makes an acknowledged append survive a power cut; the last would skip the sync while the file is rewritten.
_FSYNC_POLICY = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
_REDIS_RETRY_S = 1.0  # after a failure Postgres takes everything this long, so that not every group pays a timeout


class MakeDurable:
    """Appends to Redis; to Postgres while Redis is out or does not fsync; refuses when both are.

    `run` must run beside. `keep` returns only once the body is durable. Raises: Unavailable.
    """

    def __init__(
        self,
        *,
        stream: redis.asyncio.Redis,
        webhooks: Webhooks,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._webhooks = webhooks
        self._monotonic = monotonic
        self._waiting: deque[tuple[WebhookBody, asyncio.Future[None]]] = deque()
        self._arrived = asyncio.Event()
        self._redis_fsyncs = False  # until Redis said so itself, anew after each failure: it may come back changed
        self._redis_out_until = float("-inf")
        self._waiting_bytes = 0

    async def keep(self, body: WebhookBody) -> None:
        """Return once `body` is durable. Raises: Unavailable."""
        if len(self._waiting) >= _MOST_WAITING or self._waiting_bytes >= _MOST_WAITING_BYTES:
            raise Unavailable("too many webhooks wait", code="overloaded", retry_after_s=1)
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, kept))
        self._waiting_bytes += len(body.raw)
        self._arrived.set()
        await kept

    async def run(self) -> None:
        """Write what waits, group after group, until cancelled; nobody is left waiting then."""
        try:
            await self._write_groups()
        finally:
            _settle(self._waiting, Unavailable("the webhook could not be kept", code="not_durable"))
            self._waiting.clear()

    async def _write_groups(self) -> None:
        while True:
            await self._arrived.wait()
            group = self._next_group()
            bodies = [body for body, _ in group]
            metrics.WEBHOOK_GROUP_BODIES.observe(len(bodies))
            try:
                where = await self._write(bodies)
            except ParleyError as error:
                # Nothing durable is reachable: who waits behind would only wait for the same answer.
                _settle([*group, *self._waiting], error)
                self._waiting.clear()
                self._waiting_bytes = 0
                self._arrived.clear()
            except BaseException as error:
                _settle(group, Unavailable("the webhook could not be kept", code="not_durable"))
                if isinstance(error, asyncio.CancelledError):
                    raise
                log.exception("webhooks.not_kept", bodies=len(bodies))
            else:
                metrics.WEBHOOK_BODIES.labels(where).inc(len(bodies))
                _settle(group, None)

    def _next_group(self) -> list[tuple[WebhookBody, asyncio.Future[None]]]:
        group: list[tuple[WebhookBody, asyncio.Future[None]]] = []
        size_bytes = 0
        while self._waiting and len(group) < _GROUP_BODIES and size_bytes < _GROUP_BYTES:
            group.append(self._waiting.popleft())
            size_bytes += len(group[-1][0].raw)
        self._waiting_bytes -= size_bytes
        if not self._waiting:
            self._arrived.clear()
        return group

    async def _write(self, bodies: list[WebhookBody]) -> str:
        if await self._is_redis_fit():
            try:
                await append(self._stream, bodies)
            except RedisError as error:
                # The append may have been carried out all the same: the body's id makes recording it twice harmless.
                self._redis_fsyncs = False
                self._redis_out_until = self._monotonic() + _REDIS_RETRY_S
                log.warning("redis.append_failed", error=type(error).__name__, bodies=len(bodies))
            else:
                return "redis"
        await self._webhooks.store_bodies(bodies)
        return "postgres"

    async def _is_redis_fit(self) -> bool:
        if self._redis_fsyncs:
            return True
        if self._monotonic() < self._redis_out_until:
            return False
        self._redis_out_until = self._monotonic() + _REDIS_RETRY_S
        return await self.check_redis()

    async def check_redis(self) -> bool:
        """Ask Redis whether an acknowledged append survives a crash; until it says so, Postgres comes first."""
        try:
            policy = await self._stream.config_get("*append*")  # one pattern: Redis 6 takes no second name
        except RedisError as error:
            # Unreachable: appends find that out themselves. Refused (a managed server): we cannot know, so no.
            if self._redis_fsyncs and not _is_refusal(error):
                return False
            policy = {}
        fsyncs = all(policy.get(name) == wanted for name, wanted in _FSYNC_POLICY.items())
        if fsyncs != self._redis_fsyncs:
            event = "redis.fsync_confirmed" if fsyncs else "redis.fsync_not_confirmed"
            log.warning(
                event,
                hint=None if fsyncs else f"Set {_FSYNC_POLICY}; Postgres comes first until then.",
            )
        self._redis_fsyncs = fsyncs
        metrics.REDIS_IS_DURABLE.set(fsyncs)
        return fsyncs


def _is_refusal(error: RedisError) -> bool:
    return isinstance(error, redis.exceptions.ResponseError)


def _settle(group: Iterable[tuple[WebhookBody, asyncio.Future[None]]], error: ParleyError | None) -> None:
    for _, kept in group:
        if kept.done():  # the caller went away
            continue
        if error is None:
            kept.set_result(None)
        else:
            kept.set_exception(error)
