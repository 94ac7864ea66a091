"""Messages a minute of one number at a tier of 80 through two dispatchers, and what Meta refused as too fast.

Meta's stand-in counts in a bucket of one second's worth, and refuses what is above it (deploy/sandbox/graph/limits.py).
"""

from __future__ import annotations

import asyncio

from tests.bench import sender_stack
from tests.bench.figure import Figure
from tests.bench.progress import say
from tests.bench.size import sized

_TIER = 80
_SECONDS = 60
_NOBODY = "http://127.0.0.1:9/nobody-listens"
_REFUSED = "select count(*) from app.send_attempts where meta_code is not null or outcome <> 'accepted'"


async def measure() -> list[Figure]:
    """Send for a minute with more than enough queued."""
    seconds = sized(_SECONDS, least=5)
    async with (
        sender_stack.sender_servers(tier_mps=_TIER) as made,
        sender_stack.sandbox(webhook_url=_NOBODY, throughput=_TIER, statuses=False) as (meta, _),
    ):
        say(f"pacing: queueing for {seconds} s")
        await made.queue(_TIER * (seconds + 10), numbers=1)
        port = meta.base_url.port or 0
        async with (
            sender_stack.dispatcher(made, graph_port=port) as one,
            sender_stack.dispatcher(made, graph_port=port) as other,
        ):
            await sender_stack.is_ready(one)
            await sender_stack.is_ready(other)
            await made.until("select count(*) > 100 from app.send_attempts", True, within_s=30)
            say(f"pacing: two dispatchers for {seconds} s")
            before = (await meta.get("/sandbox/accepted")).json()["accepted"]
            await asyncio.sleep(seconds + 1)
        since = before[-1]
        accepted = (await meta.get("/sandbox/accepted", params={"after": since["ordinal"]})).json()["accepted"]
        refused = await made.value(_REFUSED)
    within = [one for one in accepted if one["at"] <= since["at"] + seconds]
    return [
        Figure(
            "sender.pacing_per_s", len(within) / seconds, "1/s", _TIER, "the number's tier",
            at_least=78, at_most=80, note=f"{len(within):,} messages in {seconds} s after the first hundred",
        ),
        Figure("sender.pacing.refused", float(refused), "messages", at_most=0),
    ]  # fmt: skip
