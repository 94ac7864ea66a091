"""Processes start in any order and stop when told: before their servers, without them, and with a request in flight."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deploy.local.ports import any_free_port
from deploy.local.postgres import embedded_postgres
from deploy.local.redis import embedded_redis, prepare_redis
from deploy.local.seed import LOGINS, create_logins
from services.sender.seal import new_key_pair
from shared.settings.clocks import Clocks
from shared.store.migrate import migrate
from tests.world import webhook

ROOT = Path(__file__).parents[2]
NAMES = ("ingest", "recorder", "ai_worker", "api", "sender", "dispatcher")
COMMANDS = {"recorder": ("services.ingest", "recorder"), "dispatcher": ("services.sender", "dispatcher")}
LOGINS_OF = {"ingest": "parley_ingest_login", "api": "parley_api_login", "sender": "parley_sender_login"}
SECRET = "start-stop-app-secret"
PASSWORD = "start-stop"
PATIENCE_S = 20.0  # the pool's longest pause between two tries is 10 s
WAITING_S = 8.0


@dataclass(frozen=True)
class Process:
    """One of ours, as the operating system sees it."""

    name: str
    popen: subprocess.Popen[bytes]
    internal_port: int
    port: int
    log: Path

    def answer(self, path: str) -> int | None:
        """Status of an internal path; None when nobody listens."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.internal_port}{path}", timeout=5, trust_env=False).status_code
        except httpx.TransportError:
            return None

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def events(self) -> list[str]:
        return [str(line["event"]) for line in self.lines()]

    def terminate(self, *, within_s: float) -> float:
        """SIGTERM; return the seconds until it ended with status 0."""
        began = time.monotonic()
        self.popen.send_signal(signal.SIGTERM)
        assert self.popen.wait(within_s) == 0, self.log.read_text()[-2000:]
        return time.monotonic() - began


@dataclass
class Servers:
    """Where PostgreSQL and Redis will be, once they run."""

    folder: Path
    postgres_port: int
    redis_port: int

    def database_url(self, login: str) -> str:
        return f"postgresql://{login}:{PASSWORD}@127.0.0.1:{self.postgres_port}/parley"

    @property
    def redis_url(self) -> str:
        return prepare_redis(self.folder / "redis-home", port=self.redis_port).url()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start both at last, with everything in place."""
        async with (
            embedded_redis(self.folder / "redis-home", port=self.redis_port),
            embedded_postgres(self.folder / "pg", port=self.postgres_port) as postgres,
        ):
            await asyncio.to_thread(migrate, postgres.url())
            await asyncio.to_thread(create_logins, postgres.url(), dict.fromkeys(LOGINS, PASSWORD))
            yield


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path, any_free_port(), any_free_port())


@contextmanager
def started(servers: Servers, *names: str) -> Iterator[list[Process]]:
    """Start processes; whatever is left of them at the end is killed."""
    processes = [_start(name, servers) for name in names]
    try:
        yield processes
    finally:
        for process in processes:
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait(10)


def _start(name: str, servers: Servers) -> Process:
    port, internal_port = any_free_port(), any_free_port()
    login = LOGINS_OF.get(name, "parley_service_login")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONUNBUFFERED": "1",
        "DATABASE_URL": servers.database_url(login),
        "REDIS_URL": servers.redis_url,
        "HTTP_INTERNAL_PORT": str(internal_port),
        "HTTP_PORT": str(port),
        "HTTP_REQUIRE_HTTPS": "false",
        "WHATSAPP_APP_SECRETS": SECRET,
        "WHATSAPP_VERIFY_TOKEN": "verify",
        "ANTHROPIC_API_KEY": "none",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        "SUPABASE_URL": "http://127.0.0.1:9",
        "STORAGE_DIR": str(servers.folder),
        "STORAGE_URL_SECRET": "signs addresses of files for minutes",
        "WHATSAPP_GRAPH_URL": "http://127.0.0.1:9",
        "WHATSAPP_TOKEN_KEYS": new_key_pair().private_key,
    }
    command = COMMANDS.get(name, (f"services.{name}",))
    log = servers.folder / f"{name}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    return Process(name, popen, internal_port, port, log)


async def until_answers(process: Process, path: str, status: int, *, within_s: float) -> float:
    """Wait for a status; return the seconds it took."""
    began = time.monotonic()
    while (found := await asyncio.to_thread(process.answer, path)) != status:
        assert process.popen.poll() is None, f"{process.name} ended: {process.log.read_text()[-2000:]}"
        assert time.monotonic() - began < within_s, f"{process.name} {path}: {found}, not {status}"
        await asyncio.sleep(0.1)
    return time.monotonic() - began


@dataclass(frozen=True)
class Waited:
    """What a process did while there was neither PostgreSQL nor Redis, and when told to stop then."""

    live: int | None
    ready: int | None
    lines: list[dict[str, object]]
    stopped_after_s: float


@pytest.fixture(scope="module")
async def waited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Waited]:
    """All of them, waiting side by side."""
    servers = Servers(tmp_path_factory.mktemp("waiting"), any_free_port(), any_free_port())
    with started(servers, *NAMES) as processes:
        for process in processes:
            await until_answers(process, "/live", 200, within_s=20)
        await asyncio.sleep(WAITING_S)
        assert not [process.name for process in processes if process.popen.poll() is not None], "did not wait"
        told = {one.name: (one.answer("/live"), one.answer("/ready"), one.lines()) for one in processes}
        return dict(zip(told, (Waited(*told[one.name], took) for one, took in await stopped(processes)), strict=True))


async def stopped(processes: list[Process]) -> list[tuple[Process, float]]:
    """Tell all to stop, at once."""
    took = await asyncio.gather(
        *(asyncio.to_thread(process.terminate, within_s=Clocks().orchestrator_s) for process in processes)
    )
    return list(zip(processes, took, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_process_without_servers_waits_unready_and_says_so(waited: dict[str, Waited], name: str) -> None:
    found = waited[name]

    assert (found.live, found.ready) == (200, 503)
    assert [line for line in found.lines if line["level"] == "warning"], "it waits without a word"
    assert not [line for line in found.lines if line["level"] in ("error", "critical")], "waiting is no error"
    assert PASSWORD not in json.dumps(found.lines)


@pytest.mark.parametrize("name", NAMES)
def test_waiting_is_said_once_not_in_a_flood(waited: dict[str, Waited], name: str) -> None:
    said = [(line["event"], line.get("step")) for line in waited[name].lines if line["level"] == "warning"]

    assert said
    assert len(said) == len(set(said)), said


@pytest.mark.parametrize("name", NAMES)
def test_a_process_that_waits_stops_when_told(waited: dict[str, Waited], name: str) -> None:
    clocks = Clocks()

    assert waited[name].stopped_after_s < clocks.unready_s + clocks.flush_s + 8, "there was nothing to drain"


async def test_processes_become_ready_once_their_servers_are_there_and_again(servers: Servers) -> None:
    with started(servers, *NAMES) as processes:
        for process in processes:
            await until_answers(process, "/ready", 503, within_s=20)
        async with servers.running():
            for process in processes:
                await until_answers(process, "/ready", 200, within_s=PATIENCE_S)
        for process in processes:
            await until_answers(process, "/ready", 503, within_s=10)
        async with servers.running():
            for process in processes:
                await until_answers(process, "/ready", 200, within_s=PATIENCE_S)
            for process, took in await stopped(processes):
                assert took < Clocks().orchestrator_s, process.name
                assert "process.stopping" in process.events()


@pytest.mark.parametrize("name", NAMES)
async def test_a_process_told_to_stop_while_it_starts_does(servers: Servers, name: str) -> None:
    with started(servers, name) as (process,):
        await asyncio.sleep(0.3)
        process.popen.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(process.popen.wait, Clocks().orchestrator_s)

    assert status in (0, -signal.SIGTERM), "before it listens for the signal, the default ends it"


async def test_sigterm_finishes_a_webhook_in_flight_and_waits_for_no_one_for_ever(servers: Servers) -> None:
    clocks = Clocks()
    body = webhook()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    head = (
        "POST /api/webhooks/whatsapp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"X-Hub-Signature-256: sha256={signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with servers.running():
        with started(servers, "ingest") as (process,):
            await until_answers(process, "/ready", 200, within_s=PATIENCE_S)
            reader, slow = await asyncio.open_connection("127.0.0.1", process.port)
            _, endless = await asyncio.open_connection("127.0.0.1", process.port)
            for writer in (slow, endless):
                writer.write(head.encode() + body[:20])
                await writer.drain()
            await asyncio.sleep(0.3)

            began = time.monotonic()
            process.popen.send_signal(signal.SIGTERM)
            await until_answers(process, "/ready", 503, within_s=1)
            await asyncio.sleep(clocks.unready_s + 1)  # it accepts nothing new by now, and drains
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", process.port)
            slow.write(body[20:])
            answered = await asyncio.wait_for(reader.read(), 10)

            assert answered.startswith(b"HTTP/1.1 200"), answered[:100]
            assert await asyncio.to_thread(process.popen.wait, clocks.orchestrator_s) == 0
            assert time.monotonic() - began < clocks.orchestrator_s
            slow.close()
            endless.close()
