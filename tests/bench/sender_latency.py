"""From POST /send to Meta's acceptance under light load, step by step; all clocks are this machine's.

Ten a second, each a reply to a person of its own. Steps, which add up: the POST until its 202; from there to the claim,
which is what the wake-up adds; from the claim to Meta's acceptance.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import httpx

from shared.store.webhooks import Webhooks
from tests.bench import sender_stack, stack
from tests.bench.figure import Figure
from tests.bench.progress import say
from tests.bench.size import sized
from tests.world import received, text_message, webhook

_SENDS = 300
_EVERY_S = 0.1
_WISHED_WAKE_UP_MS = 20
_NOBODY = "http://127.0.0.1:9/nobody-listens"
_PASSWORD = "bench bench"
_ROWS = """
select a.message_id::text, extract(epoch from a.started_at)::float8 from app.send_attempts a
"""


async def measure() -> list[Figure]:
    """Send evenly, then read off each message's times."""
    sends = sized(_SENDS, least=30)
    async with sender_stack.sender_servers(tier_mps=80) as made:
        workspace = made.channels[0][0]
        owner = await made.value("select user_id from public.workspace_members where workspace_id = %s", workspace)
        user = {"id": str(owner), "email": "maya@bench.example", "password": _PASSWORD, "name": "Maya"}
        async with sender_stack.sandbox(webhook_url=_NOBODY, throughput=80, users=[user], statuses=False) as (meta, _):
            conversations = await _customers(made, sends)
            port = meta.base_url.port or 0
            async with (
                sender_stack.dispatcher(made, graph_port=port) as running,
                sender_stack.web(made, sandbox_port=port) as web,
            ):
                await sender_stack.is_ready(running)
                answer = await meta.post(
                    "/auth/v1/token",
                    params={"grant_type": "password"},
                    json={"email": user["email"], "password": _PASSWORD},
                )
                web.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
                say(f"latency: {sends} sends, ten a second")
                posts = await _send(web, str(workspace), conversations)
                await made.until(
                    "select count(*) from app.outbox where kind = 'message' and state <> 'done'", 0, within_s=20
                )
            accepted = (await meta.get("/sandbox/accepted")).json()["accepted"]
        rows = await (await made.admin.execute(_ROWS.encode())).fetchall()
    return _figures(posts, {one["biz_opaque_callback_data"].partition(".")[0]: one["at"] for one in accepted}, rows)


async def _customers(made: sender_stack.SenderServers, count: int) -> list[str]:
    """Let people write, so that they may be replied to; return their conversations."""
    async with stack.recorder_store(made.servers.postgres) as store:
        for n in range(count):
            raw = webhook(text_message("Hello", wamid=f"wamid.{n}", user_id=f"US.{n}", wa_id=f"1202556{n:04}"))
            await Webhooks(store).record([received(raw)], settle_s=1)
    await made.admin.execute("vacuum analyze")
    found = await (await made.admin.execute("select id::text from public.whatsapp_conversations")).fetchall()
    return [row[0] for row in found]


async def _send(web: httpx.AsyncClient, workspace: str, conversations: list[str]) -> dict[str, tuple[float, float]]:
    """Send at fixed times; return by message when it was asked and when it was answered."""
    posts: dict[str, tuple[float, float]] = {}

    async def one(conversation: str) -> None:
        asked_at = time.time()
        answer = await web.post(
            "/api/whatsapp/send",
            params={"workspace_id": workspace},
            headers={"Idempotency-Key": str(uuid4())},
            json={"conversation_id": conversation, "content": {"type": "text", "body": "It is on its way."}},
        )
        if answer.status_code != 202:
            raise RuntimeError(f"not taken: {answer.status_code} {answer.text}")
        posts[answer.json()["id"]] = (asked_at, time.time())

    async with asyncio.TaskGroup() as group:
        for conversation in conversations:
            group.create_task(one(conversation))
            await asyncio.sleep(_EVERY_S)
    return posts


def _figures(posts: dict[str, tuple[float, float]], accepted: dict[str, float], rows: list[Any]) -> list[Figure]:
    whole = [(accepted[message] - asked_at) * 1000 for message, (asked_at, _) in posts.items()]
    steps = {
        "post": [(answered_at - asked_at) * 1000 for asked_at, answered_at in posts.values()],
        "wake_up": [(claimed_at - posts[message][1]) * 1000 for message, claimed_at in rows if message in posts],
        "call": [(accepted[message] - claimed_at) * 1000 for message, claimed_at in rows if message in posts],
    }
    p50, p99 = _at(whole, 50), _at(whole, 99)
    return [
        Figure("sender.latency_p99_ms", p99, "ms", note=f"median {p50:.1f} ms, of {len(whole)} sends"),
        *(
            Figure(
                f"sender.latency.{name}_ms", _at(times, 50), "ms", p50, "the whole, both as medians",
                at_most=_WISHED_WAKE_UP_MS if name == "wake_up" else None, note=f"p99 {_at(times, 99):.1f} ms",
            )
            for name, times in steps.items()
        ),
    ]  # fmt: skip


def _at(times: list[float], percent: int) -> float:
    return sorted(times)[len(times) * percent // 100]
