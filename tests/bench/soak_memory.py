"""Memory of ingest and recorder after ten minutes at full load over that after two: what leaks shows here.

Proportional memory (Linux Pss), the median of readings over ten seconds. Bodies are made while sending: ten minutes of
them would not fit in memory. Leaves some ten gigabytes of rows on the disk while it runs.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping

from tests.bench.figure import Figure
from tests.bench.load_process import load_process
from tests.bench.memory import proportional_mib
from tests.bench.progress import say
from tests.bench.rows import count_rows
from tests.bench.size import sized
from tests.bench.stack import fresh_servers, get_acquainted, ingest, recorder
from tests.bench.sustained import SINGLE, plan_of, recorded

_SECONDS = 600
_EARLY = 0.2  # of the time: two minutes of ten
_READINGS = 10  # a second apart
_MOST_TIMES = 1.05


async def measure() -> list[Figure]:
    """Load both, and look at them early and late."""
    seconds = sized(_SECONDS, least=60)
    async with fresh_servers() as servers:
        await get_acquainted(servers.postgres, servers.admin)
        async with ingest(servers) as endpoint, recorder(servers) as consumer:
            pids = {"ingest": endpoint.pid, "recorder": consumer.pid}
            before = await count_rows(servers.admin)
            plan = plan_of(SINGLE, servers, port=endpoint.port, seconds=seconds, in_memory=False)
            async with load_process(plan) as load:
                await load.go()
                early = await _medians(pids, after_s=seconds * _EARLY - _READINGS)
                late = await _medians(pids, after_s=seconds * (1 - _EARLY) - _READINGS)
                sent = await load.sent(within_s=120)
                await recorded(servers, before.items + sent.accepted)
            rows = await count_rows(servers.admin) - before
            rows.must_be(bodies=sent.accepted, items=sent.accepted, messages=sent.accepted // 4)
    note = f"{rows.items:,} events in {seconds} s; early is after {seconds * _EARLY:.0f} s; {servers.disk}"
    figures = [
        Figure(f"soak.memory.{name}", late[name] / early[name], "times", at_most=_MOST_TIMES, note=note)
        for name in pids
    ]
    return figures + [Figure(f"soak.memory.{name}_mib", late[name], "MiB", early[name], "early") for name in pids]


async def _medians(pids: Mapping[str, int], *, after_s: float) -> dict[str, float]:
    """Wait, then read once a second; return each process's median. Units: MiB."""
    say(f"waiting {after_s:.0f} s under load, then reading memory")
    await asyncio.sleep(after_s)
    readings = []
    for _ in range(_READINGS):
        readings.append({name: proportional_mib(pid) for name, pid in pids.items()})
        await asyncio.sleep(1)
    return {name: statistics.median(reading[name] for reading in readings) for name in pids}
