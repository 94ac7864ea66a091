"""From webhook to stored analysis under light load, less Claude's own time; all clocks are this machine's.

Five a second, each the first message of a person of their own. A conversation first settles, so that a burst is one
call: a wait we choose. It is in the whole, and taken off in the figure beside it. An analysis counts as stored once
another session sees it; that one looks every 10 ms.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import httpx

from shared.settings.clocks import Clocks
from tests.bench import ai_stack
from tests.bench.figure import Figure
from tests.bench.progress import say
from tests.bench.size import sized

_MESSAGES = 300
_WARM_UP = 5  # first connections, first plans
_EVERY_S = 0.2
_LOOK_EVERY_S = 0.01
_WITHIN_S = 30
_MOST_P50_MS, _MOST_P99_MS = 150, 600
_STORED = """
select m.wamid
from public.message_analyses a
join public.whatsapp_messages m on m.workspace_id = a.workspace_id and m.id = a.message_id
where a.created_at > now() - interval '5 seconds'
"""
_TIMES = """
select m.wamid, extract(epoch from m.created_at)::float8, extract(epoch from t.started_at)::float8, t.latency_ms::float8
from app.analysis_attempts t
join public.whatsapp_messages m on m.workspace_id = t.workspace_id and m.id = t.message_ids[1]
where t.outcome = 'ok'
"""


@dataclass(frozen=True, slots=True)
class _Times:
    """One message's way, in seconds since 1970; `claude_ms`: the call, as the worker counts it."""

    posted_at: float
    stored_at: float
    recorded_at: float
    claimed_at: float
    claude_ms: float

    @property
    def ours_ms(self) -> float:
        return (self.stored_at - self.posted_at) * 1000 - self.claude_ms


async def measure() -> list[Figure]:
    """Post evenly, then read off each message's times."""
    messages = sized(_MESSAGES, least=50)
    async with ai_stack.ai_servers() as made, ai_stack.whole_path(made) as client:
        say("latency: warming up")
        await _posted_and_stored(made, client, range(_WARM_UP))
        say(f"latency: {messages} messages, five a second")
        posted, stored = await _posted_and_stored(made, client, range(_WARM_UP, _WARM_UP + messages))
        rows = await (await made.servers.admin.execute(_TIMES.encode())).fetchall()
    return _figures([_Times(posted[wamid], stored[wamid], *times) for wamid, *times in rows if wamid in posted])


async def _posted_and_stored(
    made: ai_stack.AiServers, client: httpx.AsyncClient, people: range
) -> tuple[dict[str, float], dict[str, float]]:
    """Post a message of each; return by wamid when it was posted, and when its analysis was first seen."""
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_watch(made, {ai_stack.wamid(person) for person in people}))
        posting = group.create_task(_post(client, people))
    return posting.result(), watching.result()


async def _post(client: httpx.AsyncClient, people: range) -> dict[str, float]:
    posted: dict[str, float] = {}
    async with asyncio.TaskGroup() as group:
        for person in people:
            posted[ai_stack.wamid(person)] = time.time()
            group.create_task(ai_stack.post(client, ai_stack.body(person)))
            await asyncio.sleep(_EVERY_S)
    return posted


async def _watch(made: ai_stack.AiServers, wamids: set[str]) -> dict[str, float]:
    """Look until all are stored. Raises: TimeoutError."""
    seen: dict[str, float] = {}
    async with asyncio.timeout(len(wamids) * _EVERY_S + _WITHIN_S):
        while wamids - seen.keys():
            rows = await (await made.servers.admin.execute(_STORED.encode())).fetchall()
            now = time.time()
            for (wamid,) in rows:
                seen.setdefault(wamid, now)
            await asyncio.sleep(_LOOK_EVERY_S)
    return seen


def _figures(all_times: list[_Times]) -> list[Figure]:
    settle_ms = Clocks().settle_s * 1000
    ours = [times.ours_ms for times in all_times]
    waits = [ms - settle_ms for ms in ours]
    claude = [times.claude_ms for times in all_times]
    p50, settled = _at(ours, 50), f"less Claude's own time and the {settle_ms:.0f} ms a conversation settles"
    steps = {
        "record": [(times.recorded_at - times.posted_at) * 1000 for times in all_times],
        "claim": [(times.claimed_at - times.recorded_at) * 1000 - settle_ms for times in all_times],
        "store": [(times.stored_at - times.claimed_at) * 1000 - times.claude_ms for times in all_times],
    }
    return [
        Figure(
            "ai.latency_p50_ms", p50, "ms", settle_ms, "what a conversation settles, by choice", at_most=_MOST_P50_MS,
            note=f"{len(ours)} messages; Claude's own time (median {_at(claude, 50):.0f} ms) is taken off; looked for "
            f"every {_LOOK_EVERY_S * 1000:.0f} ms; {ai_stack.shared_machine()}",
        ),
        Figure("ai.latency_p99_ms", _at(ours, 99), "ms", p50, "the median", at_most=_MOST_P99_MS),
        Figure("ai.latency.settled_p50_ms", _at(waits, 50), "ms", at_most=_MOST_P50_MS, note=settled),
        Figure("ai.latency.settled_p99_ms", _at(waits, 99), "ms", _at(waits, 50), "the median", at_most=_MOST_P99_MS),
        *(
            Figure(
                f"ai.latency.{name}_ms", _at(ms, 50), "ms", _at(waits, 50), "the settled whole, both as medians",
                note=f"p99 {_at(ms, 99):.1f} ms",
            )
            for name, ms in steps.items()
        ),
    ]  # fmt: skip


def _at(times: list[float], percent: int) -> float:
    return sorted(times)[len(times) * percent // 100]
