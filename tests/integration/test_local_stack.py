"""The local stack's promises, on real servers and real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
import redis.asyncio

from deploy.local.places import ROOT
from deploy.local.ports import HOST, is_free
from deploy.local.postgres import Major, embedded_postgres
from deploy.local.redis import embedded_redis
from deploy.local.stack import started_stack
from deploy.local.state import StackError, StateDir
from deploy.local.story import WORKSPACES
from deploy.local.supervisor import Backoff, Event, Happening, ProcessSpec, Supervisor

T = TypeVar("T")
ENVIRONMENT = {"PATH": os.environ["PATH"]}


async def until(found: Callable[[], T], timeout_s: float = 15.0) -> T:
    """Return the first true answer."""
    async with asyncio.timeout(timeout_s):
        while True:
            if answer := found():
                return answer
            await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def python(name: str, program: str, **changes: Any) -> ProcessSpec:
    return ProcessSpec(name, (sys.executable, "-u", "-c", textwrap.dedent(program)), ENVIRONMENT, **changes)


def answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            return connection.execute("select 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


# --- the embedded servers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("major", [16, 18])
async def test_postgres_speaks_utf8_and_comes_back_after_kill_9(tmp_path: Path, major: Major) -> None:
    async with embedded_postgres(tmp_path, major=major) as postgres:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            found = connection.execute(
                "select current_setting('server_version_num')::int / 10000, current_setting('server_encoding'),"
                " lower('ÉÖ'), current_setting('fsync'), current_setting('listen_addresses')"
            ).fetchone()
            connection.execute("create table kept as select 42 as answer")
        postmaster = int((postgres.data / "postmaster.pid").read_text().split()[0])

        os.kill(postmaster, signal.SIGKILL)
        await until(lambda: answers(postgres.url()))

        with psycopg.connect(postgres.url()) as connection:
            answer = connection.execute("select answer from kept").fetchone()
    assert found == (major, "UTF8", "éö", "on", HOST)
    assert answer == (42,)
    assert not postgres.data.exists()


async def test_postgres_lets_nobody_in_without_the_password(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path) as postgres:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(postgres.url("postgres", "wrong"))
        assert (tmp_path / "postgres.secret").stat().st_mode & 0o777 == 0o600


async def test_postgres_keeps_its_data_when_asked(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path, keep=True) as postgres:
        with psycopg.connect(postgres.url()) as connection:
            connection.execute("create table kept as select 42 as answer")

    async with embedded_postgres(tmp_path) as postgres:
        with psycopg.connect(postgres.url()) as connection:
            assert connection.execute("select answer from kept").fetchone() == (42,)


async def test_redis_is_durable_bounded_and_closed(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path) as server:
        client = redis.asyncio.Redis.from_url(server.url(), decode_responses=True)
        names = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy", "save", "bind")
        settings = {name: (await client.config_get(name))[name] for name in names}  # 6.2 takes one at a time
        version = (await client.info("server"))["redis_version"]
        await client.aclose()
        stranger = redis.asyncio.Redis(host=HOST, port=server.port)
        with pytest.raises(redis.AuthenticationError):
            await stranger.ping()
        await stranger.aclose()

    assert settings == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory": str(256 * 1024 * 1024),
        "maxmemory-policy": "noeviction",
        "save": "",
        "bind": HOST,
    }
    assert tuple(map(int, version.split(".")[:2])) >= (6, 2)


async def test_what_redis_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    supervisor = Supervisor(backoff=Backoff(first_s=0.05))
    async with embedded_redis(tmp_path, supervisor=supervisor) as server:
        client = redis.asyncio.Redis.from_url(server.url(), decode_responses=True)
        await client.set("kept", "42")

        os.kill(next(iter(supervisor.pids().values())), signal.SIGKILL)
        await until(lambda: supervisor[f"redis-{server.port}"].deaths == 1)
        await server.wait_until_ready()

        await client.connection_pool.disconnect()
        assert await client.get("kept") == "42"
        await client.aclose()


# --- the supervisor ---------------------------------------------------------------------------------------------------


async def test_a_dying_process_is_restarted_with_backoff_and_forgiven() -> None:
    events: list[Event] = []
    supervisor = Supervisor(on_event=events.append, backoff=Backoff(first_s=0.01, longest_s=0.04))
    supervisor.start(python("fragile", "import sys; sys.exit(3)"))

    await until(lambda: sum(event.happening is Happening.DIED for event in events) >= 5)
    await supervisor.stop()

    deaths = [event for event in events if event.happening is Happening.DIED][:5]
    assert [event.retry_in_s for event in deaths] == [0.01, 0.02, 0.04, 0.04, 0.04]
    assert {event.returncode for event in deaths} == {3}


async def test_a_process_that_stayed_up_starts_its_backoff_anew() -> None:
    events: list[Event] = []
    supervisor = Supervisor(on_event=events.append, backoff=Backoff(first_s=0.01, forgiven_after_s=0.0))
    supervisor.start(python("fragile", "pass"))

    await until(lambda: sum(event.happening is Happening.DIED for event in events) >= 3)
    await supervisor.stop()

    assert {event.retry_in_s for event in events if event.happening is Happening.DIED} == {0.01}


async def test_every_line_is_read_even_an_unfinished_or_endless_one() -> None:
    lines: list[bytes] = []
    supervisor = Supervisor(on_line=lambda _name, line: lines.append(line))
    program = (
        "import sys, time; sys.stdout.write('one\\n' + 'x' * 200_000 + '\\ntwo'); sys.stdout.flush(); time.sleep(60)"
    )
    process = supervisor.start(python("talkative", program))

    await until(lambda: b"".join(lines).count(b"x") >= 190_000)
    await supervisor.stop()

    assert lines[0] == b"one"
    assert b"".join(lines[1:]) == b"x" * 200_000 + b"two"
    assert process.deaths == 0


async def test_one_that_ignores_sigterm_is_killed_with_its_children() -> None:
    lines: list[bytes] = []
    supervisor = Supervisor(on_line=lambda _name, line: lines.append(line))
    program = """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
        time.sleep(600)
    """
    supervisor.start(python("stubborn", program, stop_timeout_s=0.2))
    child = int((await until(lambda: lines))[0])
    parent = supervisor.pids()["stubborn"]

    await supervisor.stop()

    await until(lambda: not is_alive(parent) and not is_alive(child))


async def test_a_program_that_does_not_exist_is_told_and_tried_again() -> None:
    lines: list[bytes] = []
    supervisor = Supervisor(on_line=lambda _name, line: lines.append(line), backoff=Backoff(first_s=0.01))
    process = supervisor.start(ProcessSpec("missing", ("/nonexistent/program",), ENVIRONMENT))

    await until(lambda: process.deaths >= 2)
    await supervisor.stop()

    assert lines[0].startswith(b"cannot start /nonexistent/program")


# --- the whole stack --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def services_only(state_dir: Path, *, keep: bool = False) -> AsyncIterator[dict[str, Any]]:
    async with started_stack(state_dir, ("--only-services",), keep=keep) as stack:
        yield stack


async def test_sigterm_leaves_no_orphan(tmp_path: Path) -> None:
    async with services_only(tmp_path) as stack:
        pids = [stack["pid"], *stack["pids"].values()]
        assert all(map(is_alive, pids))

    assert [pid for pid in pids if is_alive(pid)] == []
    assert not (tmp_path / "stack.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
async def test_kill_9_of_the_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    async with services_only(tmp_path, keep=True) as stack:
        pids = list(stack["pids"].values())

        os.kill(stack["pid"], signal.SIGKILL)

        await until(lambda: not any(map(is_alive, pids)))

    async with services_only(tmp_path) as again:  # and it starts again on the same data
        assert again["pid"] != stack["pid"]


async def test_a_second_run_on_the_same_state_is_refused(tmp_path: Path) -> None:
    async with services_only(tmp_path) as stack:
        second = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "deploy.local", "run", "--state-dir", tmp_path],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
        )

    assert second.returncode == 2
    assert f"already runs on {tmp_path} (process {stack['pid']})" in second.stderr


async def test_the_story_is_there_and_a_second_start_changes_nothing(tmp_path: Path) -> None:
    def rows(url: str) -> list[tuple[str, str]]:
        with psycopg.connect(url) as connection:
            return connection.execute("select id::text, name from public.workspaces order by id").fetchall()

    async with services_only(tmp_path, keep=True) as stack:
        first = rows(stack["database"]["url"])
    async with services_only(tmp_path) as stack:
        second = rows(stack["database"]["url"])

    assert first == second == [(workspace.id, workspace.name) for workspace in WORKSPACES]
    assert {person["email"] for person in json.loads((tmp_path / "story.json").read_text())["users"]} >= {
        "maya@casaverde.example"
    }


async def test_a_login_is_powerless_until_it_takes_a_role(tmp_path: Path) -> None:
    async with services_only(tmp_path) as stack:
        with psycopg.connect(stack["database"]["logins"]["parley_api_login"], autocommit=True) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("select from public.workspaces")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("set role service_role")
            connection.execute("set role authenticated")
            assert connection.execute("select count(*) from public.workspaces").fetchone() == (0,)


async def test_a_taken_port_is_replaced_and_told(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        if is_free(16379):  # else somebody holds it already, which serves as well
            holder = held.enter_context(socket.socket())
            holder.bind((HOST, 16379))
            holder.listen()

        async with services_only(tmp_path) as stack:
            port = int(stack["addresses"]["redis"].split(":")[1])

    assert port != 16379
    said = (tmp_path / "run.log").read_text()
    assert f"Redis 16379 → {port}" in " ".join(said.replace("│", " ").split())


async def test_a_dead_server_of_the_stack_is_up_again_and_its_pid_known(tmp_path: Path) -> None:
    def pid_of_redis() -> int:
        return int(json.loads(StateDir(tmp_path).stack_file.read_text())["pids"].get("redis", 0))

    async with services_only(tmp_path) as stack:
        old = stack["pids"]["redis"]

        os.kill(old, signal.SIGKILL)

        new = await until(lambda: pid_of_redis() not in (0, old) and pid_of_redis())
        assert is_alive(new)


async def test_a_real_database_is_left_alone(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path / "theirs") as theirs:
        environment = ENVIRONMENT | {"DATABASE_URL": theirs.url()}
        async with started_stack(tmp_path / "ours", ("--only-services",), environment=environment) as stack:
            assert stack["database"]["embedded"] is False
            assert set(stack["pids"]) == {"redis"}
        with psycopg.connect(theirs.url()) as connection:
            found = connection.execute("select nspname from pg_namespace where nspname in ('app', 'auth')").fetchall()
            logins = connection.execute("select rolname from pg_roles where rolname like 'parley%'").fetchall()

    assert (found, logins) == ([], [])
    assert "not the embedded database" in " ".join((tmp_path / "ours" / "run.log").read_text().split())


async def test_a_process_that_cannot_start_ends_the_run_with_its_last_words(tmp_path: Path) -> None:
    nowhere = {"REDIS_URL": f"redis://{HOST}:1/0", "DATABASE_URL": f"postgresql://nobody@{HOST}:1/nothing"}

    with pytest.raises(StackError, match=r"recorder keeps dying(.|\n)*LOG_LEVEL"):
        async with started_stack(
            tmp_path, ("--processes", "recorder"), environment=ENVIRONMENT | nowhere | {"LOG_LEVEL": "loud"}
        ):
            pass
