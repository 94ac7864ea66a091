"""Keep a webhook body before its 200: one append carries all bodies that wait at that moment (group commit)."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, repeat

import redis.asyncio
import structlog
from redis.exceptions import RedisError, ResponseError

from shared.domain.errors import ParleyError, Unavailable
from shared.domain.ids import new_id
from shared.queue.streams import Appender, backlog_bytes, body_of, fields_of
from shared.store.webhooks import Webhooks
from shared.telemetry import metrics

log = structlog.get_logger()

# The bounds keep one append from holding up Redis, and one entry within what a recorder takes in a batch.
_GROUP_BODIES = 256
_GROUP_BYTES = 4 * 1024 * 1024
_MOST_WAITING = 4096  # beyond this we are not keeping up: Meta is told to come back rather than memory to grow
_MOST_WAITING_BYTES = 64 * 1024 * 1024
# What makes an acknowledged append survive a power cut; the last would skip the sync while the file is rewritten.
_FSYNC_POLICY = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
_SAY_EVERY = 30  # failures; an outage is not a flood of lines


@dataclass(slots=True, eq=False)
class _Waiting:
    raw: bytes
    received_us: int
    traceparent: str | None
    kept: asyncio.Future[None]


class _RedisState(StrEnum):
    FIT = "fit"
    UNREACHABLE = "unreachable"
    NOT_DURABLE = "not_durable"  # or will not say
    BEHIND = "behind"  # the stream is longer than it should get: nobody reads it, or not fast enough


_HINTS = {
    _RedisState.NOT_DURABLE: f"Set {_FSYNC_POLICY}; Postgres comes first until then.",
    _RedisState.BEHIND: "Do recorders run, and keep up? Postgres comes first until the stream is shorter.",
}


class MakeDurable:
    """Appends to Redis; to Postgres while Redis is out, full, behind or does not fsync; refuses when both are out.

    `run` must run beside, and `check_redis` now and then: appends find out that Redis is unfit, only the check that
    it is fit. `keep` returns only once the body is durable. Raises: Unavailable.
    """

    def __init__(
        self, *, stream: redis.asyncio.Redis, webhooks: Webhooks, max_backlog_bytes: int = 128 * 1024 * 1024
    ) -> None:
        self._stream = stream
        self._appender = Appender(stream)
        self._webhooks = webhooks
        self._max_backlog_bytes = max_backlog_bytes
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._redis_state = _RedisState.UNREACHABLE
        self._is_redis_fit = False  # until Redis said so itself, anew after each failure: it may come back changed
        self._failures = 0

    def keep(self, raw: bytes, traceparent: str | None = None) -> Awaitable[None]:
        """Return what is done once `raw` is durable, under an id and a time it gets here. Raises: Unavailable."""
        if len(self._waiting) >= _MOST_WAITING or self._waiting_bytes >= _MOST_WAITING_BYTES:
            raise Unavailable("too many webhooks wait", code="overloaded", retry_after_s=1)
        one = _Waiting(raw, time.time_ns() // 1000, traceparent, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._waiting_bytes += len(raw)
        self._arrived.set()
        return one.kept

    async def run(self) -> None:
        """Write what waits, group after group, until cancelled; nobody is left waiting then."""
        try:
            await self._write_groups()
        finally:
            _refuse(self._all_waiting(), Unavailable("the webhook could not be kept", code="not_durable"))

    async def _write_groups(self) -> None:
        while True:
            await self._arrived.wait()
            group = self._next_group()
            started = time.perf_counter()
            try:
                where = await self._write(group)
            except Unavailable as error:
                # Nothing durable is reachable: who waits behind would only wait for the same answer.
                _refuse([*group, *self._all_waiting()], error)
            except BaseException as error:
                _refuse(group, Unavailable("the webhook could not be kept", code="not_durable"))
                if isinstance(error, asyncio.CancelledError):
                    raise
                log.exception("webhooks.not_kept", bodies=len(group))
            else:
                for one in group:
                    if not one.kept.done():  # done: the caller went away
                        one.kept.set_result(None)
                metrics.WEBHOOK_BODIES.add(len(group), where)
                metrics.WEBHOOK_GROUP_BODIES.observe(len(group))
            metrics.WEBHOOK_APPEND_SECONDS.observe(time.perf_counter() - started)

    def _next_group(self) -> list[_Waiting]:
        if len(self._waiting) <= _GROUP_BODIES and self._waiting_bytes <= _GROUP_BYTES:
            return self._all_waiting()
        group: list[_Waiting] = []
        size_bytes = 0
        while self._waiting and len(group) < _GROUP_BODIES and size_bytes < _GROUP_BYTES:
            one = self._waiting.popleft()
            group.append(one)
            size_bytes += len(one.raw)
        self._waiting_bytes -= size_bytes
        return group

    def _all_waiting(self) -> list[_Waiting]:
        everyone = list(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._arrived.clear()
        return everyone

    async def _write(self, group: Sequence[_Waiting]) -> str:
        """Return where the group is durable now. Raises: Unavailable."""
        ids = _new_ids(len(group))
        if self._is_redis_fit:
            try:
                await self._appender.append(
                    fields_of(
                        ids=ids,
                        received_us=[one.received_us for one in group],
                        raws=[one.raw for one in group],
                        traceparents=[one.traceparent for one in group],
                    ),
                )
                self._failures = 0
                return "redis"
            except RedisError as error:
                # The append may have been carried out all the same: the body's id makes recording it twice harmless.
                self._is_redis_fit = False
                if self._failures % _SAY_EVERY == 0:
                    log.warning("redis.append_failed", error=type(error).__name__, failures=self._failures + 1)
                self._failures += 1
        await self._webhooks.store_bodies(
            [
                body_of(
                    id_bytes=ids[16 * number : 16 * (number + 1)],
                    received_us=one.received_us,
                    raw=one.raw,
                    traceparent=one.traceparent,
                )
                for number, one in enumerate(group)
            ]
        )
        return "postgres"

    async def check_redis(self) -> bool:
        """Ask Redis whether an acknowledged append survives a crash, and whether the stream leaves room.

        Until it says so, Postgres comes first.
        """
        failures = self._failures
        state = await self._ask_redis()
        if state != self._redis_state:
            say = log.info if state is _RedisState.FIT else log.warning
            say("redis.state_changed", state=state, hint=_HINTS.get(state))
        self._redis_state = state
        if state in (_RedisState.NOT_DURABLE, _RedisState.BEHIND):
            self._is_redis_fit = False
        elif state is _RedisState.FIT and failures == self._failures:  # else the answer may be older than the failure
            self._is_redis_fit = True
        # Unreachable: appends find that out themselves.
        return state is _RedisState.FIT

    async def _ask_redis(self) -> _RedisState:
        try:
            backlog = await backlog_bytes(self._stream)
            policy = await self._stream.config_get("*append*")  # one pattern: Redis 6 takes no second name
        except ResponseError:
            backlog, policy = 0, {}  # refused (a managed server): we cannot know, so no
        except RedisError:
            metrics.REDIS_IS_DURABLE.set(0)
            return _RedisState.UNREACHABLE
        fsyncs = all(policy.get(name) == wanted for name, wanted in _FSYNC_POLICY.items())
        metrics.REDIS_IS_DURABLE.set(fsyncs)
        metrics.WEBHOOK_BACKLOG_BYTES.set(backlog)
        if not fsyncs:
            return _RedisState.NOT_DURABLE
        return _RedisState.FIT if backlog <= self._max_backlog_bytes else _RedisState.BEHIND


def _refuse(group: Iterable[_Waiting], error: ParleyError) -> None:
    for one in group:
        if not one.kept.done():
            one.kept.set_exception(error)


def _new_ids(count: int) -> bytes:
    """Return UUIDv7s that follow each other, end to end: one draw a group, since a draw takes as long as a signature.

    Source: RFC 9562, section 6.2, method 2.
    """
    high, low = divmod(new_id().int & ~0xFFFF, 1 << 64)
    return struct.pack(f">{2 * count}Q", *chain.from_iterable(zip(repeat(high), range(low, low + count), strict=False)))
