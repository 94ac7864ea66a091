"""The webhook stream: its entry format, appending in groups, reading as a consumer group."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, count
from typing import Any
from uuid import UUID

import hiredis
import redis.asyncio
from redis.exceptions import ResponseError

from shared.whatsapp.events import WebhookBody

STREAM = "wa:webhooks"
GROUP = "recorders"
_VERSION = b"2"

# Deletes consumers that hold nothing and have been idle for ARGV[2] ms, or only the one named ARGV[3]. A script,
# since an entry delivered between looking and deleting would leave the pending list and never be read again.
_FORGET = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local forgotten = 0
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #flat, 2 do consumer[flat[i]] = flat[i + 1] end
  if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[2]) and (ARGV[3] == '' or consumer.name == ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    forgotten = forgotten + 1
  end
end
return forgotten
"""

# A script, since asking for the entry brings up to 256 bodies along.
_OLDEST = """
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return first and first[1]
"""


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry of the stream: the bodies that were waiting together."""

    id: str
    bodies: tuple[WebhookBody, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is in the stream: appended and not recorded."""

    entries: int
    size_bytes: int
    oldest_pending_s: float  # 0: nothing is pending


class UnknownVersionError(ValueError):
    """An entry written by a newer version of us: it stays pending for a recorder that knows it."""


def encode(bodies: Sequence[WebhookBody]) -> dict[bytes, bytes]:
    """Return one entry's fields: see `fields_of`."""
    return fields_of(
        ids=b"".join(body.id.bytes for body in bodies),
        received_us=[_microseconds(body.received_at) for body in bodies],
        raws=[body.raw for body in bodies],
        traceparents=[body.traceparent for body in bodies],
    )


def fields_of(
    *, ids: bytes, received_us: Sequence[int], raws: Sequence[bytes], traceparents: Sequence[str | None]
) -> dict[bytes, bytes]:
    """Return one entry's fields, from columns: what ingest has at hand, without an object for each body.

    Bodies are numbered, since the client folds repeated names into one. `ids`: 16 bytes each, end to end, as are the
    times. A traceparent of None is left out; who reads the entry begins one, from the body's id.
    """
    fields = {b"v": _VERSION, b"n": b"%d" % len(raws), b"ids": ids}
    fields[b"at"] = struct.pack(f">{len(raws)}q", *received_us)
    fields.update(zip(map(b"body.%d".__mod__, count()), raws, strict=False))
    for number, trace in enumerate(traceparents):
        if trace is not None:
            fields[b"trace.%d" % number] = trace.encode("ascii")
    return fields


def decode(entry_id: str, fields: Mapping[bytes, bytes]) -> StreamEntry:
    """Return the entry. Raises: UnknownVersionError."""
    version = fields.get(b"v")
    if version == _VERSION:
        bodies = _decode_2(fields)
    elif version == b"1":
        bodies = _decode_1(fields)
    else:
        raise UnknownVersionError(f"stream entry {entry_id} has an unknown version")
    return StreamEntry(id=entry_id, bodies=tuple(bodies))


def _decode_2(fields: Mapping[bytes, bytes]) -> Iterator[WebhookBody]:
    count, ids, times = int(fields[b"n"]), fields[b"ids"], fields[b"at"]
    if len(ids) != 16 * count or len(times) != 8 * count:
        raise ValueError("the entry's ids and times are not as many as its bodies")
    for number, (received_us,) in enumerate(struct.iter_unpack(">q", times)):
        trace = fields.get(b"trace.%d" % number)
        yield body_of(
            id_bytes=ids[16 * number : 16 * (number + 1)],
            received_us=received_us,
            raw=fields[b"body.%d" % number],
            traceparent=None if trace is None else trace.decode("ascii"),
        )


def _decode_1(fields: Mapping[bytes, bytes]) -> Iterator[WebhookBody]:
    """Read what was written until 2026-11-24; entries may wait for as long as no recorder ran."""
    for number in range(int(fields[b"n"])):
        yield body_of(
            id_bytes=fields[b"id.%d" % number],
            received_us=int(fields[b"at.%d" % number]),
            raw=fields[b"body.%d" % number],
            traceparent=fields[b"trace.%d" % number].decode("ascii"),
        )


def body_of(*, id_bytes: bytes, received_us: int, raw: bytes, traceparent: str | None) -> WebhookBody:
    """Return the body. Without a traceparent its trace begins here: the same each time, so nothing need carry it."""
    body_id = UUID(bytes=id_bytes)
    trace = f"00-{body_id.hex}-{body_id.hex[16:]}-01" if traceparent is None else traceparent
    return WebhookBody(id=body_id, received_at=_at(received_us), raw=raw, traceparent=trace)


def _microseconds(at: datetime) -> int:
    # Integers on purpose: a float of seconds loses microseconds, and received_at is half of the body's key.
    delta = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _at(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


async def append(client: redis.asyncio.Redis, bodies: Sequence[WebhookBody]) -> None:
    """Append one entry; on return Redis has fsynced it (given appendfsync always). Raises: redis.RedisError."""
    await client.xadd(STREAM, encode(bodies))  # type: ignore[arg-type]


class Appender:
    """Appends entry after entry, one at a time, over a connection it keeps.

    Taking one from the pool each time costs 16 µs, and redis-py's own packing of 32 bodies 23 µs where hiredis takes
    13: together the half of an append (2026-11-24).
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._pool = client.connection_pool
        self._connection: redis.asyncio.Connection | None = None

    async def append(self, fields: Mapping[bytes, bytes]) -> None:
        """Append one entry; on return Redis has fsynced it (given appendfsync always). Raises: redis.RedisError."""
        command: Any = (b"XADD", STREAM.encode(), b"*", *chain.from_iterable(fields.items()))
        if self._connection is None:
            self._connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        # After an error it closes itself, and the next append opens it again: to a Redis that may have changed.
        await self._connection.send_packed_command(hiredis.pack_command(command))
        await self._connection.read_response()


async def backlog_bytes(client: redis.asyncio.Redis) -> int:
    """Return what the stream takes in Redis, as it estimates off a hundred nodes. Raises: redis.RedisError."""
    used: int | None = await client.memory_usage(STREAM, samples=100)
    return used or 0


class WebhookStream:
    """The reading side, as one consumer of the group."""

    def __init__(self, client: redis.asyncio.Redis, *, consumer: str) -> None:
        self._client = client
        self._consumer = consumer

    async def read(self, *, count: int, block_s: float) -> list[tuple[str, dict[bytes, bytes]]]:
        """Return new entries, waiting up to `block_s`; the group is made from id 0 when it is missing."""
        try:
            answer: Any = await self._client.xreadgroup(
                GROUP, self._consumer, {STREAM: ">"}, count=count, block=int(block_s * 1000)
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._make_group()
            return []
        if not answer:
            return []
        streams = answer.items() if isinstance(answer, dict) else answer
        return [
            (entry_id.decode(), fields)
            for _, batches in streams
            for batch in (batches if isinstance(answer, dict) else [batches])
            for entry_id, fields in batch
        ]

    async def take_over(self, *, idle_s: float, count: int) -> list[tuple[str, dict[bytes, bytes], int]]:
        """Claim entries another consumer left unacknowledged; with how often each has been delivered."""
        try:
            pending: Any = await self._client.xpending_range(
                STREAM, GROUP, min="-", max="+", count=count, idle=int(idle_s * 1000)
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            return []
        if not pending:
            return []
        times = {p["message_id"]: int(p["times_delivered"]) for p in pending}
        claimed: Any = await self._client.xclaim(STREAM, GROUP, self._consumer, int(idle_s * 1000), list(times))
        return [(i.decode(), fields, times[i] + 1) for i, fields in claimed if fields]

    async def done(self, entry_ids: Sequence[str]) -> None:
        """Acknowledge and delete, together: what is acknowledged is gone, what is not comes back."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.xack(STREAM, GROUP, *entry_ids)
            pipe.xdel(STREAM, *entry_ids)
            await pipe.execute()

    async def waiting(self) -> Waiting:
        """Say what waits in the stream."""
        entries = int(await self._client.xlen(STREAM))
        size_bytes = int(await self._client.memory_usage(STREAM) or 0)  # sampled: cheap however long it is
        try:
            pending: Any = await self._client.xpending(STREAM, GROUP)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            pending = {"min": None}
        oldest_ms = int(pending["min"].split(b"-")[0]) if pending["min"] else None  # an id begins with its time
        age_s = max(0.0, time.time() - oldest_ms / 1000) if oldest_ms is not None else 0.0
        return Waiting(entries, size_bytes, age_s)

    async def oldest_s(self) -> float:
        """Return the age of the oldest entry that is not recorded, taken by a recorder or not; 0: there is none."""
        oldest: Any = await self._client.eval(_OLDEST, 1, STREAM)
        return 0.0 if oldest is None else max(0.0, time.time() - int(oldest.split(b"-")[0]) / 1000)

    async def leave(self) -> None:
        """Delete this consumer if nothing is pending for it; its pending entries would vanish with it."""
        await self._client.eval(_FORGET, 1, STREAM, GROUP, 0, self._consumer)

    async def forget_dead_consumers(self, *, idle_s: float) -> None:
        """Delete consumers that have not read for `idle_s` and hold nothing: a live one reads every few seconds."""
        await self._client.eval(_FORGET, 1, STREAM, GROUP, int(idle_s * 1000), "")

    async def _make_group(self) -> None:
        try:
            await self._client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
