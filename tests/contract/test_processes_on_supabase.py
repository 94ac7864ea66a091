"""The processes themselves with SUPABASE_URL and a key each, and no database's address anywhere."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.ports import HOST, any_free_port
from tests.contract.conftest import ROOT, Sandbox
from tests.contract.lite import JWT_SECRET, PUBLISHABLE_KEY, SECRET_KEY, SupabaseLite
from tests.outbox_seed import give_token, new_keys
from tests.world import PHONE_A, World, build_world, text_message, webhook

APP_SECRET = "an app secret"
READY_WITHIN_S = 30.0
ANALYSED_WITHIN_S = 20.0
SENT_WITHIN_S = 10.0


@asynccontextmanager
async def running(*command: str, log: Path, **environment: str) -> AsyncIterator[int]:
    """`python -m …` until the block ends, ready; yields its internal port."""
    internal = any_free_port()
    given = {"PATH": os.environ["PATH"], "HTTP_INTERNAL_PORT": str(internal)} | environment
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *command, cwd=ROOT, env=given, stdout=output, stderr=output
        )
    try:
        async with httpx.AsyncClient(trust_env=False) as http:

            async def is_ready() -> bool:
                assert process.returncode is None, said(log)
                return (await http.get(f"http://{HOST}:{internal}/ready")).status_code == 200

            await until(is_ready, within_s=READY_WITHIN_S, log=log)
        yield internal
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 30)


async def until(condition: Callable[[], Awaitable[Any]], *, within_s: float, log: Path) -> Any:
    """Return the first true answer; fail with the log's end when time is up."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if found := await condition():
                return found
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, said(log)[-4000:]
        await asyncio.sleep(0.05)


def said(log: Path) -> str:
    return log.read_text()


@pytest.fixture
async def world(supabase: SupabaseLite) -> World:
    """Two workspaces, in the project."""
    return await build_world(supabase)  # type: ignore[arg-type]


async def test_a_message_comes_in_is_understood_is_read_and_answered(
    supabase: SupabaseLite, world: World, empty_redis: str, calm: Sandbox, tmp_path: Path
) -> None:
    redis = {"REDIS_URL": empty_redis}
    project = {"SUPABASE_URL": supabase.url}
    service = project | {"SUPABASE_SERVICE_ROLE_KEY": SECRET_KEY}
    ports = {name: any_free_port() for name in ("ingest", "api", "sender")}
    public = {
        name: {"HTTP_PORT": str(port), "HTTP_HOST": HOST, "HTTP_REQUIRE_HTTPS": "false"} for name, port in ports.items()
    }
    claude = {"ANTHROPIC_API_KEY": "any", "ANTHROPIC_BASE_URL": calm.url}
    meta = {"WHATSAPP_APP_SECRETS": APP_SECRET, "WHATSAPP_VERIFY_TOKEN": "any"}
    ingest = project | {
        "SUPABASE_ANON_KEY": PUBLISHABLE_KEY,
        "SUPABASE_INGEST_TOKEN": supabase.token(role="parley_ingest"),
    }
    api = project | {"SUPABASE_ANON_KEY": PUBLISHABLE_KEY, "SUPABASE_JWT_SECRET": JWT_SECRET}
    private_key, public_key = new_keys()
    await give_token(supabase, world.workspace_a, world.channel_a, public_key=public_key)  # type: ignore[arg-type]
    storage = {"STORAGE_DIR": str(tmp_path / "files"), "STORAGE_URL_SECRET": "signs addresses of files for minutes"}
    graph = {"WHATSAPP_GRAPH_URL": f"{calm.url}/graph/v26.0", "WHATSAPP_TOKEN_KEYS": private_key}
    raw = webhook(text_message("The pot arrived broken, I want my money back!", wamid="wamid.1"))
    signature = "sha256=" + hmac.new(APP_SECRET.encode(), raw, hashlib.sha256).hexdigest()
    token = supabase.person(world.owner_a).token

    processes = (
        (("services.ingest",), ingest | redis | meta | public["ingest"]),
        (("services.ingest", "recorder"), service | redis),
        (("services.ai_worker",), service | redis | claude),
        (("services.api",), api | public["api"]),
        (("services.sender",), api | redis | storage | public["sender"]),
        (("services.sender", "dispatcher"), service | redis | storage | graph),
    )

    async with AsyncExitStack() as stack:
        for command, environment in processes:
            log = tmp_path / f"{'-'.join(command)}.log"
            await stack.enter_async_context(running(*command, log=log, **environment))
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        accepted = await http.post(
            f"http://{HOST}:{ports['ingest']}/api/webhooks/whatsapp",
            content=raw,
            headers={"x-hub-signature-256": signature, "content-type": "application/json"},
        )

        async def analysed() -> dict[str, Any] | None:
            page = await http.get(
                f"http://{HOST}:{ports['api']}/api/whatsapp/conversations",
                params={"workspace_id": str(world.workspace_a)},
                headers={"authorization": f"Bearer {token}"},
            )
            assert page.status_code == 200, page.text
            found = [item for item in page.json()["items"] if item["sentiment"]]
            return dict(found[0]) if found else None

        conversation = await until(analysed, within_s=ANALYSED_WITHIN_S, log=tmp_path / "services.ai_worker.log")
        calm.http.post(
            "/sandbox/graph/windows",
            json={"phone_number_id": PHONE_A, "customer": {"wa_id": "12025550117", "user_id": "US.1001"}},
        ).raise_for_status()
        reply = await http.post(
            f"http://{HOST}:{ports['sender']}/api/whatsapp/send",
            params={"workspace_id": str(world.workspace_a)},
            headers={"authorization": f"Bearer {token}", "idempotency-key": "1"},
            json={"conversation_id": conversation["id"], "content": {"type": "text", "body": "You get it back."}},
        )
        assert reply.status_code == 202, reply.text

        async def sent() -> bool:
            page = await http.get(
                f"http://{HOST}:{ports['api']}/api/whatsapp/conversations/{conversation['id']}/messages",
                params={"workspace_id": str(world.workspace_a)},
                headers={"authorization": f"Bearer {token}"},
            )
            (message,) = [one for one in page.json()["items"] if one["id"] == reply.json()["id"]]
            assert message["status"] != "failed", message["error"]
            return bool(message["status"] == "sent")

        await until(sent, within_s=SENT_WITHIN_S, log=tmp_path / "services.sender-dispatcher.log")
        strangers = await http.get(
            f"http://{HOST}:{ports['api']}/api/whatsapp/conversations",
            params={"workspace_id": str(world.workspace_a)},
            headers={"authorization": f"Bearer {supabase.person(world.owner_b).token}"},
        )

    assert accepted.status_code == 200
    assert conversation["last_message"]["preview"].startswith("The pot arrived broken")
    assert conversation["sentiment"] == "negative"
    assert strangers.status_code == 404
    logs = [said(tmp_path / f"{'-'.join(command)}.log") for command, _ in processes]
    events = [json.loads(line) for log in logs for line in log.splitlines()]
    assert [event for event in events if event["level"] == "error"] == []
    assert all(secret not in "".join(logs) for secret in (SECRET_KEY, APP_SECRET, JWT_SECRET, private_key, str(token)))


async def test_without_redis_ingest_keeps_bodies_over_the_one_function_it_may_call(
    supabase: SupabaseLite, world: World, tmp_path: Path
) -> None:
    port = any_free_port()
    environment = {
        "SUPABASE_URL": supabase.url,
        "SUPABASE_ANON_KEY": PUBLISHABLE_KEY,
        "SUPABASE_INGEST_TOKEN": supabase.token(role="parley_ingest"),
        "REDIS_URL": f"redis://{HOST}:{any_free_port()}/0",
        "WHATSAPP_APP_SECRETS": APP_SECRET,
        "WHATSAPP_VERIFY_TOKEN": "any",
        "HTTP_PORT": str(port),
        "HTTP_REQUIRE_HTTPS": "false",
    }
    raw = webhook(text_message("Hello?", wamid="wamid.1"))
    signature = "sha256=" + hmac.new(APP_SECRET.encode(), raw, hashlib.sha256).hexdigest()

    async with running("services.ingest", log=tmp_path / "ingest.log", **environment):
        async with httpx.AsyncClient(trust_env=False) as http:
            accepted = await http.post(
                f"http://{HOST}:{port}/api/webhooks/whatsapp", content=raw, headers={"x-hub-signature-256": signature}
            )

    assert accepted.status_code == 200
    kept = await supabase.execute("select state, encode(raw, 'hex') from app.webhook_bodies")
    assert await kept.fetchall() == [("new", raw.hex())]
