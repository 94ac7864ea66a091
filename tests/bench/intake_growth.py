"""Does recording stay linear? Time for 2N events over time for N.

Both record through the recorder's own store, in batches as it makes them, without the endpoint. The two
databases are fed in turn, batch by batch, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import psycopg

from shared.store.webhooks import ReceivedBody, Webhooks
from tests.bench import bodies
from tests.bench.figure import Figure
from tests.bench.progress import say
from tests.bench.rows import count_rows
from tests.bench.size import sized
from tests.bench.stack import fresh_servers, get_acquainted, recorder_store
from tests.world import received

BATCH = 256
_EVENTS = 40_000
_MOST_TIMES = 2.1


async def measure() -> list[Figure]:
    """Record N events in one fresh database and 2N in another: a batch here, two there."""
    batches = sized(_EVENTS / BATCH, least=8)
    async with fresh_servers("once") as once, fresh_servers("twice") as twice:
        for servers in (once, twice):
            await get_acquainted(servers.postgres, servers.admin)
        async with recorder_store(once.postgres) as store_once, recorder_store(twice.postgres) as store_twice:
            once_s = twice_s = 0.0
            for number in range(batches):
                say(f"batch {number + 1:,} of {batches:,}")
                once_s += await record_s(Webhooks(store_once), batch(number))
                for place in (2 * number, 2 * number + 1):
                    twice_s += await record_s(Webhooks(store_twice), batch(place))
        for servers, times in ((once, 1), (twice, 2)):
            await must_hold(servers.admin, events=batches * BATCH * times)
        note = f"{batches * BATCH:,} events in {once_s:.1f} s, {2 * batches * BATCH:,} in {twice_s:.1f} s; {once.disk}"
    return [Figure("intake.growth", twice_s / once_s, "times", at_most=_MOST_TIMES, note=note)]


def batch(number: int, *, stride: int = 1) -> list[ReceivedBody]:
    """Return a batch as the recorder hands it to the store: bodies with one item each."""
    start = number * BATCH
    return [received(bodies.single(start + place, stride=stride)) for place in range(BATCH)]


async def record_s(webhooks: Webhooks, batch: Sequence[ReceivedBody]) -> float:
    """Record a batch; return the seconds it took. Parsing is not in it: it grows with nothing."""
    started = time.perf_counter()
    await webhooks.record(batch, settle_s=1)
    return time.perf_counter() - started


async def must_hold(admin: psycopg.AsyncConnection, *, events: int) -> None:
    """See that the events of the batches became rows, beside those of the acquaintance. Raises: RuntimeError."""
    rows = await count_rows(admin)
    if rows.stored != rows.items or rows.items < events:
        raise RuntimeError(f"the rows do not add up: {rows} for {events} events")
