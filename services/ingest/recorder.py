"""The `recorder` process: stream entries and stored bodies in, rows out. Wiring and loops only."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import structlog
from redis.exceptions import RedisError

from services.ingest.record_batch import record_batch
from services.ingest.settings import RecorderSettings
from shared.domain.errors import Unavailable
from shared.queue.connection import connect, connect_blocking
from shared.queue.jobs import Jobs
from shared.queue.runner import repeat
from shared.queue.streams import StreamEntry, UnknownVersionError, WebhookStream, decode
from shared.settings.clocks import Clocks
from shared.store.choose import open_store
from shared.store.webhooks import ReceivedBody, Webhooks
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
_ENTRIES = 64  # per read; each holds up to a group of bodies


class Recorder:
    """Records what the stream and the table of stored bodies hold, as one consumer among any number."""

    def __init__(
        self, *, stream: WebhookStream, webhooks: Webhooks, jobs: Jobs, clocks: Clocks, batch_bodies: int
    ) -> None:
        self._stream = stream
        self._webhooks = webhooks
        self._jobs = jobs
        self._clocks = clocks
        self._batch_bodies = batch_bodies
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
                await self._record(batch)
                del self._read[: len(batch)]
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
                except _LATER:
                    raise
                except Exception:
                    # Those behind it were claimed too, and must not wait for their turn anew.
                    log.exception("stream_entry.postponed", entry_id=entry_id, deliveries=deliveries)

    async def _record(self, entries: list[StreamEntry]) -> None:
        for part in _parts([body for entry in entries for body in entry.bodies]):
            await self._record_bodies(part)
        await self._stream.done([entry.id for entry in entries])

    async def _record_alone(self, bodies: list[WebhookBody], *, are_stored: bool = False) -> None:
        """Record bodies that failed together too often one by one; what still fails is set aside, raw."""
        for body in bodies:
            try:
                await self._record_bodies([body], are_stored=are_stored)
            except _LATER:
                raise  # the weather's fault, not this body's
            except Exception as error:
                if time.monotonic() - self._recorded_at > _SOUND_FOR_S:
                    raise  # nothing gets through: that is us (a function missing after a deploy), not the body
                log.exception("webhook.quarantined", body_id=str(body.id))
                await self._webhooks.quarantine(
                    ReceivedBody(body, ParsedBody(items=1), are_stored), reason=type(error).__name__
                )

    async def _record_bodies(self, bodies: list[WebhookBody], *, are_stored: bool = False) -> None:
        async with asyncio.timeout(self._clocks.batch_deadline_s):
            await record_batch(
                bodies,
                webhooks=self._webhooks,
                jobs=self._jobs,
                settle_s=self._clocks.settle_s,
                are_stored=are_stored,
            )
        self._recorded_at = time.monotonic()

    async def from_postgres(self) -> float:
        """Record bodies that were stored while Redis was out; works without Redis."""
        claimed = await self._webhooks.claim_bodies(limit=self._batch_bodies, hold_s=self._clocks.drain_hold_s)
        if not claimed:
            return self._clocks.drain_every_s
        for part in _parts([body for body, claims in claimed if claims <= _MOST_DELIVERIES]):
            await self._record_bodies(part, are_stored=True)
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
        open_store(settings.database, settings.supabase.rest(), service_role="service_role") as store,
    ):
        stream = WebhookStream(client, consumer=consumer)
        recorder = Recorder(
            stream=stream,
            webhooks=Webhooks(store),
            jobs=Jobs(connect_blocking(url, timeout_s=clocks.redis_append_timeout_s)),
            clocks=clocks,
            batch_bodies=settings.batch_bodies,
        )
        health = Health({"postgres": store.is_reachable})
        async with serving_internal(health, settings.http):
            log.info("process.started", consumer=consumer)
            loops = [
                asyncio.create_task(repeat("from_stream", recorder.from_stream, stop=stop)),
                asyncio.create_task(repeat("from_postgres", recorder.from_postgres, stop=stop)),
                asyncio.create_task(repeat("keep_house", recorder.keep_house, stop=stop)),
            ]
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
