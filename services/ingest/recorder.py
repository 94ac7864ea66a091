"""The `recorder` process: stream entries and stored bodies in, rows out. Wiring and loops only."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from redis.exceptions import RedisError

from services.ingest.drop_old_bodies import drop_old_bodies
from services.ingest.erase_contacts import erase_contacts
from services.ingest.record_batch import record_batch
from services.ingest.reroute import reroute
from services.ingest.settings import RecorderSettings
from shared.domain.errors import Unavailable
from shared.queue.connection import connect, connect_blocking
from shared.queue.inbound_rate import InboundRate
from shared.queue.jobs import Jobs
from shared.queue.runner import repeat
from shared.queue.streams import StreamEntry, UnknownVersionError, WebhookStream, decode
from shared.settings.clocks import Clocks
from shared.store.choose import open_store
from shared.store.replay import Replay
from shared.store.retention import Retention
from shared.store.webhook_batch import ReceivedBody
from shared.store.webhooks import Webhooks
from shared.telemetry import metrics
from shared.web.health import Health
from shared.web.serve import serving_internal, stop_signal
from shared.whatsapp.events import ParsedBody, WebhookBody

log = structlog.get_logger()

_MOST_DELIVERIES = 3  # an entry that came back more often is taken alone; what still fails is poison
# Half a mebibyte is some 1,600 messages: about a second of recording on two busy cores (2026-11-23).
_PART_BYTES = 512 * 1024
_SOUND_FOR_S = 300.0  # recording has worked this recently: what fails now is the body's fault
_LATER = (Unavailable, RedisError, TimeoutError)
_MOST_IN_VAIN = 9  # halvings of 256 bodies down to one, and nothing has got through: it is not the bodies
_ENTRIES = 64  # per read; each holds up to a group of bodies
_WATCH_EVERY_S = 5.0


class TooSlowError(Exception):
    """Bodies that cannot be recorded within the deadline though others can: they wait and are tried again alone."""


class Recorder:
    """Records what the stream and the table of stored bodies hold, as one consumer among any number."""

    def __init__(
        self,
        *,
        stream: WebhookStream,
        webhooks: Webhooks,
        jobs: Jobs,
        clocks: Clocks,
        batch_bodies: int,
        inbound: InboundRate | None = None,
    ) -> None:
        self._stream = stream
        self._webhooks = webhooks
        self._jobs = jobs
        self._clocks = clocks
        self._batch_bodies = batch_bodies
        self._inbound = inbound
        self._last_take_over = float("-inf")
        self._recorded_at = float("-inf")
        self._read: list[StreamEntry] = []  # and not recorded yet: the database said later

    async def from_stream(self) -> float:
        """Record new entries, and now and then those another recorder left; return the seconds to pause."""
        if time.monotonic() - self._last_take_over > self._clocks.poll_every_s:
            await self._take_over()
            self._last_take_over = time.monotonic()
        if not self._read:
            self._read = _decoded(await self._stream.read(count=_ENTRIES, block_s=self._clocks.redis_block_s))
        try:
            for batch in _batches(self._read, most_bodies=self._batch_bodies):
                try:
                    await self._record(batch)
                except TooSlowError as error:
                    # They stay pending and are taken over; those behind them go on.
                    log.error("stream_entries.postponed", entries=len(batch), reason=str(error))
                del self._read[: len(batch)]
        except TimeoutError:
            self._read = []  # they stay pending and come back: if it is them, what is new must not wait behind them
            raise
        except _LATER:
            raise
        except Exception:
            self._read = []  # not the weather: they stay pending, are taken over, and end in quarantine if need be
            raise
        return 0

    async def _take_over(self) -> None:
        left = await self._stream.take_over(idle_s=self._clocks.pending_idle_s, count=_ENTRIES)
        taken = {entry_id for entry_id, _, _ in left}
        self._read = [entry for entry in self._read if entry.id not in taken]
        for entry_id, fields, deliveries in left:
            log.warning("stream_entry.taken_over", entry_id=entry_id, deliveries=deliveries)
            for entry in _decoded([(entry_id, fields)]):
                try:
                    if deliveries > _MOST_DELIVERIES:
                        await self._record_alone(list(entry.bodies))
                        await self._stream.done([entry.id])
                    else:
                        await self._record([entry])
                except TooSlowError as error:
                    log.error("stream_entry.postponed", entry_id=entry_id, deliveries=deliveries, reason=str(error))
                except _LATER:
                    raise
                except Exception:
                    # Those behind it were claimed too, and must not wait for their turn anew.
                    log.exception("stream_entry.postponed", entry_id=entry_id, deliveries=deliveries)

    async def _record(self, entries: list[StreamEntry]) -> None:
        await self._record_bodies(_parts([body for entry in entries for body in entry.bodies]))
        with metrics.ACKNOWLEDGE_SECONDS.time():
            await self._stream.done([entry.id for entry in entries])

    async def _record_alone(self, bodies: list[WebhookBody], *, are_stored: bool = False) -> None:
        """Record bodies that failed together too often one by one; what still fails is set aside, raw."""
        for body in bodies:
            try:
                await self._record_bodies([[body]], are_stored=are_stored)
            except _LATER:
                raise  # the weather's fault, not this body's
            except Exception as error:
                if time.monotonic() - self._recorded_at > _SOUND_FOR_S:
                    raise  # nothing gets through: that is us (a function missing after a deploy), not the body
                log.exception("webhook.quarantined", body_id=str(body.id))
                await self._webhooks.quarantine(
                    ReceivedBody(body, ParsedBody(items=1), are_stored), reason=type(error).__name__
                )

    async def _record_bodies(self, parts: list[list[WebhookBody]], *, are_stored: bool = False) -> None:
        """Record bodies, each part within the deadline, in halves where it takes too long; all are tried.

        Raises: TooSlowError for bodies that take too long alone while others do not; TimeoutError when nothing does
        otherwise, which is the weather.
        """
        waiting, slow, in_vain, through = parts[::-1], 0, 0, False
        while waiting:
            part = waiting.pop()
            try:
                await self._record_in_time(part, are_stored=are_stored)
            except (TimeoutError, Unavailable) as error:
                if isinstance(error, Unavailable) and error.code != "database_too_slow":
                    raise
                in_vain += 1
                if in_vain >= _MOST_IN_VAIN:
                    raise TimeoutError from error
                if len(part) > 1:
                    waiting += [part[len(part) // 2 :], part[: len(part) // 2]]
                else:
                    slow += 1
                    log.error("webhook.too_slow", body_id=str(part[0].id), size_bytes=len(part[0].raw))
            else:
                in_vain, through = 0, True
        if slow and through:
            raise TooSlowError(f"{slow} bodies")
        if slow:
            raise TimeoutError

    async def _record_in_time(self, bodies: list[WebhookBody], *, are_stored: bool) -> None:
        async with asyncio.timeout(self._clocks.batch_deadline_s):
            await record_batch(
                bodies,
                webhooks=self._webhooks,
                jobs=self._jobs,
                settle_s=self._clocks.settle_s,
                are_stored=are_stored,
                inbound=self._inbound,
            )
        self._recorded_at = time.monotonic()

    async def from_postgres(self) -> float:
        """Record bodies that were stored while Redis was out; works without Redis."""
        claimed = await self._webhooks.claim_bodies(limit=self._batch_bodies, hold_s=self._clocks.drain_hold_s)
        if not claimed:
            return self._clocks.drain_every_s
        together = _parts([body for body, claims in claimed if claims <= _MOST_DELIVERIES])
        await self._record_bodies(together, are_stored=True)
        await self._record_alone([body for body, claims in claimed if claims > _MOST_DELIVERIES], are_stored=True)
        log.info("webhooks.drained", bodies=len(claimed))
        return 0

    async def keep_house(self) -> float:
        """Make the coming days' partitions; forget consumers of processes that are gone."""
        in_default = await self._webhooks.make_partitions()
        metrics.BODIES_IN_DEFAULT_PARTITION.set(in_default)
        if in_default:
            log.error("partitions.default_not_empty", rows=in_default)
        try:
            await self._stream.forget_dead_consumers(idle_s=self._clocks.housekeeping_every_s)
        except RedisError as error:
            log.warning("consumers.not_forgotten", error=type(error).__name__)
        return self._clocks.housekeeping_every_s


async def watch(stream: WebhookStream, webhooks: Webhooks) -> float:
    """Show what waits and what was set aside, to whoever scrapes; return the seconds to pause."""
    health = await webhooks.health()
    for name, gauge in metrics.INTAKE_HEALTH.items():
        gauge.set(health[name])
    waiting = await stream.waiting()
    metrics.STREAM_ENTRIES.set(waiting.entries)
    metrics.STREAM_BYTES.set(waiting.size_bytes)
    metrics.STREAM_OLDEST_PENDING_SECONDS.set(waiting.oldest_pending_s)
    return _WATCH_EVERY_S


def _decoded(raw: list[tuple[str, dict[bytes, bytes]]]) -> list[StreamEntry]:
    entries = []
    for entry_id, fields in raw:
        try:
            entries.append(decode(entry_id, fields))
        except (UnknownVersionError, LookupError, ValueError):
            log.error(
                "stream_entry.unknown_version", entry_id=entry_id, hint="A newer recorder must run: deploy it first."
            )
    return entries


def _parts(bodies: list[WebhookBody]) -> list[list[WebhookBody]]:
    """Split bodies so that each part fits a call's deadline: one body may hold a thousand messages."""
    parts: list[list[WebhookBody]] = []
    room_bytes = 0
    for body in bodies:
        if not parts or len(body.raw) > room_bytes:
            parts.append([])
            room_bytes = _PART_BYTES
        parts[-1].append(body)
        room_bytes -= len(body.raw)
    return parts


def _batches(entries: list[StreamEntry], *, most_bodies: int) -> list[list[StreamEntry]]:
    batches: list[list[StreamEntry]] = []
    room = 0
    for entry in entries:
        if not batches or len(entry.bodies) > room:
            batches.append([])
            room = most_bodies
        batches[-1].append(entry)
        room -= len(entry.bodies)
    return batches


async def main(settings: RecorderSettings) -> None:
    """Record until told to stop; then finish the batch at hand."""
    clocks = Clocks()
    url = settings.redis.url.get_secret_value()
    stop = stop_signal()
    consumer = f"{socket.gethostname()}-{os.getpid()}"
    async with (
        connect(url, timeout_s=clocks.redis_read_timeout_s, max_connections=4) as client,
        # Its own timeout: what is only a hint may not keep a batch waiting.
        connect(settings.cache_url, timeout_s=clocks.redis_hint_timeout_s, max_connections=2) as cache,
        open_store(settings.database, settings.supabase.rest(), service_role="service_role") as store,
    ):
        stream = WebhookStream(client, consumer=consumer)
        webhooks = Webhooks(store)
        jobs = Jobs(connect_blocking(url, timeout_s=clocks.redis_append_timeout_s))
        recorder = Recorder(
            stream=stream,
            webhooks=webhooks,
            jobs=jobs,
            clocks=clocks,
            batch_bodies=settings.batch_bodies,
            inbound=InboundRate(cache),
        )
        later = partial(
            reroute,
            replay=Replay(store),
            webhooks=webhooks,
            jobs=jobs,
            clocks=clocks,
            batch_bodies=settings.batch_bodies,
        )
        retention = Retention(store)
        drop_old = partial(
            drop_old_bodies,
            retention=retention,
            keep_days=settings.raw_keep_days,
            every_s=clocks.housekeeping_every_s,
        )
        erase = partial(erase_contacts, retention=retention, lease_s=clocks.lease_s, poll_every_s=clocks.poll_every_s)
        health = Health({"postgres": store.is_reachable})
        async with serving_internal(health, settings.http):
            log.info("process.started", consumer=consumer)
            steps: dict[str, Callable[[], Awaitable[float]]] = {
                "from_stream": recorder.from_stream,
                "from_postgres": recorder.from_postgres,
                "keep_house": recorder.keep_house,
                "reroute": later,
                "drop_old": drop_old,
                "erase": erase,
                "watch": partial(watch, stream, webhooks),
            }
            loops = [asyncio.create_task(repeat(name, step, stop=stop)) for name, step in steps.items()]
            await stop.wait()
            log.info("process.stopping")
            health.stopping = True
            _, late = await asyncio.wait(loops, timeout=clocks.drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            try:
                await stream.leave()
            except RedisError as error:
                log.warning("consumer.not_deleted", error=type(error).__name__)
