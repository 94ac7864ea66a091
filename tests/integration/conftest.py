"""What integration tests add to the servers: the sandbox as a real process, for those who ask Claude or Meta."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from deploy.local.ports import any_free_port
from shared.store.postgres import PostgresTransport
from tests.conftest import Database
from tests.contract.conftest import STORY, free_port, start_sandbox, until
from tests.integration.dispatching import Dispatching, dispatching, meta_sandbox
from tests.world import World

# Tokens of Meta's: the usual one, and each kind that the doctor must tell from it.
TOKENS = [
    {"token": "sandbox-token"},
    {"token": "reading-token", "scopes": ["business_management", "whatsapp_business_management"]},
    {"token": "foreign-token", "accounts": ["999999999999999"]},
    {"token": "ending-token", "expires_at": int(time.time()) + 86_400},
]


@dataclass(frozen=True)
class ClaudeSandbox:
    """The sandbox's Claude: its switches and its record of calls."""

    url: str
    http: httpx.Client

    def fault(self, mode: str = "none", **more: Any) -> None:
        """Switch a fault on, in place of the one before; without arguments: none, and no latency."""
        self.http.put("/sandbox/faults", json={"claude": {"mode": mode, **more}}).raise_for_status()

    def record(self) -> dict[str, Any]:
        return dict(self.http.get("/sandbox/claude/calls").raise_for_status().json())

    @property
    def calls(self) -> int:
        return int(self.record()["count"])

    @property
    def in_flight(self) -> int:
        return int(self.record()["in_flight"])

    @property
    def messages_per_call(self) -> list[int]:
        return [call["refs_seen"] for call in self.record()["calls"]]


@pytest.fixture(scope="session")
def claude_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClaudeSandbox]:
    """The sandbox, answering at once."""
    story = tmp_path_factory.mktemp("sandbox") / "story.json"
    story.write_text(json.dumps(STORY | {"meta": {"tokens": TOKENS}}), "utf-8")
    port = free_port()
    process, output = start_sandbox(
        {
            "SANDBOX_PORT": str(port),
            "SANDBOX_WEBHOOK_URL": "http://127.0.0.1:9/nobody-listens",
            "SANDBOX_APP_SECRET": "integration-app-secret",
            "SANDBOX_STORY": str(story),
            "SANDBOX_LATENCY_MS": "0",
        }
    )
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as http:

        def is_up() -> bool:
            assert process.poll() is None, "\n".join(output)
            try:
                return http.get("/live").status_code == 200
            except httpx.TransportError:
                return False

        until(is_up, within_s=20, what="the sandbox answers")
        yield ClaudeSandbox(url, http)
    process.terminate()
    process.wait(5)


@pytest.fixture
def claude(claude_process: ClaudeSandbox) -> Iterator[ClaudeSandbox]:
    """The sandbox's Claude without a fault, nothing counted yet; nothing of the test before under way."""
    claude_process.fault()
    until(lambda: claude_process.in_flight == 0, what="no call under way")
    claude_process.http.delete("/sandbox/claude/calls").raise_for_status()
    yield claude_process
    claude_process.fault()


@pytest.fixture(scope="session")
def webhook_port() -> int:
    """Where the sandbox's webhooks go; each test listens there itself."""
    return any_free_port()


@pytest.fixture(scope="session")
async def meta(tmp_path_factory: pytest.TempPathFactory, webhook_port: int) -> AsyncIterator[httpx.AsyncClient]:
    """The sandbox's Meta."""
    async with meta_sandbox(tmp_path_factory.mktemp("meta"), f"http://127.0.0.1:{webhook_port}/") as client:
        yield client


@pytest.fixture
async def d(
    admin: psycopg.AsyncConnection,
    world: World,
    database: Database,
    service_store: PostgresTransport,
    empty_redis: str,
    meta: httpx.AsyncClient,
    webhook_port: int,
    tmp_path: Path,
) -> AsyncIterator[Dispatching]:
    """Everything a dispatcher works with, for a test that starts some."""
    async with dispatching(
        admin=admin, world=world, database_url=database.url("test_service"), service_store=service_store,
        redis_url=empty_redis, meta=meta, webhook_port=webhook_port, folder=tmp_path,
    ) as made:  # fmt: skip
        yield made
