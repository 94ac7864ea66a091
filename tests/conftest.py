"""Real servers for tests: an embedded PostgreSQL and Redis, started once a run, each test in a place of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis.asyncio

from deploy.local.ports import any_free_port
from deploy.local.postgres import Postgres, embedded_postgres
from deploy.local.redis import embedded_redis
from deploy.local.seed import LOGINS
from shared.store.migrate import migrate
from shared.store.postgres import PostgresTransport, postgres_transport
from tests.world import World, build_world

FIXTURES = Path(__file__).parent / "fixtures"


def pytest_configure() -> None:
    """Forget settings of the machine: tests meet only the servers they start themselves."""
    prefixes = ("DATABASE_", "REDIS_", "CACHE_", "SUPABASE_", "ANTHROPIC_", "WHATSAPP_", "HTTP_", "SANDBOX_", "PG")
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        del os.environ[name]


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Captured webhook bodies and signature vectors."""
    return FIXTURES


@pytest.fixture(scope="session")
async def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    """An embedded PostgreSQL 18 with a migrated template database."""
    with _fastest_folder(tmp_path_factory) as folder:
        async with embedded_postgres(folder, port=any_free_port(), durable=False) as server:
            await asyncio.to_thread(_make_template, server)
            yield server


@contextmanager
def _fastest_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In memory where there is room: a test's database is a thousand files (30 ms there, 165 on a disk, 2026-11-24)."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * 1024**3:
        with tempfile.TemporaryDirectory(dir=memory, prefix="parley-tests-") as folder:
            Path(folder).chmod(0o755)  # PostgreSQL runs as an account of its own where we are root
            yield Path(folder)
    else:
        yield tmp_path_factory.mktemp("pg")


def _make_template(server: Postgres) -> None:
    admin = server.url()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("create database template_parley")
    migrate(server.url(database="template_parley"))
    with psycopg.connect(admin, autocommit=True) as connection:
        # What each kind of process may become: the same grants as the local stack's, under names of the tests'.
        for login, roles in LOGINS.items():
            name = login.replace("parley_", "test_").removesuffix("_login")
            connection.execute(f"create role {name} login noinherit password 'test'")
            connection.execute(f"grant {', '.join(roles)} to {name}")


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database of one test's own."""

    server: Postgres
    name: str

    def url(self, login: str | None = None) -> str:
        """Connection string: as superuser, or as test_ingest, test_service or test_api."""
        if login is None:
            return self.server.url(database=self.name)
        return self.server.url(login, "test", database=self.name)


@pytest.fixture
async def database(postgres_server: Postgres) -> AsyncIterator[Database]:
    """An empty migrated database."""
    name = f"test_{secrets.token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(postgres_server.url(), autocommit=True) as admin:
        await admin.execute(f"create database {name} template template_parley strategy file_copy")
        yield Database(postgres_server, name)
        await admin.execute(f"drop database {name} with (force)")


@pytest.fixture
async def admin(database: Database) -> AsyncIterator[psycopg.AsyncConnection]:
    """A superuser's connection, for arranging and asserting; autocommit."""
    async with await psycopg.AsyncConnection.connect(database.url(), autocommit=True) as connection:
        yield connection


@pytest.fixture
async def world(admin: psycopg.AsyncConnection) -> World:
    """Two workspaces with members and channels."""
    return await build_world(admin)


@pytest.fixture
async def service_store(database: Database) -> AsyncIterator[PostgresTransport]:
    """The store as recorder and ai_worker have it."""
    async with postgres_transport(
        database.url("test_service"), service_role="service_role", max_connections=8
    ) as store:
        yield store


@pytest.fixture
async def ingest_store(database: Database) -> AsyncIterator[PostgresTransport]:
    """The store as ingest has it."""
    async with postgres_transport(
        database.url("test_ingest"), service_role="parley_ingest", max_connections=2
    ) as store:
        yield store


@pytest.fixture
async def api_store(database: Database) -> AsyncIterator[PostgresTransport]:
    """The store as api has it: only ever as a signed-in person."""
    async with postgres_transport(database.url("test_api"), service_role=None, max_connections=4) as store:
        yield store


@pytest.fixture(scope="session")
async def redis_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """An embedded Redis, durable as production's."""
    async with embedded_redis(tmp_path_factory.mktemp("redis"), port=any_free_port()) as server:
        yield server.url()


@pytest.fixture
async def empty_redis(redis_url: str) -> str:
    """The Redis, emptied."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushall()
    return redis_url
