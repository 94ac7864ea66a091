"""The real processes on servers of their own, on loopback and disk: PostgreSQL, Redis, ingest, recorders.

Settings reach the processes through their environment, as in production; logging is off below `warning`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psycopg
from redis.asyncio import Redis as RedisClient

from deploy.local.places import ROOT
from deploy.local.ports import any_free_port
from deploy.local.postgres import Postgres, embedded_postgres
from deploy.local.redis import Redis, embedded_redis
from deploy.local.supervisor import Supervisor
from shared.store.migrate import migrate
from shared.store.postgres import PostgresTransport, postgres_transport
from shared.store.webhooks import Webhooks
from tests.bench import bodies, disk, metrics_page
from tests.world import build_world, received

_START_S = 60.0
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Servers:
    """PostgreSQL with the migrations and two workspaces, and Redis; both empty otherwise."""

    postgres: Postgres
    redis: Redis
    redis_client: RedisClient
    admin: psycopg.AsyncConnection  # superuser, autocommit
    pids: dict[str, int]
    disk: str


@dataclass(frozen=True, slots=True)
class Running:
    """One of our processes."""

    pid: int
    internal_port: int
    port: int = 0
    process: asyncio.subprocess.Process | None = None


@contextlib.asynccontextmanager
async def fresh_servers(name: str = "servers") -> AsyncIterator[Servers]:
    """Start both servers, migrate, make the bench world and the two logins."""
    with disk.folder_on_disk() as folder:
        supervisor = Supervisor()
        async with (
            embedded_postgres(folder / name, supervisor=supervisor) as postgres,
            embedded_redis(folder / name, supervisor=supervisor) as store,
            RedisClient.from_url(store.url()) as client,
        ):
            await prepare_database(postgres)
            async with await psycopg.AsyncConnection.connect(postgres.url(), autocommit=True) as admin:
                await build_world(admin)
                pids = {key.split("-")[0]: pid for key, pid in supervisor.pids().items()}
                yield Servers(postgres, store, client, admin, pids, disk.said(postgres.data, store.config.parent))


async def prepare_database(postgres: Postgres) -> None:
    """Apply the migrations and make one login each for ingest and recorder, with what theirs may."""
    await asyncio.to_thread(migrate, postgres.url())
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        for login, role in (("bench_ingest", "parley_ingest"), ("bench_recorder", "service_role")):
            admin.execute(f"create role {login} login noinherit password 'bench'")
            admin.execute(f"grant anon, {role} to {login}")


@contextlib.asynccontextmanager
async def recorder_store(postgres: Postgres, database: str = "parley") -> AsyncIterator[PostgresTransport]:
    """Connect as the recorder does."""
    url = postgres.url("bench_recorder", "bench", database=database)
    async with postgres_transport(url, service_role="service_role", max_connections=2) as store:
        yield store


async def get_acquainted(postgres: Postgres, admin: psycopg.AsyncConnection, *, stride: int = 1) -> None:
    """Make the customers known, then gather statistics: the state a database is in after its first minute."""
    async with recorder_store(postgres, admin.info.dbname) as store:
        webhooks = Webhooks(store)
        for start in range(0, 2 * bodies.PEOPLE, _BATCH):
            batch = [received(bodies.text(start + n, stride=stride)) for n in range(_BATCH)]
            await webhooks.record(batch, settle_s=1)
    await admin.execute("analyze")


@contextlib.asynccontextmanager
async def ingest(servers: Servers) -> AsyncIterator[Running]:
    """Run the webhook endpoint; it has seen that Redis syncs to disk before the block begins."""
    port, internal_port = any_free_port(), any_free_port()
    environment = {
        "HTTP_PORT": str(port),
        "HTTP_INTERNAL_PORT": str(internal_port),
        "HTTP_REQUIRE_HTTPS": "false",
        "DATABASE_URL": servers.postgres.url("bench_ingest", "bench"),
        "REDIS_URL": servers.redis.url(),
        "WHATSAPP_APP_SECRETS": bodies.SECRET,
        "WHATSAPP_VERIFY_TOKEN": "bench",
    }
    async with python("services.ingest", env=environment) as process:
        await _until_ready(process, internal_port)
        async with asyncio.timeout(_START_S):
            while (await metrics_page.sums(internal_port))["redis_is_durable"] != 1:
                await asyncio.sleep(0.05)
        yield Running(process.pid, internal_port, port, process)


@contextlib.asynccontextmanager
async def recorder(servers: Servers) -> AsyncIterator[Running]:
    """Run one recorder."""
    internal_port = any_free_port()
    environment = {
        "HTTP_INTERNAL_PORT": str(internal_port),
        "DATABASE_URL": servers.postgres.url("bench_recorder", "bench"),
        "REDIS_URL": servers.redis.url(),
    }
    async with python("services.ingest", "recorder", env=environment) as process:
        await _until_ready(process, internal_port)
        yield Running(process.pid, internal_port, process=process)


@contextlib.asynccontextmanager
async def python(module: str, *arguments: str, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a module of ours with these settings and nothing else; kill it, and only it, at the end."""
    environment = {"PATH": os.environ["PATH"], "LOG_LEVEL": "warning", **env}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, env=environment, cwd=ROOT,
        stdout=sys.stderr,  # ours is for figures: `--json`
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _until_ready(process: asyncio.subprocess.Process, internal_port: int) -> None:
    async with asyncio.timeout(_START_S):
        while not await metrics_page.is_ready(internal_port):
            if process.returncode is not None:
                raise RuntimeError(f"a process ended with {process.returncode} before it was ready")
            await asyncio.sleep(0.05)


def cores() -> int:
    """Return how many processors we may use."""
    return len(os.sched_getaffinity(0))


async def listens(port: int) -> bool:
    """Tell whether a process listens on a port of loopback."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
