"""Messages per second from claim to `delivered` in our rows: the sandbox accepts, and its statuses are recorded.

Dispatcher, sandbox, ingest, recorder, PostgreSQL and Redis share the machine's cores. Each message goes to a person of
its own and gets two statuses, up to a hundred in a body, as Meta does when there is much to say. First to strangers,
whose first status says which user id goes with their number, then to the same people: replies are of that kind.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.bench import sender_stack, stack
from tests.bench.cpu import cpu_of, machine_seconds
from tests.bench.figure import Figure
from tests.bench.progress import say
from tests.bench.size import sized

_MESSAGES = 8_000
_WISHED_PER_S = 400
_BEGAN = (
    "select extract(epoch from min(started_at))::float8 from app.send_attempts where started_at >= to_timestamp(%s)"
)
_SENT = "select extract(epoch from max(settled_at))::float8 from app.send_attempts where started_at >= to_timestamp(%s)"
_LEFT = "select count(*) from public.whatsapp_messages where status <> 'delivered'"


@dataclass(frozen=True, slots=True)
class _Round:
    per_s: float
    note: str


async def measure() -> list[Figure]:
    """Queue, let a dispatcher loose, wait for the last status; twice."""
    messages = sized(_MESSAGES, least=1_000)
    async with (
        sender_stack.sender_servers(tier_mps=1_000) as made,
        stack.ingest(made.servers) as ingest,
        stack.recorder(made.servers) as recorder,
        sender_stack.sandbox(
            webhook_url=f"http://127.0.0.1:{ingest.port}/api/webhooks/whatsapp",
            throughput=1_000,
            reads=False,
            pair_limit="off",
        ) as (meta, sandbox_pid),
    ):
        pids = made.servers.pids | {"sandbox": sandbox_pid, "ingest": ingest.pid, "recorder": recorder.pid}
        rounds = []
        for who in ("strangers", "people we know"):
            say(f"end to end: queueing {messages:,} to {who}")
            await made.queue(messages)
            await made.admin.execute("update app.send_pairs set free_at = '-infinity'")
            rounds.append(await _round(made, messages, meta.base_url.port or 0, pids))
    strangers, known = rounds
    return [
        Figure("sender.end_to_end_per_s", known.per_s, "1/s", at_least=_WISHED_PER_S, note=known.note),
        Figure("sender.end_to_end.strangers_per_s", strangers.per_s, "1/s", note=strangers.note),
    ]


async def _round(made: sender_stack.SenderServers, messages: int, port: int, pids: dict[str, int]) -> _Round:
    began_at = time.time()
    async with sender_stack.dispatcher(made, graph_port=port) as running:
        pids = pids | {"dispatcher": running.pid}
        await sender_stack.is_ready(running)
        before, machine_before = cpu_of(pids), machine_seconds()
        await made.until(_LEFT, 0, within_s=300, every_s=0.2)
        ended_at = time.time()
        spent = {name: seconds - before[name] for name, seconds in cpu_of(pids).items()}
        machine_s = machine_seconds() - machine_before
    started_at, sent_at = float(await made.value(_BEGAN, began_at)), float(await made.value(_SENT, began_at))
    seconds = ended_at - started_at
    by_cost = sorted(spent.items(), key=lambda item: -item[1])
    said = ", ".join(f"{name} {cpu_s / messages * 1e6:.0f}" for name, cpu_s in by_cost)
    busy = sum(spent.values()) / seconds
    return _Round(
        messages / seconds,
        f"all accepted after {sent_at - started_at:.1f} s, all delivered after {seconds:.1f} s; CPU µs per message: "
        f"{said}; together {busy:.2f} of {stack.cores()} cores, {by_cost[0][0]} the most; the rest of the machine took "
        f"{machine_s / seconds - busy:.2f}",
    )
