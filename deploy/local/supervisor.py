"""Start processes, read what they say, start the dead ones again, and leave none behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from deploy.local.accounts import Account

LONGEST_LINE_BYTES = 64 * 1024  # longer ones are cut in pieces: one runaway line must not eat our memory
REMEMBERED_LINES = 30  # shown when a process cannot start
PR_SET_PDEATHSIG = 1  # Source: prctl(2)


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How to start one process and how to stop it."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # holds secrets
    cwd: Path = Path("/")
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 28.0  # 24 s of our processes' own shutdown < 28 s < an orchestrator's 30 s
    # What the kernel sends when we die without a word (Linux). PostgreSQL gets its fast shutdown instead.
    death_signal: signal.Signals = signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the n-th restart in a row."""

    first_s: float = 0.5
    longest_s: float = 10.0
    forgiven_after_s: float = 30.0  # up that long, a process starts again from `first_s`

    def delay_s(self, failures: int) -> float:
        """Return the wait after that many failures in a row (1 = the first)."""
        return min(self.first_s * float(2 ** min(failures - 1, 30)), self.longest_s)


class Happening(StrEnum):
    STARTED = "started"
    DIED = "died"  # will be started again
    STOPPED = "stopped"  # because we asked
    KILLED = "killed"  # it did not stop in time


@dataclass(frozen=True, slots=True)
class Event:
    process: str
    happening: Happening
    pid: int
    returncode: int | None = None
    retry_in_s: float | None = None


def _no_line(_process: str, _line: bytes) -> None:
    pass


def _no_event(_event: Event) -> None:
    pass


class Supervisor:
    """Hold a set of processes up until told to stop.

    `on_line` gets every line of output without its newline, `on_event` every start and death; both run on the loop.
    """

    def __init__(
        self,
        *,
        on_line: Callable[[str, bytes], None] = _no_line,
        on_event: Callable[[Event], None] = _no_event,
        backoff: Backoff | None = None,
    ) -> None:
        self._on_line = on_line
        self._on_event = on_event
        self._backoff = backoff or Backoff()
        self._processes: dict[str, SupervisedProcess] = {}

    def start(self, spec: ProcessSpec) -> SupervisedProcess:
        """Start a process and keep it up from now on."""
        if spec.name in self._processes:
            raise ValueError(f"a process called {spec.name} is already supervised")
        process = SupervisedProcess(spec, on_line=self._on_line, on_event=self._on_event, backoff=self._backoff)
        self._processes[spec.name] = process
        process.start()
        return process

    def __getitem__(self, name: str) -> SupervisedProcess:
        return self._processes[name]

    def pids(self) -> dict[str, int]:
        """Return the process ids of those that are up now."""
        return {name: process.pid for name, process in self._processes.items() if process.pid is not None}

    async def stop(self, names: Iterable[str] | None = None) -> None:
        """Stop these processes side by side (all, if none are named), and stay until they are gone."""
        chosen = list(self._processes) if names is None else [name for name in names if name in self._processes]
        await asyncio.gather(*(self._processes[name].stop() for name in chosen))
        for name in chosen:
            self._processes.pop(name, None)

    def kill(self) -> None:
        """Kill everything at once; `stop` then returns quickly."""
        for process in self._processes.values():
            process.kill()


class SupervisedProcess:
    """One process, across all its lives."""

    def __init__(
        self,
        spec: ProcessSpec,
        *,
        on_line: Callable[[str, bytes], None],
        on_event: Callable[[Event], None],
        backoff: Backoff,
    ) -> None:
        self.spec = spec
        self.deaths = 0  # unasked ones
        self.last_lines: deque[bytes] = deque(maxlen=REMEMBERED_LINES)
        self._on_line = on_line
        self._on_event = on_event
        self._backoff = backoff
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._killed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_up(), name=f"supervise-{self.spec.name}")

    async def stop(self) -> None:
        """Ask it to stop, kill it when it does not, and stay until it is gone."""
        self._stopping.set()
        if self._task is None:
            return
        self._signal(self.spec.stop_signal)
        done, _ = await asyncio.wait({self._task}, timeout=self.spec.stop_timeout_s)
        if not done:
            self.kill()
            await asyncio.wait({self._task})
        self._task.result()

    def kill(self) -> None:
        self._stopping.set()
        self._killed = True
        self._signal(signal.SIGKILL)

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping.is_set():
            started_at = loop.time()
            try:
                pid, returncode = await self._live_once()
            except OSError as error:  # no such program, out of memory: count it as a death, it may pass
                self._on_line(self.spec.name, f"cannot start {self.spec.argv[0]}: {error}".encode())
                pid, returncode = 0, 127
            if self._stopping.is_set():
                happening = Happening.KILLED if self._killed else Happening.STOPPED
                self._on_event(Event(self.spec.name, happening, pid, returncode))
                return
            self.deaths += 1
            failures = 1 if loop.time() - started_at >= self._backoff.forgiven_after_s else failures + 1
            delay_s = self._backoff.delay_s(failures)
            self._on_event(Event(self.spec.name, Happening.DIED, pid, returncode, retry_in_s=delay_s))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _live_once(self) -> tuple[int, int]:
        self._process = process = await spawn(self.spec)
        self._on_event(Event(self.spec.name, Happening.STARTED, process.pid))
        reader = asyncio.create_task(self._read(process))
        if self._stopping.is_set():  # asked to stop while we were starting it
            self._signal(signal.SIGKILL if self._killed else self.spec.stop_signal)
        returncode = await process.wait()
        signal_group(process.pid, signal.SIGKILL)  # whatever it left behind in its session
        # Children that outlive it (PostgreSQL's, for a moment) hold the pipe open: do not wait for them.
        await asyncio.wait({reader}, timeout=1.0)
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        return process.pid, returncode

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - we asked for a pipe
        async for line in lines(process.stdout):
            self.last_lines.append(line)
            self._on_line(self.spec.name, line)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        if number == signal.SIGKILL:
            signal_group(process.pid, number)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


async def spawn(spec: ProcessSpec) -> asyncio.subprocess.Process:
    """Start a process in its own session (Ctrl-C reaches only us), dying with us, its errors among its output."""
    account = spec.account.popen_arguments() if spec.account else {}
    return await asyncio.create_subprocess_exec(
        *spec.argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=spec.cwd,
        env=dict(spec.env),
        start_new_session=True,
        preexec_fn=_die_with_parent(spec.death_signal),  # runs after the switch of account, which would undo it
        **account,
    )


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield lines without their newline, the unfinished last one too; cut what is longer than LONGEST_LINE_BYTES."""
    rest = b""
    while chunk := await stream.read(LONGEST_LINE_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > LONGEST_LINE_BYTES:
            whole.append(rest)
            rest = b""
        for line in whole:
            yield line.rstrip(b"\r")
    if rest:
        yield rest


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group a child leads; a group that is gone already is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Return what a child runs before exec so that the kernel signals it when we die, even by kill -9.

    Linux only; elsewhere only an orderly stop leaves no orphan.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl: Any = ctypes.CDLL(None, use_errno=True).prctl
    parent, wanted = os.getpid(), int(number)

    def ask_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, wanted, 0, 0, 0)
        if os.getppid() != parent:  # we died in between: the kernel will not tell
            os.kill(os.getpid(), signal.SIGKILL)

    return ask_kernel
