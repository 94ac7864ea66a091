"""A dispatcher between a test's database and the sandbox, and the sandbox's webhooks recorded by the real recorder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from deploy.local.ports import any_free_port
from services.ingest.record_batch import record_batch
from services.sender.dispatcher import run
from services.sender.settings import DispatcherSettings
from shared.queue.bell import OutboxBell
from shared.queue.connection import connect
from shared.queue.jobs import Jobs
from shared.store.postgres import PostgresTransport
from shared.store.webhooks import Webhooks
from shared.whatsapp.events import WebhookBody
from tests.contract.conftest import ROOT, start_sandbox
from tests.outbox_seed import give_token, new_keys, queue
from tests.world import PHONE_A, PHONE_B, WABA_A, WABA_B, World

STORY: dict[str, Any] = {
    "users": [],
    "customers": [],
    "channels": [
        {"waba_id": WABA_A, "phone_number_id": PHONE_A, "display_phone_number": "12025550143"},
        {"waba_id": WABA_B, "phone_number_id": PHONE_B, "display_phone_number": "442079460321"},
    ],
}
FAST = {"window": "off", "sent_ms": 30, "delivered_ms": 30, "reads": False, "batch_ms": 10, "jitter": 0}


class Statuses:
    """What the sandbox posts: kept until it is to be recorded."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._waiting: list[bytes] = []
        self._jobs: Jobs = None  # type: ignore[assignment]  statuses wake nobody
        self._recording = asyncio.Lock()
        self._connections: set[asyncio.StreamWriter] = set()
        self.is_late = False

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer 200 to every POST of a connection."""
        self._connections.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self._waiting.append(await reader.readexactly(length))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                if not self.is_late:
                    await self.record()  # after that the next: in the order they came
        writer.close()

    async def record(self) -> None:
        """Record what came, as the recorder does."""
        async with self._recording:
            waiting, self._waiting = self._waiting, []
            now = datetime.now(UTC)
            bodies = [WebhookBody(id=uuid4(), received_at=now, raw=raw, traceparent="") for raw in waiting]
            if bodies:
                await record_batch(bodies, webhooks=self._webhooks, jobs=self._jobs, settle_s=0)

    async def stop(self) -> None:
        """Take and record no more: the database is about to go, and the next test listens at this address."""
        self.is_late = True
        for writer in self._connections:
            writer.close()
        async with self._recording:
            self._waiting.clear()


@dataclass
class Dispatching:
    """Everything but the dispatcher itself, which each test starts, stops or kills."""

    admin: psycopg.AsyncConnection
    world: World
    settings: dict[str, str]
    public_key: str
    meta: httpx.AsyncClient
    statuses: Statuses
    redis_url: str
    logs: list[dict[str, Any]] = field(default_factory=list)

    async def behave(self, **changes: Any) -> None:
        (await self.meta.put("/sandbox/graph/behaviour", json=FAST | changes)).raise_for_status()

    async def fault(self, *faults: dict[str, Any], **others: Any) -> None:
        # Of messages, unless it says otherwise: a dispatcher also reads templates.
        graph = [{"for": {"path": "/messages"}} | one for one in faults]
        (await self.meta.put("/sandbox/faults", json={"graph": graph} | others)).raise_for_status()

    async def accepted(self) -> list[dict[str, Any]]:
        """What Meta has, oldest first."""
        return list((await self.meta.get("/sandbox/accepted")).json()["accepted"])

    async def calls(self) -> list[dict[str, Any]]:
        return list((await self.meta.get("/sandbox/graph/calls")).json()["calls"])

    async def rows(self, query: str, *args: object) -> list[Any]:
        return await (await self.admin.execute(query.encode(), args)).fetchall()

    async def queue_a(self, **how: Any) -> None:
        await queue(self.admin, self.world.workspace_a, self.world.channel_a, **how)

    async def queue_b(self, **how: Any) -> None:
        await queue(self.admin, self.world.workspace_b, self.world.channel_b, **how)

    async def states(self) -> dict[str, int]:
        """Count messages by state in the outbox."""
        return dict(await self.rows("select state, count(*)::int from app.outbox where kind = 'message' group by 1"))

    async def ring(self) -> None:
        async with connect(self.redis_url, timeout_s=1, max_connections=1) as client:
            await OutboxBell(client).ring()

    @contextlib.asynccontextmanager
    async def dispatcher(self, **changes: str) -> AsyncIterator[None]:
        """Run one in this process; on leaving, stop it as SIGTERM does."""
        stop = asyncio.Event()
        task = asyncio.create_task(run(self.configured(**changes), stop=stop))
        try:
            yield
        finally:
            stop.set()
            await task

    def configured(self, **changes: str) -> DispatcherSettings:
        values = self.environment(**changes)
        return DispatcherSettings.model_validate(
            {
                "database": {"url": values["DATABASE_URL"]},
                "redis": {"url": values["REDIS_URL"]},
                "whatsapp": {"graph_url": values["WHATSAPP_GRAPH_URL"], "token_keys": values["WHATSAPP_TOKEN_KEYS"]},
                "media": {"hosts": values["MEDIA_HOSTS"]},
                "http": {"internal_port": values["HTTP_INTERNAL_PORT"]},
                "doubt_grace_s": values["DOUBT_GRACE_S"],
                "slots": values.get("SLOTS", "128"),
                "storage": {"dir": values["STORAGE_DIR"]},
            }
        )

    def environment(self, **changes: str) -> dict[str, str]:
        return self.settings | {"HTTP_INTERNAL_PORT": str(any_free_port())} | changes

    async def start_process(self, **changes: str) -> asyncio.subprocess.Process:
        """Start a real one, to be killed."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.sender", "dispatcher",
            cwd=ROOT, env=dict(os.environ) | self.environment(**changes), stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip


async def until(condition: Callable[[], Awaitable[Any]], *, within_s: float = 10, what: str = "") -> Any:
    """Ask until the answer is true; return it."""
    ends_at = time.monotonic() + within_s
    while not (answer := await condition()):
        if time.monotonic() > ends_at:
            pytest.fail(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(0.02)
    return answer


@contextlib.asynccontextmanager
async def meta_sandbox(folder: Path, webhook_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """The sandbox as a process, posting to `webhook_url`."""
    story, port = folder / "story.json", any_free_port()
    story.write_text(json.dumps(STORY), "utf-8")
    process, output = start_sandbox(
        {
            "SANDBOX_PORT": str(port),
            "SANDBOX_WEBHOOK_URL": webhook_url,
            "SANDBOX_APP_SECRET": "integration-app-secret",
            "SANDBOX_STORY": str(story),
        }
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:

        async def is_up() -> bool:
            assert process.poll() is None, "\n".join(output)
            with contextlib.suppress(httpx.TransportError):
                return (await client.get("/live")).status_code == 200
            return False

        await until(is_up, within_s=20, what="the sandbox answers")
        yield client
    process.terminate()
    process.wait(5)


@contextlib.asynccontextmanager
async def dispatching(
    *,
    admin: psycopg.AsyncConnection,
    world: World,
    database_url: str,
    service_store: PostgresTransport,
    redis_url: str,
    meta: httpx.AsyncClient,
    webhook_port: int,
    folder: Path,
) -> AsyncIterator[Dispatching]:
    """Tokens for both numbers, a sandbox that begins anew, and its webhooks taken in."""
    private, public = new_keys()
    for workspace, channel in ((world.workspace_a, world.channel_a), (world.workspace_b, world.channel_b)):
        await give_token(admin, workspace, channel, public_key=public)
    statuses = Statuses(Webhooks(service_store))
    settings = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "WHATSAPP_GRAPH_URL": f"{str(meta.base_url).rstrip('/')}/graph/v26.0",
        "WHATSAPP_TOKEN_KEYS": private,
        "MEDIA_HOSTS": "127.0.0.1",
        "DOUBT_GRACE_S": "0.5",
        "LOG_LEVEL": "warning",
        "STORAGE_DIR": str(folder),
    }
    found = Dispatching(admin, world, settings, public, meta, statuses, redis_url)
    async with await asyncio.start_server(statuses.take, "127.0.0.1", webhook_port):
        (await meta.post("/sandbox/graph/reset")).raise_for_status()
        await found.fault()
        await found.behave()
        yield found
        await statuses.stop()
        await found.fault()
