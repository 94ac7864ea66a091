"""The worker one would write first, to compare with: an RQ job makes one call to Claude and waits for it.

`python -m tests.bench.straw_ai`: one `SimpleWorker`, which forks nothing, with its event loop, its database connection
and its client of Claude kept from job to job; each job claims one conversation and analyses it with our own code.
Settings as for ours: REDIS_URL, DATABASE_URL, ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys

import redis
import rq
from rq.serializers import JSONSerializer

from services.ai_worker.analyst import Analyst
from services.ai_worker.claude import Claude, connect
from services.ai_worker.settings import AnthropicSettings
from shared.settings.clocks import Clocks
from shared.store.analysis import AnalysisWork
from shared.store.postgres import postgres_transport
from shared.telemetry.logs import configure_logs

QUEUE = "straw"
_JOB_S = 60


def queue(connection: redis.Redis) -> rq.Queue:
    """Return the queue of its jobs."""
    return rq.Queue(QUEUE, connection=connection, serializer=JSONSerializer)


def enqueue(url: str, jobs: int) -> None:
    """Ask for so many calls."""
    with redis.Redis.from_url(url) as connection:
        for _ in range(jobs):
            queue(connection).enqueue_call("tests.bench.straw_ai.analyse", timeout=_JOB_S, result_ttl=0)


def analyse() -> None:
    """The job: one conversation, one call."""
    loop, analyst, _ = _analyst()
    loop.run_until_complete(_one(analyst))


async def _one(analyst: Analyst) -> None:
    await analyst.claim_due()
    await analyst.drain(_JOB_S)


@functools.cache
def _analyst() -> tuple[asyncio.AbstractEventLoop, Analyst, contextlib.AsyncExitStack]:
    """Return what jobs share. Whoever drops the stack closes the pool: it is kept, and ends with the process."""
    loop, stack = asyncio.new_event_loop(), contextlib.AsyncExitStack()
    opening = postgres_transport(os.environ["DATABASE_URL"], service_role="service_role", max_connections=1)
    store = loop.run_until_complete(stack.enter_async_context(opening))
    clocks, key = Clocks(), os.environ["ANTHROPIC_API_KEY"]
    client = connect(api_key=key, base_url=os.environ["ANTHROPIC_BASE_URL"], timeout_s=clocks.claude_timeout_s)
    models = AnthropicSettings.model_validate({"api_key": key}).models()
    claude = Claude(client, model=models, timeout_s=clocks.claude_timeout_s)
    return loop, Analyst(claude=claude, rows=AnalysisWork(store), clocks=clocks, slots=1), stack


if __name__ == "__main__":
    configure_logs(service="ai_worker", process="straw", level="warning", to=sys.stderr)
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as opened:
        rq.SimpleWorker([queue(opened)], connection=opened, serializer=JSONSerializer).work(logging_level="WARNING")
