"""Messages one dispatcher sends, claims, pacing and recorded results included, beside a bare loop over its client.

Dispatcher and bare loop are pinned to one core in turn; a minimal responder, PostgreSQL and Redis have the other. Every
message goes to a person of its own: pairs are Meta's limit, not ours. The tiers are beyond what the machine can do,
so tokens are asked for and never short.
"""

from __future__ import annotations

import asyncio
import json
import sys

from deploy.local.places import ROOT
from deploy.local.ports import any_free_port
from tests.bench import metrics_page, sender_stack, stack
from tests.bench.cpu import cpu_seconds
from tests.bench.figure import Figure
from tests.bench.pinning import on_cores, pin, split_cores
from tests.bench.progress import say
from tests.bench.size import sized

_MESSAGES = 10_000
_BARE = 10_000
_CONNECTIONS = 64
_ROUNDS = 3
_WISHED_RATIO = 0.5
_OPEN = "select count(*) from app.outbox where state <> 'done'"
_SECONDS = """
select extract(epoch from max(settled_at) - min(started_at))::float8 from app.send_attempts
where started_at >= (select max(at) from bench_marks)
"""


async def measure() -> list[Figure]:
    """Let the two take turns; the best round of each counts."""
    messages = sized(_MESSAGES, least=1_000)
    ours: list[tuple[float, dict[str, float]]] = []
    bare: list[dict[str, float]] = []
    async with sender_stack.sender_servers(tier_mps=100_000) as made:
        core, others = split_cores()
        await made.admin.execute("create temp table bench_marks (at timestamptz)")
        for pid in made.servers.pids.values():
            pin(pid, others)
        port = any_free_port()
        with on_cores(others):
            responder = stack.python("tests.bench.graph_responder", str(port), env={})
        async with responder as responding:
            pin(responding.pid, others)
            async with asyncio.timeout(30):
                while not await stack.listens(port):
                    await asyncio.sleep(0.05)
            for number in range(sized(_ROUNDS, least=1)):
                say(f"rate: round {number + 1}: bare loop")
                with on_cores(core):
                    bare.append(await _bare(port))
                say(f"rate: round {number + 1}: queueing {messages:,}")
                await made.queue(messages, first=12_030_000_000 + number * messages)
                say(f"rate: round {number + 1}: dispatcher")
                ours.append(await _ours(made, port, messages, core))
    best, cpu = max(ours, key=lambda one: one[0])
    limit = max(one["per_s"] for one in bare)
    said = ", ".join(f"{name} {us:.0f}" for name, us in cpu.items())
    return [
        Figure(
            "sender.rate_per_s", best, "1/s", limit, "a bare loop over the same client, on the same core",
            at_least=_WISHED_RATIO * limit, note=f"CPU µs per message: {said}; the bare loop's {bare[0]['cpu_us']:.0f}",
        ),
        Figure("sender.rate.cpu_us", cpu["dispatcher"], "µs/message", bare[0]["cpu_us"], "the bare loop"),
    ]  # fmt: skip


async def _bare(port: int) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.bare_sender", str(port), str(sized(_BARE, least=2_000)), str(_CONNECTIONS),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    found: dict[str, float] = json.loads(said)
    return found


async def _ours(
    made: sender_stack.SenderServers, port: int, messages: int, core: set[int]
) -> tuple[float, dict[str, float]]:
    """Return messages per second, and CPU microseconds per message of each process."""
    pids = {"postgres": made.servers.pids["postgres"], "redis": made.servers.pids["redis"]}
    await made.admin.execute("delete from bench_marks")
    await made.admin.execute("insert into bench_marks values (clock_timestamp())")
    with on_cores(core):
        running_one = sender_stack.dispatcher(made, graph_port=port, path="/v26.0")
        async with running_one as running:
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            await made.until(
                "select count(*) > 0 from app.outbox where state = 'done' and finished_at >= "
                "(select max(at) from bench_marks)",
                True,
                within_s=60,
                every_s=0.02,
            )
            own_before = cpu_seconds(running.pid)
            await made.until(_OPEN, 0, within_s=300)
            spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
            spent = {"dispatcher": cpu_seconds(running.pid) - own_before} | spent
            sums = await metrics_page.sums(running.internal_port)
    if (sent := sums.get("sends_total", 0.0)) < messages or await made.value(
        "select count(*) from app.send_attempts where outcome <> 'accepted'"
    ):
        raise RuntimeError(f"not every message was accepted at its first try: {sent:.0f} of {messages}")
    seconds = float(await made.value(_SECONDS))
    return messages / seconds, {name: s / messages * 1e6 for name, s in spent.items()}
