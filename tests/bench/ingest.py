"""Webhooks accepted per second, each on disk before its 200; the limit is a server that does nothing with them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import redis.asyncio

from deploy.local.ports import any_free_port
from deploy.local.postgres import embedded_postgres
from deploy.local.redis import embedded_redis
from shared.queue.streams import STREAM
from shared.store.migrate import migrate
from tests.bench.figure import Figure
from tests.world import text_message, webhook

_REQUESTS = 12_000
_CONNECTIONS = 64
_SECRET = "bench"


async def measure() -> list[Figure]:
    """Drive ingest and a bare server with the same load, in turn, twice; keep the better run of each."""
    body = webhook(text_message("Where is my order? I have been waiting since Monday.", wamid="wamid.bench"))
    signature = hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest()
    header = f"x-hub-signature-256: sha256={signature}"
    port, bare_port = any_free_port(), any_free_port()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            embedded_postgres(Path(folder) / "pg", port=any_free_port()) as postgres,
            embedded_redis(Path(folder) / "redis", port=any_free_port()) as store,
        ):
            await asyncio.to_thread(migrate, postgres.url())
            with psycopg.connect(postgres.url(), autocommit=True) as admin:
                admin.execute("create role bench login noinherit password 'bench'")
                admin.execute("grant anon, parley_ingest to bench")
            environment = {
                "HTTP_PORT": str(port),
                "HTTP_INTERNAL_PORT": str(any_free_port()),
                "HTTP_REQUIRE_HTTPS": "false",
                "LOG_LEVEL": "warning",
                "DATABASE_URL": postgres.url("bench", "bench"),
                "REDIS_URL": store.url(),
                "WHATSAPP_APP_SECRETS": _SECRET,
                "WHATSAPP_VERIFY_TOKEN": "bench",
            }
            async with (
                _process("services.ingest", env=environment, port=port),
                _process("tests.bench.bare", str(bare_port), env={}, port=bare_port),
                redis.asyncio.Redis.from_url(store.url()) as client,
            ):
                ours, bare = [], []
                for _ in range(2):
                    bare.append(await _load(f"http://127.0.0.1:{bare_port}/", header, body))
                    ours.append(await _load(f"http://127.0.0.1:{port}/api/webhooks/whatsapp", header, body))
                appends = await client.xlen(STREAM)
    if any(run["statuses"] != {"200": _REQUESTS} for run in ours):
        raise RuntimeError(f"not every webhook got 200: {[run['statuses'] for run in ours]}")
    best, limit = max(ours, key=lambda r: r["per_s"]), max(bare, key=lambda r: r["per_s"])
    return [
        Figure("ingest.webhooks_per_s", best["per_s"], "1/s", limit["per_s"], "uvicorn answering 200, doing nothing"),
        Figure("ingest.p99_ms", best["p99_ms"], "ms", limit["p99_ms"], "uvicorn answering 200, doing nothing"),
        Figure("ingest.bodies_per_append", 2 * _REQUESTS / appends, "", _CONNECTIONS, "all that can wait at once"),
    ]


@contextlib.asynccontextmanager
async def _process(module: str, *arguments: str, env: dict[str, str], port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, env={"PATH": os.environ["PATH"], **env}
    )
    try:
        async with asyncio.timeout(20):
            while not await _listens(port):
                await asyncio.sleep(0.05)
        if env:
            await asyncio.sleep(3)  # ingest asks Redis about its fsync first; until then Postgres takes the bodies
        yield
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _load(url: str, header: str, body: bytes) -> dict[str, Any]:
    load = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.load", url, str(_REQUESTS), str(_CONNECTIONS), header,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await load.communicate(body)
    answer: dict[str, Any] = json.loads(output)
    return answer
