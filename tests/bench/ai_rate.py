"""What one AI worker does with a backlog: analyses finished and stored per second, its memory, its CPU for each.

A conversation each, so that an analysis is a call: bursts, of which several fit into one, are `ai_calls`. Between the
first tenth and the last of what waits, every slot is taken. Beside it, before it on the same servers, the worker that
makes one call a job (`straw_ai`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from services.ai_worker.settings import Settings
from tests.bench import ai_stack, straw_ai
from tests.bench.cpu import cpu_of, machine_seconds
from tests.bench.figure import Figure
from tests.bench.memory import proportional_mib
from tests.bench.progress import say
from tests.bench.size import sized
from tests.bench.stack import python

_MESSAGES = 2_000
_STRAW_MESSAGES = 20
_WISHED_PER_S = 60
_MOST_MIB = 238  # 250 MB
_MOST_CPU_MS = 15
_LOOK_EVERY_S = 0.2
_WITHIN_S = 600
_SLOTS = int(Settings.model_fields["slots"].default)
_CALLS = (
    "select count(*), count(*) filter (where outcome = 'ok'), percentile_cont(0.5) within group (order by latency_ms)"
    " from app.analysis_attempts where id > %s"
)


@dataclass(frozen=True, slots=True)
class _Run:
    """The steady part of a run. `cpu_ms`: per analysis, by process."""

    per_s: float
    memory_mib: float
    cpu_ms: dict[str, float]
    analyses: int
    others_cores: float


async def measure() -> list[Figure]:
    """Give the straw worker a few, ours many."""
    messages, few = sized(_MESSAGES, least=400), sized(_STRAW_MESSAGES, least=10)
    async with ai_stack.ai_servers() as made:
        say(f"one RQ job per call: {few} messages")
        await made.backlog(few, first=0)
        straw_ai.enqueue(made.servers.redis.url(), few)
        async with python("tests.bench.straw_ai", env=made.environment) as process:
            theirs = await _steady(made, process.pid, few, done=0)
            await _until(made, few)
        await made.servers.redis_client.flushdb()  # the worker's registration, which outlives it
        (last,) = await made.row("select coalesce(max(id), 0) from app.analysis_attempts")
        say(f"one worker: {messages:,} messages")
        await made.backlog(messages, first=few)
        async with ai_stack.worker(made) as running:
            ours = await _steady(made, running.pid, messages, done=few)
            await _until(made, few + messages)
        calls, fine, latency_ms = await made.row(_CALLS, last)
    if (calls, fine) != (messages, messages):
        raise RuntimeError(f"{messages} messages took {calls} calls, of which {fine} went well")
    return _figures(ours, theirs, latency_ms=float(latency_ms))


async def _steady(made: ai_stack.AiServers, pid: int, messages: int, *, done: int) -> _Run:
    """Look at a worker from the first tenth of its messages until the last."""
    pids = {"worker": pid, "postgres": made.servers.pids["postgres"], "sandbox": made.sandbox_pid}
    await _until(made, done + messages // 10)
    before, began_at, cpu, machine_s = await made.analysed(), time.perf_counter(), cpu_of(pids), machine_seconds()
    memory_mib = await _until(made, done + messages * 9 // 10, pid=pid)
    analyses, seconds = await made.analysed() - before, time.perf_counter() - began_at
    spent = _spent(cpu, cpu_of(pids))
    return _Run(
        analyses / seconds,
        memory_mib,
        {name: s / analyses * 1000 for name, s in spent.items()},
        analyses,
        (machine_seconds() - machine_s - sum(spent.values())) / seconds,
    )


async def _until(made: ai_stack.AiServers, analyses: int, *, pid: int | None = None) -> float:
    """Wait until so many are stored; return the most memory the process was seen to take, in MiB."""
    most = 0.0
    async with asyncio.timeout(_WITHIN_S):
        while await made.analysed() < analyses:
            if pid is not None:
                most = max(most, proportional_mib(pid))
            await asyncio.sleep(_LOOK_EVERY_S)
    return most


def _spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in before}


def _figures(ours: _Run, theirs: _Run, *, latency_ms: float) -> list[Figure]:
    said = ", ".join(f"{name} {ms:.1f}" for name, ms in ours.cpu_ms.items())
    times = f"{ours.per_s / theirs.per_s:.0f} times the RQ worker's {theirs.per_s:.2f}"
    rival = "an RQ worker, one call a job"
    return [
        Figure(
            "ai.rate_per_s", ours.per_s, "1/s", _SLOTS / ai_stack.CLAUDE_S, f"{_SLOTS} slots over Claude's second",
            at_least=_WISHED_PER_S,
            note=f"{ours.analyses:,} analyses; {times}; a call took {latency_ms:.0f} ms at the median; CPU ms per "
            f"analysis: {said}; others took {ours.others_cores:.2f} cores; {ai_stack.shared_machine()}",
        ),
        Figure("ai.rate.vs_rq", ours.per_s / theirs.per_s, "times", note=f"{theirs.analyses} analyses of theirs"),
        Figure("ai.memory_mib", ours.memory_mib, "MiB", theirs.memory_mib, rival, at_most=_MOST_MIB),
        Figure("ai.cpu_ms", ours.cpu_ms["worker"], "ms", theirs.cpu_ms["worker"], rival, at_most=_MOST_CPU_MS),
    ]  # fmt: skip
