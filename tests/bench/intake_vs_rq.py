"""Our intake over one RQ job per webhook (`straw`), same bodies, same servers, same run.

Both are counted alike: items recorded in PostgreSQL over the time from the first request until the last row. The straw
pipeline gets a fixed number of bodies before and after ours, and its better run counts; its queue holds what its worker
has not done yet, so nothing is held back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from deploy.local.ports import any_free_port
from tests.bench import bodies
from tests.bench.figure import Figure
from tests.bench.load_process import load_process
from tests.bench.progress import say
from tests.bench.rows import count_rows
from tests.bench.size import sized
from tests.bench.stack import Servers, fresh_servers, get_acquainted, ingest, listens, python, recorder
from tests.bench.sustained import SINGLE, Run, plan_of, recorded, sustain
from tests.bench.webhook_load import Plan
from tests.bench.where_time_goes import bottleneck

_SECONDS = 15
_STRAW_BODIES = 1_500
_STRAW_WITHIN_S = 120.0
_WISHED_TIMES = 30


async def measure() -> list[Figure]:
    """Run the straw pipeline, ours, and the straw pipeline again."""
    straw_bodies = sized(_STRAW_BODIES, least=200)
    async with fresh_servers() as servers:
        await get_acquainted(servers.postgres, servers.admin)
        async with straw(servers) as port:
            straw_per_s = [await _straw_per_s(servers, port, first=10**9, count=straw_bodies)]
        async with ingest(servers) as endpoint, recorder(servers) as consumer:
            plan = plan_of(SINGLE, servers, port=endpoint.port, seconds=sized(_SECONDS, least=2))
            run = await sustain(SINGLE, servers, plan, processes={"ingest": endpoint, "recorder": consumer})
        async with straw(servers) as port:
            straw_per_s.append(await _straw_per_s(servers, port, first=2 * 10**9, count=straw_bodies))
    return _figures(run, straw_per_s)


def _figures(run: Run, straw_per_s: list[float]) -> list[Figure]:
    theirs = max(straw_per_s)
    runs = " and ".join(f"{per_s:.0f}" for per_s in straw_per_s)
    return [
        Figure(
            "intake.vs_rq", run.events_per_s / theirs, "times", at_least=_WISHED_TIMES,
            note=f"RQ: {runs} a second before and after ours; {bottleneck(run)}",
        ),
        Figure("intake.vs_rq.ours_per_s", run.events_per_s, "1/s", theirs, "one RQ job per webhook"),
    ]  # fmt: skip


@contextlib.asynccontextmanager
async def straw(servers: Servers) -> AsyncIterator[int]:
    """Run the straw pipeline's endpoint and its worker; yield its port."""
    port = any_free_port()
    environment = {
        "REDIS_URL": servers.redis.url(),
        "DATABASE_URL": servers.postgres.url("bench_recorder", "bench"),
        "WHATSAPP_APP_SECRETS": bodies.SECRET,
    }
    async with (
        python("tests.bench.straw", str(port), env=environment),
        python("tests.bench.straw", "worker", env=environment),
    ):
        async with asyncio.timeout(30):
            while not (await listens(port) and await servers.redis_client.scard("rq:workers")):
                await asyncio.sleep(0.05)
        yield port
    await servers.redis_client.flushdb()  # the worker's registration, which outlives it


async def _straw_per_s(servers: Servers, port: int, *, first: int, count: int) -> float:
    say(f"one RQ job per webhook: {count:,} bodies")
    before = await count_rows(servers.admin)
    plan = Plan(port, servers.redis.url(), "single", first, seconds=60, requests=count)
    async with load_process(plan) as load:
        await load.go()
        sent = await load.sent(within_s=120)
        ended_at = await recorded(servers, before.items + sent.accepted, within_s=_STRAW_WITHIN_S)
    rows = await count_rows(servers.admin) - before
    rows.must_be(bodies=sent.accepted, items=sent.accepted, messages=sent.accepted // 4)
    return sent.accepted / (ended_at - sent.first_request_at)
