"""Webhooks accepted per second, each on disk before its 200; the limit is a uvicorn app that only answers 200.

Both servers are pinned to one core, and all else (Redis, load generator, PostgreSQL) to the rest, so that the two do
the same on the same core. They take turns; the best round of each counts, and the ratio is of those two. Nobody
records: the stream grows during a round and is emptied after it.

`python -m tests.bench.intake_accept PORT PER_SECOND SECONDS` is the load for the latency: requests at fixed times
whether or not answers came. A latency counts from when its request was due, unless the generator itself was late.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import uvloop

from deploy.local.places import ROOT
from deploy.local.ports import HOST, any_free_port
from shared.queue.streams import STREAM
from tests.bench import bodies, metrics_page, stack
from tests.bench.cpu import cpu_seconds, machine_seconds
from tests.bench.figure import Figure
from tests.bench.load_process import load_process
from tests.bench.progress import say
from tests.bench.size import sized
from tests.bench.webhook_load import Plan

_CONNECTIONS = 64
_ROUNDS = 5
_ROUND_S = 2
_MOST_PER_S = 100_000  # requests made ready: more than any round takes
_PACED_RUNS = 3
_PACED_S = 3
_WISHED_RATIO = 0.75
_WISHED_P99_MS = 250.0  # Meta wants a median of at most this
_BUSY = 0.95  # of a core


@dataclass(frozen=True, slots=True)
class Round:
    """One round against one server. `load_busy`, `others_busy`: shares of a core."""

    per_s: float
    cpu_us: float  # of the server, per request
    load_busy: float
    others_busy: float


async def measure() -> list[Figure]:
    """Drive the two in turn, then ours at half its best rate."""
    async with stack.fresh_servers() as servers, contextlib.AsyncExitStack() as exits:
        server_core, other_cores = _split_cores()
        with _on_cores(server_core):  # what starts now stays there
            ours = await exits.enter_async_context(stack.ingest(servers))
            bare_port = any_free_port()
            bare = await exits.enter_async_context(_bare(bare_port))
        with _on_cores(other_cores):
            for pid in servers.pids.values():
                _pin(pid, other_cores)
            before = await metrics_page.sums(ours.internal_port)
            rounds: dict[str, list[Round]] = {"bare": [], "ours": []}
            for number in range(sized(_ROUNDS, least=2)):
                say(f"accept: round {number + 1}")
                rounds["bare"].append(await _round(servers, number, port=bare_port, pid=bare.pid))
                rounds["ours"].append(await _round(servers, number, port=ours.port, pid=ours.pid))
            after = await metrics_page.sums(ours.internal_port)
            rate = max(one.per_s for one in rounds["ours"]) / 2
            paced = []
            for number in range(sized(_PACED_RUNS, least=1)):
                say(f"accept: {rate:,.0f} a second, evenly, {number + 1}")
                paced.append(await _paced(ours.port, rate))
                await servers.redis_client.delete(STREAM)
            cursor = await servers.admin.execute("select count(*) from app.webhook_bodies")
            in_postgres = await cursor.fetchone()
    if in_postgres != (0,):
        raise RuntimeError(f"{in_postgres} bodies went to PostgreSQL: Redis did not answer within its time")
    kept = _grew(before, after, "webhook_bodies_total")
    if kept != _grew(before, after, "webhook_accept_seconds_count"):
        raise RuntimeError("not every webhook that was accepted was kept")
    return [
        *_speed(rounds),
        _latency(min(paced, key=lambda run: run["p99_ms"])),
        *_where_time_goes(before, after, kept),
    ]


def _speed(rounds: dict[str, list[Round]]) -> list[Figure]:
    best, limit = (max(rounds[name], key=lambda one: one.per_s) for name in ("ours", "bare"))
    cpu_us, bare_cpu_us = (min(one.cpu_us for one in rounds[name]) for name in ("ours", "bare"))
    return [
        Figure(
            "intake.accept_per_s", best.per_s, "1/s", limit.per_s, "uvicorn on the same core, only answering 200",
            at_least=_WISHED_RATIO * limit.per_s, note=f"ours: {_said(best)}; bare: {_said(limit)}",
        ),
        Figure(
            "intake.accept.cpu_us", cpu_us, "µs/request", bare_cpu_us, "the same, in CPU time: noise moves it less",
            at_most=bare_cpu_us / _WISHED_RATIO,
        ),
    ]  # fmt: skip


def _said(one: Round) -> str:
    limited = " and was the limit" if one.load_busy > _BUSY else ""
    return f"load generator {one.load_busy:.0%} of a core{limited}, rest of the machine {one.others_busy:.0%}"


def _latency(paced: dict[str, float]) -> Figure:
    return Figure(
        "intake.accept.p99_at_half_load_ms", paced["p99_ms"], "ms", at_most=_WISHED_P99_MS,
        note=f"{paced['per_s']:,.0f} a second, median {paced['p50_ms']:.2f} ms, longest {paced['most_ms']:.1f} ms; "
        f"load generator {paced['busy']:.0%} of a core, itself late by {paced['own_ms']:.1f} ms (p99, not counted), "
        f"the whole machine {paced['machine']:.0%}",
    )  # fmt: skip


def _where_time_goes(before: metrics_page.Sums, after: metrics_page.Sums, kept: float) -> list[Figure]:
    groups = _grew(before, after, "webhook_append_seconds_count")
    accept_us = _grew(before, after, "webhook_accept_seconds_sum") / kept * 1e6
    verify_us = _grew(before, after, "webhook_verify_seconds_total") / kept * 1e6
    append_us = _grew(before, after, "webhook_append_seconds_sum") / groups * 1e6
    return [
        Figure("intake.accept.bodies_per_append", kept / groups, "", _CONNECTIONS, "all that can wait at once"),
        Figure("intake.accept.verify_us", verify_us, "µs/request", accept_us, "from the head to the 200, waiting too"),
        Figure("intake.accept.append_us", append_us, "µs/group", accept_us, "from the head to the 200, waiting too"),
    ]


def _grew(before: metrics_page.Sums, after: metrics_page.Sums, name: str) -> float:
    return after[name] - before.get(name, 0.0)


async def _round(servers: stack.Servers, number: int, *, port: int, pid: int) -> Round:
    seconds = sized(_ROUND_S, least=0.5) if number else 0.5  # the first warms both up
    requests = round(_MOST_PER_S * seconds)
    plan = Plan(port, servers.redis.url(), "single", number * requests, seconds, requests, _CONNECTIONS)
    async with load_process(plan) as load:
        cpu_s, machine_s, started = cpu_seconds(pid), machine_seconds(), time.monotonic()
        await load.go()
        sent = await load.sent(within_s=seconds + 30)
        cpu_s = cpu_seconds(pid) - cpu_s
        machine_s, took_s = machine_seconds() - machine_s, time.monotonic() - started
    await servers.redis_client.delete(STREAM)
    return Round(
        per_s=sent.accepted / (sent.last_answer_at - sent.first_request_at),
        cpu_us=cpu_s / sent.accepted * 1e6,
        load_busy=sent.cpu_s / took_s,
        others_busy=max(0.0, (machine_s - cpu_s - sent.cpu_s) / took_s),
    )


def _split_cores() -> tuple[set[int], set[int]]:
    """Return the core of the server, and those of everyone else; on one core they share it."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


@contextlib.contextmanager
def _on_cores(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _pin(pid: int, cores: set[int]) -> None:
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), cores)


@contextlib.asynccontextmanager
async def _bare(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    async with stack.python("tests.bench.bare", str(port), env={}) as process:
        async with asyncio.timeout(20):
            while not await _listens(port):
                await asyncio.sleep(0.05)
        yield process


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


async def _paced(port: int, per_s: float) -> dict[str, float]:
    load = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.intake_accept", str(port), str(per_s), str(sized(_PACED_S, least=1)),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    machine_s, started = machine_seconds(), time.monotonic()
    said, _ = await load.communicate()
    answer: dict[str, float] = json.loads(said)
    return answer | {"machine": (machine_seconds() - machine_s) / (time.monotonic() - started)}


async def _send_paced(port: int, per_s: float, seconds: float) -> dict[str, float]:
    """Send at fixed times over all connections in turn; latencies in ms, from when each was due."""
    requests = [bodies.request(bodies.single(number)) for number in range(round(per_s * seconds))]
    latencies: list[float] = []
    lateness: list[float] = [0.0]
    begins_at = time.monotonic() + 0.5

    async def send(mine: Sequence[tuple[int, bytes]]) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        for number, request in mine:
            from_s = begins_at + number / per_s
            if (early_s := from_s - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
                # Nothing but this process itself makes it late now, and that is not the server's.
                late, from_s = time.monotonic() - from_s, time.monotonic()
                lateness.append(late * 1000)
            writer.write(request)
            if not (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200"):
                raise SystemExit("not every webhook got 200")
            latencies.append((time.monotonic() - from_s) * 1000)
        writer.close()

    numbered = list(enumerate(requests))
    gc.disable()  # a pause would look like the server's
    cpu_s = time.process_time()
    async with asyncio.TaskGroup() as group:
        for start in range(_CONNECTIONS):
            group.create_task(send(list(itertools.islice(numbered, start, None, _CONNECTIONS))))
    took_s = time.monotonic() - begins_at
    latencies.sort()
    p50, p99 = (latencies[len(latencies) * share // 100] for share in (50, 99))
    busy = (time.process_time() - cpu_s) / took_s
    own_ms = sorted(lateness)[len(lateness) * 99 // 100]
    rate = len(latencies) / took_s
    return {"per_s": rate, "p50_ms": p50, "p99_ms": p99, "most_ms": latencies[-1], "busy": busy, "own_ms": own_ms}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_send_paced(int(sys.argv[1]), *map(float, sys.argv[2:])))))  # noqa: T201
