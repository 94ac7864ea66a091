"""Dispatchers on servers of their own, with numbers that may send and messages that are queued."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from deploy.local.places import ROOT
from deploy.local.ports import any_free_port
from tests.bench import bodies, metrics_page, stack
from tests.outbox_seed import give_token, new_keys, queue
from tests.world import PHONE_A, PHONE_B, WABA_A, WABA_B

_NUMBERS = ((PHONE_A, WABA_A, "12025550143"), (PHONE_B, WABA_B, "442079460321"))


@dataclass(frozen=True, slots=True)
class SenderServers:
    """Servers, and the key that opens the numbers' tokens."""

    servers: stack.Servers
    private_key: str
    channels: list[tuple[Any, Any]]  # workspace, channel: of PHONE_A, of PHONE_B

    @property
    def admin(self) -> psycopg.AsyncConnection:
        return self.servers.admin

    async def queue(self, messages: int, *, numbers: int = 2, first: int = 12_030_000_000) -> None:
        """Queue so many messages, each to a person of its own, evenly over the numbers."""
        for place, (workspace, channel) in enumerate(self.channels[:numbers]):
            each = messages // numbers
            await queue(self.admin, workspace, channel, conversations=each, first=first + place * each)
        await self.admin.execute("vacuum analyze")

    async def value(self, query: str, *args: object) -> Any:
        """Return the only value of a query."""
        row = await (await self.admin.execute(query.encode(), args)).fetchone()
        return row[0] if row else None

    async def until(self, query: str, wanted: object, *, within_s: float, every_s: float = 0.1) -> None:
        """Wait until a query gives that value. Raises: TimeoutError."""
        async with asyncio.timeout(within_s):
            while await self.value(query) != wanted:
                await asyncio.sleep(every_s)


@contextlib.asynccontextmanager
async def sender_servers(*, tier_mps: int) -> AsyncIterator[SenderServers]:
    """Start them; both numbers have a token and this tier."""
    private, public = new_keys()
    async with stack.fresh_servers() as servers:
        await servers.admin.execute("update public.whatsapp_channels set tier_mps = %s", (tier_mps,))
        channels = []
        for number, _, _ in _NUMBERS:
            cursor = await servers.admin.execute(
                "select workspace_id, id from public.whatsapp_channels where phone_number_id = %s", (number,)
            )
            row = await cursor.fetchone()
            assert row is not None
            channels.append((row[0], row[1]))
            await give_token(servers.admin, row[0], row[1], public_key=public)
        yield SenderServers(servers, private, channels)


@contextlib.asynccontextmanager
async def dispatcher(
    made: SenderServers, *, graph_port: int, path: str = "/graph/v26.0"
) -> AsyncIterator[stack.Running]:
    """Run one; it sends as soon as it is there."""
    internal_port = any_free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "HTTP_INTERNAL_PORT": str(internal_port),
            "DATABASE_URL": made.servers.postgres.url("bench_recorder", "bench"),
            "REDIS_URL": made.servers.redis.url(),
            "WHATSAPP_GRAPH_URL": f"http://127.0.0.1:{graph_port}{path}",
            "WHATSAPP_TOKEN_KEYS": made.private_key,
            "STORAGE_DIR": folder,
        }
        async with stack.python("services.sender", "dispatcher", env=environment) as process:
            yield stack.Running(process.pid, internal_port, process=process)


@contextlib.asynccontextmanager
async def web(made: SenderServers, *, sandbox_port: int) -> AsyncIterator[httpx.AsyncClient]:
    """Run the sender's HTTP side; the sandbox signs people in."""
    port, internal_port = any_free_port(), any_free_port()
    await made.admin.execute("create role bench_sender login noinherit password 'bench'")
    await made.admin.execute("grant anon, authenticated to bench_sender")
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "HTTP_PORT": str(port),
            "HTTP_INTERNAL_PORT": str(internal_port),
            "HTTP_REQUIRE_HTTPS": "false",
            "DATABASE_URL": made.servers.postgres.url("bench_sender", "bench"),
            "REDIS_URL": made.servers.redis.url(),
            "SUPABASE_URL": f"http://127.0.0.1:{sandbox_port}",
            "STORAGE_DIR": folder,
            "STORAGE_URL_SECRET": "bench" * 8,
            "STORAGE_PUBLIC_URL": f"http://127.0.0.1:{port}",
        }
        async with stack.python("services.sender", env=environment) as process:
            await is_ready(stack.Running(process.pid, internal_port, process=process))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
                yield client


async def is_ready(running: stack.Running) -> None:
    """Wait until a process says so."""
    async with asyncio.timeout(60):
        while not await metrics_page.is_ready(running.internal_port):
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def sandbox(
    *, webhook_url: str, throughput: int, users: Sequence[dict[str, str]] = (), **behaviour: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
    """Run Meta's stand-in; yields its client and its pid."""
    channels = [
        {"waba_id": waba, "phone_number_id": number, "display_phone_number": shown, "throughput": throughput}
        for number, waba, shown in _NUMBERS
    ]
    port = any_free_port()
    with tempfile.TemporaryDirectory() as folder:
        story = Path(folder) / "story.json"
        story.write_text(json.dumps({"users": list(users), "customers": [], "channels": channels}))
        environment = {
            "SANDBOX_PORT": str(port),
            "SANDBOX_WEBHOOK_URL": webhook_url,
            "SANDBOX_APP_SECRET": bodies.SECRET,
            "SANDBOX_STORY": str(story),
            "PATH": os.environ["PATH"],
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "deploy.sandbox", env=environment, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
                async with asyncio.timeout(30):
                    while not await stack.listens(port):
                        await asyncio.sleep(0.05)
                answer = await client.put("/sandbox/graph/behaviour", json={"window": "off"} | behaviour)
                answer.raise_for_status()
                yield client, process.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
