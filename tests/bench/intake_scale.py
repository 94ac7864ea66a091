"""What a second recorder process adds: events per second with two, less those with one, over those with one.

Recording alone is measured: the stream is filled first, as ingest would have (32 bodies an entry), set aside under
another name, and given to recorders that are up and wait. So neither accepting nor starting is in the figure. One, two,
two, one: drift of the machine hits both. PostgreSQL shares the cores with the recorders and takes part of what a second
one could add; how much of the machine each took is in the note.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.domain.ids import new_id
from shared.queue.streams import GROUP, STREAM, encode
from shared.whatsapp.events import WebhookBody
from tests.bench import bodies, waits
from tests.bench.cpu import cpu_of, machine_seconds
from tests.bench.figure import Figure
from tests.bench.progress import say
from tests.bench.rows import count_rows
from tests.bench.size import sized
from tests.bench.stack import Servers, cores, fresh_servers, get_acquainted, recorder
from tests.bench.sustained import recorded

_EVENTS = 120_000
_PER_ENTRY = 32  # bodies; what ingest makes of 64 connections
_ASIDE = f"{STREAM}:aside"
_ORDER = (1, 2, 2, 1)
_WISHED = 0.6


@dataclass(frozen=True, slots=True)
class Drain:
    """One run: events per second, and cores taken by PostgreSQL, by all recorders, by others; what sessions did."""

    recorders: int
    events_per_s: float
    postgres_cores: float
    recorder_cores: float
    others_cores: float
    waits: str


async def measure() -> list[Figure]:
    """Drain the same load with one recorder and with two."""
    events = sized(_EVENTS / _PER_ENTRY, least=40) * _PER_ENTRY
    async with fresh_servers() as servers:
        await get_acquainted(servers.postgres, servers.admin)
        drains = [await _drain(servers, count, events, first=10**9 * n) for n, count in enumerate(_ORDER, start=1)]
        deadlocks = await _deadlocks(servers)
    one, two = (_mean([drain for drain in drains if drain.recorders == count]) for count in (1, 2))
    note = f"{events:,} events a drain, {cores()} cores; " + "; ".join(
        f"{d.recorders}: {d.events_per_s:,.0f}/s, PostgreSQL {d.postgres_cores:.2f} cores, recorders"
        f" {d.recorder_cores:.2f}, others {d.others_cores:.2f} ({d.waits})"
        for d in drains
    )
    return [
        Figure("intake.scale", (two - one) / one, "of the first", at_least=_WISHED, note=note),
        Figure("intake.scale.two_per_s", two, "1/s", one, "one recorder"),
        Figure("intake.scale.deadlocks", deadlocks, "", at_most=0),
    ]


def _mean(drains: list[Drain]) -> float:
    """Return events per second of all these drains together, each of the same events."""
    return len(drains) / sum(1 / drain.events_per_s for drain in drains)


async def _drain(servers: Servers, recorders: int, events: int, *, first: int) -> Drain:
    say(f"filling the stream with {events:,} bodies for {recorders}")
    before = await count_rows(servers.admin)
    await _fill_aside(servers, events, first)
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(recorder(servers)) for _ in range(recorders)]
        pids = {f"recorder{n}": process.pid for n, process in enumerate(running)} | servers.pids
        say(f"draining with {recorders}")
        cpu_before, machine_before = cpu_of(pids), machine_seconds()
        started_at = time.monotonic()
        async with waits.watched(servers.postgres) as found:
            await servers.redis_client.rename(_ASIDE, STREAM)
            ended_at = await recorded(servers, before.items + events)
        machine_s = machine_seconds() - machine_before
        cpu = {name: after - cpu_before[name] for name, after in cpu_of(pids).items()}
    rows = await count_rows(servers.admin) - before
    rows.must_be(bodies=events, items=events, messages=events // 4)
    seconds = ended_at - started_at
    mine = sum(spent for name, spent in cpu.items() if name.startswith("recorder"))
    others = max(0.0, machine_s - sum(cpu.values()))
    return Drain(
        recorders, events / seconds, cpu["postgres"] / seconds, mine / seconds, others / seconds, waits.said(found)
    )


async def _fill_aside(servers: Servers, events: int, first: int) -> None:
    """Make a stream as ingest would have, with its group, out of the recorders' sight."""
    client = servers.redis_client
    for start in range(first, first + events, _PER_ENTRY):
        at = datetime.now(UTC)
        raws = (bodies.single(number) for number in range(start, start + _PER_ENTRY))
        waiting = [WebhookBody(id=new_id(), received_at=at, raw=raw, traceparent="") for raw in raws]
        await client.xadd(_ASIDE, encode(waiting))  # type: ignore[arg-type]
    await client.xgroup_create(_ASIDE, GROUP, id="0")


async def _deadlocks(servers: Servers) -> int:
    cursor = await servers.admin.execute(
        "select deadlocks from pg_catalog.pg_stat_database where datname = pg_catalog.current_database()"
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
