"""Events per second from accept to committed rows, one item a body, load generator and all on the same cores.

The rate is the sustained one: the load generator holds requests back while the stream is longer than 32 entries
(`webhook_load`), since an open tap would measure accepting, and bury the recorder. What is counted are items in state
recorded in PostgreSQL, over the time from the first request until the last row; and the lag at the end, from the last
200 until that row.
"""

from __future__ import annotations

from tests.bench.figure import Figure
from tests.bench.size import sized
from tests.bench.stack import fresh_servers, get_acquainted, ingest, recorder
from tests.bench.sustained import BATCHED, SINGLE, Run, Shape, plan_of, sustain
from tests.bench.where_time_goes import bottleneck, cores_used, cpu_figures, stage_figures

_SECONDS = 60
_WISHED_PER_S = {SINGLE.name: 4_000, BATCHED.name: 12_000}
_MOST_LAG_S = 2.0


async def measure(shape: Shape = SINGLE) -> list[Figure]:
    """Run ingest and one recorder under this load."""
    async with fresh_servers() as servers:
        await get_acquainted(servers.postgres, servers.admin)
        async with ingest(servers) as endpoint, recorder(servers) as consumer:
            plan = plan_of(shape, servers, port=endpoint.port, seconds=sized(_SECONDS, least=2))
            run = await sustain(shape, servers, plan, processes={"ingest": endpoint, "recorder": consumer})
        return figures(f"intake.{shape.name}", run, wished=_WISHED_PER_S[shape.name], disk=servers.disk)


def figures(name: str, run: Run, *, wished: float, disk: str) -> list[Figure]:
    """Return rate, lag and where the time went."""
    length = f"{run.rows.items:,} events in {run.seconds:.1f} s; {disk}"
    return [
        Figure(
            f"{name}_per_s", run.events_per_s, "1/s", cores_used(run), "all cores busy with nothing but this",
            at_least=wished, note=f"{length}; {bottleneck(run)}",
        ),
        Figure(f"{name}.lag_s", run.lag_s, "s", at_most=_MOST_LAG_S),
        Figure(f"{name}.accept_p99_ms", run.sent.p99_ms, "ms", run.sent.p50_ms, "the median"),
        *cpu_figures(name, run),
        *stage_figures(name, run),
    ]  # fmt: skip
