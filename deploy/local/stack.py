"""Start everything in order, watch over it, stop everything in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.local.logs import LEVELS, LogView, read_line
from deploy.local.places import ROOT
from deploy.local.ports import HOST, PortPicker
from deploy.local.postgres import DEFAULT_MAJOR, Major, Postgres, prepare_postgres, remove_data
from deploy.local.processes import PROCESSES, Process, Wiring, spec_of
from deploy.local.real import RealParts
from deploy.local.redis import Redis, prepare_redis
from deploy.local.seed import LOGINS, create_logins, seed
from deploy.local.show import Screen, Steps, box, next_steps, short
from deploy.local.state import StackError, StateDir, write_private
from deploy.local.story import CASA_VERDE, MAYA, PASSWORD, story_json
from deploy.local.supervisor import Event, Happening, Supervisor
from deploy.local.token_keys import token_keys
from shared.store.migrate import migrate

POSTGRES_PORT, REDIS_PORT = 15432, 16379  # not 5432 and 6379: those may be somebody's own servers
READY_WITHIN_S = 90.0
GIVES_UP_AFTER = 3  # deaths before it was ever ready: it is misconfigured, not unlucky


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    state_dir: Path = ROOT / ".local"
    only_services: bool = False
    processes: tuple[str, ...] = tuple(process.name for process in PROCESSES)
    workers: Mapping[str, int] = field(default_factory=dict)
    postgres: Major = DEFAULT_MAJOR
    seed_foreign_database: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Copy:
    """One running copy of a process."""

    process: Process
    name: str
    internal_port: int | None


async def run_stack(options: Options, *, caller: Mapping[str, str]) -> int:
    """Run until told to stop; return the exit status.

    The first Ctrl-C, SIGTERM or SIGHUP stops in order, the second kills at once.
    Raises: StackError for what the user can put right.
    """
    state = StateDir.open(options.state_dir)
    with state.locked():
        stack = Stack(options, state=state, caller=caller)
        with _signals(stack):
            return await stack.run()


@contextlib.contextmanager
def _signals(stack: Stack) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stack.ask_to_stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


class Stack:
    """One run of the local stack."""

    def __init__(self, options: Options, *, state: StateDir, caller: Mapping[str, str]) -> None:
        self._options = options
        self._state = state
        self._caller = caller
        self._real = RealParts.from_environment(caller)
        self._keys = token_keys(state, self._real)
        self._picker = PortPicker()
        self._screen = Screen(on_closed=self.ask_to_stop)
        self._copies = copies(options, self._picker)
        names = ("postgres", "redis", *(copy.name for copy in self._copies))
        self._logs = LogView(state, names=names, quiet=options.quiet, write=self._screen.line)
        self._supervisor = Supervisor(on_line=self._logs.line, on_event=self._tell)
        self._stopping = asyncio.Event()
        self._ready = False
        self._description: dict[str, Any] | None = None

    def ask_to_stop(self) -> None:
        if self._stopping.is_set():
            self._supervisor.kill()
        self._stopping.set()

    async def run(self) -> int:
        self._state.stack_file.unlink(missing_ok=True)  # of one that was killed
        start = asyncio.create_task(self._start())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({start, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
                await stopping
            return 0
        finally:
            for task in (start, stopping):
                task.cancel()
            await asyncio.gather(start, stopping, return_exceptions=True)
            await self._stop()

    async def _start(self) -> None:
        self._logs.hide_chatter, shown_from, self._logs.least = True, self._logs.least, LEVELS["error"]
        with Steps(self._screen) as steps:
            postgres, redis = await _both(self._start_postgres(steps), self._start_redis(steps))
            await self._prepare_database(postgres, steps)
            wiring = self._wire(postgres, redis)
            await self._start_processes(wiring, steps)
        self._describe(wiring, postgres, redis)
        if self._description is not None:
            self._screen.show("")
            self._screen.show(box(self._description, ready_s=steps.seconds, moved=self._picker.moved))
            self._screen.line("\n" + next_steps(self._description) + "\n")
        self._logs.hide_chatter, self._logs.least = False, shown_from
        self._ready = True

    async def _start_postgres(self, steps: Steps) -> Postgres | None:
        if self._real.database_url:
            async with steps.step("PostgreSQL") as step:
                step.note = "the one DATABASE_URL names"
            return None
        async with steps.step(f"PostgreSQL {self._options.postgres}") as step:
            port = self._picker.pick("PostgreSQL", POSTGRES_PORT)
            postgres = await prepare_postgres(self._state.path, port=port, major=self._options.postgres)
            self._supervisor.start(postgres.spec())
            await self._or_give_up("postgres", postgres.wait_until_ready(READY_WITHIN_S))
            step.note = f"{HOST}:{port}"
        return postgres

    async def _start_redis(self, steps: Steps) -> Redis | None:
        if self._real.redis_url:
            async with steps.step("Redis") as step:
                step.note = "the one REDIS_URL names"
            return None
        async with steps.step("Redis") as step:
            port = self._picker.pick("Redis", REDIS_PORT)
            redis = prepare_redis(self._state.path, port=port)
            self._supervisor.start(redis.spec())
            await self._or_give_up("redis", redis.wait_until_ready(READY_WITHIN_S))
            step.note = f"{HOST}:{port}"
        return redis

    async def _prepare_database(self, postgres: Postgres | None, steps: Steps) -> None:
        write_private(self._state.story_file, _json(story_json()))
        if postgres is None and not self._options.seed_foreign_database:
            async with steps.step("Migrations, story") as step:
                step.note = "left out: not the embedded database (`make migrate`, --seed-foreign-database)"
            return
        url = postgres.url() if postgres else self._real.database_url
        async with steps.step("Migrations") as step:
            applied = await asyncio.to_thread(migrate, url)
            step.note = f"{len(applied)} applied" if applied else "up to date"
        async with steps.step("Story") as step:
            if postgres:
                await asyncio.to_thread(create_logins, url, self._login_passwords())
            await asyncio.to_thread(
                seed,
                url,
                embedded=postgres is not None,
                token_public_key=None if self._real.graph else self._keys.public,
                allowed=self._options.seed_foreign_database,
            )
            step.note = "two workspaces, their people and numbers"

    def _login_passwords(self) -> dict[str, str]:
        return {login: self._state.secret(login) for login in LOGINS}

    def _wire(self, postgres: Postgres | None, redis: Redis | None) -> Wiring:
        ports = {
            process.name: self._picker.pick(process.name, process.port)
            for process in PROCESSES
            if process.port is not None
        }
        passwords = self._login_passwords()
        return Wiring(
            ports=ports,
            database_urls={
                login: postgres.url(login, passwords[login]) if postgres else self._real.database_url
                for login in LOGINS
            },
            redis_url=redis.url() if redis else self._real.redis_url,
            story_path=str(self._state.story_file),
            app_secret=self._state.secret("app_secret"),
            verify_token=self._state.secret("verify_token"),
            token_key=self._keys.private,
            token_public_key=self._keys.public,
            storage_dir=str(self._state.storage_dir),
            storage_url_secret=self._state.secret("storage_url_secret"),
            real=self._real,
        )

    async def _start_processes(self, wiring: Wiring, steps: Steps) -> None:
        started = []
        for copy in self._copies:
            spec = spec_of(copy.process, wiring, name=copy.name, internal_port=copy.internal_port, caller=self._caller)
            self._supervisor.start(spec)
            started.append(self._until_ready(copy, wiring, steps))
        await _both(*started)

    async def _until_ready(self, copy: Copy, wiring: Wiring, steps: Steps) -> None:
        port = copy.internal_port or wiring.ports[copy.process.name]
        async with steps.step(copy.name) as step:
            await self._or_give_up(copy.name, until_answers(port, copy.process.ready_path))
            public = wiring.ports.get(copy.process.name)
            step.note = f"{HOST}:{public}" if public else ""

    async def _or_give_up(self, name: str, ready: Awaitable[None]) -> None:
        """Wait until it is ready, but not for one that keeps dying.

        Raises: StackError with its last words.
        """
        waiting = asyncio.ensure_future(ready)
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                while not waiting.done():
                    if self._supervisor[name].deaths >= GIVES_UP_AFTER:
                        raise StackError(self._last_words(name, "keeps dying"))
                    await asyncio.wait({waiting}, timeout=0.1)
                waiting.result()
        except TimeoutError as error:
            raise StackError(self._last_words(name, f"was not ready within {READY_WITHIN_S:.0f} s")) from error
        finally:
            waiting.cancel()

    def _last_words(self, name: str, what: str) -> str:
        now = datetime.now().astimezone()
        entries = [read_line(line, now=now) for line in list(self._supervisor[name].last_lines)[-12:]]
        said = [f"  {entry.event} {entry.fields}".rstrip() for entry in entries]
        return "\n".join([f"{name} {what}. Its last words ({self._state.log_file(name)}):", *(said or ["  (none)"])])

    def _describe(self, wiring: Wiring, postgres: Postgres | None, redis: Redis | None) -> None:
        running = {copy.process.name for copy in self._copies}
        can_sign_in = {"sandbox", "api"} <= running and not self._real.supabase
        self._description = {
            "pid": os.getpid(),
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "state_dir": str(self._state.path),
            "logs": str(self._state.path / "logs"),
            "story": str(self._state.story_file),
            "real": self._real.names(),
            "addresses": {
                "postgres": f"{HOST}:{postgres.port}" if postgres else "",
                "redis": f"{HOST}:{redis.port}" if redis else "",
                "api": wiring.address("api") if "api" in running else "",
                "api_docs": f"{wiring.address('api')}/api/docs" if "api" in running else "",
                "sender": wiring.address("sender") if "sender" in running else "",
                "sender_docs": f"{wiring.address('sender')}/api/sender/docs" if "sender" in running else "",
                "webhook": wiring.webhook_url if "ingest" in running else "",
                "sandbox": wiring.address("sandbox") if "sandbox" in running else "",
                "metrics": {
                    copy.name: f"http://{HOST}:{copy.internal_port}/metrics"
                    for copy in self._copies
                    if copy.internal_port
                },
            },
            "sign_in": {
                "email": MAYA.email,
                "password": PASSWORD,
                "user_id": MAYA.id,
                "workspace_id": CASA_VERDE.id,
            }
            if can_sign_in
            else None,
            "database": {
                "embedded": postgres is not None,
                "url": postgres.url() if postgres else self._real.database_url,
                "logins": dict(wiring.database_urls),
            },
            "redis": {"embedded": redis is not None, "url": wiring.redis_url},
            "webhook": {
                "app_secret": wiring.app_secret,
                "verify_token": self._real.verify_token or wiring.verify_token,
            },
            "pids": self._supervisor.pids(),
        }
        self._state.write_stack(self._description)

    def _tell(self, event: Event) -> None:
        """Say what happened to a process, and keep the pids in stack.json true."""
        if event.happening is Happening.DIED:
            cause = _cause(event.returncode)
            self._logs.note(event.process, "error", f"died ({cause}); starting it again in {event.retry_in_s:g} s")
        elif event.happening is Happening.KILLED:
            self._logs.note(event.process, "warning", "was killed before it had stopped")
        elif event.happening is Happening.STARTED and self._ready:
            self._logs.note(event.process, "info", f"started again (process {event.pid})")
        if self._description is not None and not self._stopping.is_set():
            self._description["pids"] = self._supervisor.pids()
            self._state.write_stack(self._description)

    async def _stop(self) -> None:
        """Stop those who write before those who keep: processes, then Redis, then PostgreSQL."""
        self._state.stack_file.unlink(missing_ok=True)
        self._description = None
        self._logs.hide_chatter = True
        pids = self._supervisor.pids()
        if pids:
            self._screen.line("\nStopping (Ctrl-C again kills at once) …")
        await self._supervisor.stop([name for name in pids if name not in ("redis", "postgres")])
        await self._supervisor.stop(copy.name for copy in self._copies)  # those between two lives
        await self._supervisor.stop(["redis"])
        await self._supervisor.stop(["postgres"])
        self._logs.close()
        if pids:
            self._screen.line("Everything is stopped; data stay in " + short(self._state.path) + ".")


def copies(options: Options, picker: PortPicker) -> list[Copy]:
    """Return what to start: the chosen processes, each as often as asked."""
    chosen = [] if options.only_services else [one for one in PROCESSES if one.name in options.processes]
    found = []
    for process in chosen:
        for number in range(1, options.workers.get(process.name, 1) + 1):
            name = process.name if number == 1 else f"{process.name}-{number}"
            port = process.internal_port
            wanted = None if port is None else port + 10 * (number - 1)
            found.append(Copy(process, name, None if wanted is None else picker.pick(f"{name} metrics", wanted)))
    return found


async def until_answers(port: int, path: str) -> None:
    """Return once a GET of that path is answered with 200."""
    while True:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection(HOST, port)
                try:
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
                    status_line = await reader.readline()
                finally:
                    writer.close()
                if b" 200 " in status_line:
                    return
        await asyncio.sleep(0.05)


async def _both(*work: Any) -> list[Any]:
    """Do these side by side; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except* StackError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    return [task.result() for task in tasks]


def _cause(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-returncode).name
    return f"exit status {returncode}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


@contextlib.asynccontextmanager
async def started_stack(
    state_dir: Path,
    arguments: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = READY_WITHIN_S,
    keep: bool = False,
) -> AsyncIterator[dict[str, Any]]:
    """Run the whole stack as a process of its own, for tests; yield its stack.json once it is ready.

    `environment`: the caller's; by default ours without what would make a part real. The database is removed at the
    end unless `keep`.
    Raises: StackError with what it printed, if it ends before it is ready.
    """
    state = StateDir.open(state_dir)
    if environment is None:
        environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "TMPDIR")}
    command = (sys.executable, "-m", "deploy.local", "run", "--state-dir", str(state.path), *arguments)
    with (state.path / "run.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=dict(environment), stdout=output, stderr=output, start_new_session=True
        )
    try:
        async with asyncio.timeout(timeout_s):
            while (stack := state.read_stack()) is None:
                if process.returncode is not None:
                    raise StackError((state.path / "run.log").read_text(errors="replace"))
                await asyncio.sleep(0.05)
        yield stack
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if not keep:
            await asyncio.to_thread(remove_data, state.path)
