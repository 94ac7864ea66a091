"""The whole intake under load, from accept to committed rows, as fast as it can for as long as it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from shared.queue.streams import STREAM
from tests.bench import bodies, metrics_page
from tests.bench.cpu import cpu_of, machine_seconds
from tests.bench.load_process import LoadProcess, load_process
from tests.bench.progress import say
from tests.bench.rows import Rows, count_items, count_rows
from tests.bench.stack import Running, Servers
from tests.bench.webhook_load import Plan, Sent

_DRAIN_S = 300.0  # far beyond any lag one would accept: a slow recorder shall be seen as slow, not as an error
_SLACK_S = 60.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What kind of load.

    `most_entries`: see webhook_load. `most_per_s`: bodies made ready per second of the run; more are never sent.
    """

    name: str
    kind: str
    items_per_body: int
    messages_per_body: float
    most_entries: int
    most_per_s: int


# An entry holds what the 64 connections had waiting, so up to 64 bodies. 32 entries are at most 2,048 items: half a
# second at 4,000 a second, and eight calls' worth of bodies for the recorder, so that it never lacks any.
SINGLE = Shape("end_to_end", "single", 1, 0.25, most_entries=32, most_per_s=12_000)
# Here an entry is up to 6,400 items, half a second at 12,000 a second: two, and the one that slips through. More would
# let the lag pass two seconds; as it is, the recorder waits some 30 ms of each 800 for the next (2026-11-24).
BATCHED = Shape("batched", "batched", bodies.ITEMS_PER_BATCH, 25, most_entries=2, most_per_s=400)


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Times in seconds; `cpu_s` by process; `pages`: /metrics before and after, by process.

    `others_cores`: what the rest of the machine took meanwhile; figures of a noisy machine are too low.
    """

    rows: Rows
    sent: Sent
    seconds: float  # from the first request until all rows were there
    lag_s: float  # from the last 200 until then
    cpu_s: Mapping[str, float]
    others_cores: float
    pages: Mapping[str, tuple[metrics_page.Sums, metrics_page.Sums]]

    @property
    def events_per_s(self) -> float:
        """Items in PostgreSQL per second of the run."""
        return self.rows.items / self.seconds


def plan_of(
    shape: Shape, servers: Servers, *, port: int, seconds: float, first: int = 0, in_memory: bool = True
) -> Plan:
    """Return what the load generator is told."""
    return Plan(
        port=port,
        redis_url=servers.redis.url(),
        kind=shape.kind,
        first=first,
        seconds=seconds,
        requests=round(shape.most_per_s * seconds),
        most_entries=shape.most_entries,
        are_made_first=in_memory,
    )


async def sustain(shape: Shape, servers: Servers, plan: Plan, *, processes: Mapping[str, Running]) -> Run:
    """Run it and see that every item accepted became a row, once. Raises: RuntimeError, TimeoutError."""
    say(f"{shape.name}: making and signing {plan.requests:,} bodies")
    async with load_process(plan) as load:
        say(f"{shape.name}: {plan.seconds:g} s of load, then all rows")
        return await _run(shape, servers, plan, load, processes)


async def _run(shape: Shape, servers: Servers, plan: Plan, load: LoadProcess, processes: Mapping[str, Running]) -> Run:
    pids = {name: running.pid for name, running in processes.items()} | servers.pids
    rows_before = await count_rows(servers.admin)
    pages_before = {name: await metrics_page.sums(running.internal_port) for name, running in processes.items()}
    cpu_before, machine_before, looked_at = cpu_of(pids), machine_seconds(), time.monotonic()
    await load.go()
    sent = await load.sent(within_s=plan.seconds + _SLACK_S)
    ended_at = await recorded(servers, rows_before.items + sent.accepted * shape.items_per_body)
    cpu_s = {name: after - cpu_before[name] for name, after in cpu_of(pids).items()} | {"load": sent.cpu_s}
    others_s = machine_seconds() - machine_before - sum(cpu_s.values())
    others_cores = max(0.0, others_s / (time.monotonic() - looked_at))
    pages = {
        name: (pages_before[name], await metrics_page.sums(running.internal_port))
        for name, running in processes.items()
    }
    rows = await count_rows(servers.admin) - rows_before
    rows.must_be(
        bodies=sent.accepted, items=sent.accepted * shape.items_per_body, messages=_messages(shape, plan, sent)
    )
    return Run(rows, sent, ended_at - sent.first_request_at, ended_at - sent.last_answer_at, cpu_s, others_cores, pages)


def _messages(shape: Shape, plan: Plan, sent: Sent) -> int:
    """Return how many messages there must be.

    Bodies go out in order from `first` on, each answered, and of single ones every fourth is a text.
    """
    if shape.kind == "batched":
        return int(sent.accepted * shape.messages_per_body)
    return (plan.first + sent.accepted) // 4 - plan.first // 4


async def recorded(servers: Servers, items: int, *, within_s: float = _DRAIN_S) -> float:
    """Wait until that many items are in PostgreSQL; return when, by CLOCK_MONOTONIC.

    The stream's length is asked first, since that costs nothing; what counts is the rows.
    """
    async with asyncio.timeout(within_s):
        while await servers.redis_client.xlen(STREAM):
            await asyncio.sleep(0.01)
        while await count_items(servers.admin) < items:
            await asyncio.sleep(0.02)
    return time.monotonic()
