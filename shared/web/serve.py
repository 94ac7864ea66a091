"""Run ASGI apps on one loop and stop them in order: unready first, then drain."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any

import structlog
import uvicorn
import uvloop

from shared.settings.clocks import Clocks
from shared.settings.groups import HttpSettings, InternalHttpSettings
from shared.web.health import Health
from shared.web.https import RequireHttps

log = structlog.get_logger()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # Two servers share the loop, and readiness goes off before either drains: signals are `stop_signal`'s.
        yield


@contextlib.asynccontextmanager
async def serving(app: Any, *, host: str, port: int, drain_s: float, trusted_proxies: str = "") -> AsyncIterator[None]:
    """Serve `app` while the block runs; on leaving, accept no more and give requests in flight `drain_s`.

    Raises: OSError when the address is taken.
    """
    listening = socket.create_server(
        (host, port), backlog=2048, family=socket.AF_INET6 if ":" in host else socket.AF_INET
    )
    server = _Server(
        uvicorn.Config(
            app,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=trusted_proxies or None,
            timeout_graceful_shutdown=max(1, int(drain_s)),
            ws="none",
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def serving_internal(health: Health, http: InternalHttpSettings) -> AsyncIterator[None]:
    """Serve /live, /ready and /metrics on the internal port while the block runs."""
    async with serving(health.internal_app, host=http.internal_host, port=http.internal_port, drain_s=1):
        yield


async def serve_until_stopped(app: Any, *, http: HttpSettings, health: Health, clocks: Clocks) -> None:
    """Serve a public app until SIGTERM or SIGINT; then unready, wait, drain."""
    stop = stop_signal()
    public = RequireHttps(app) if http.require_https else app
    async with (
        serving_internal(health, http),
        serving(public, host=http.host, port=http.port, drain_s=clocks.drain_s, trusted_proxies=http.trusted_proxies),
    ):
        log.info("process.started", port=http.port)
        await stop.wait()
        log.info("process.stopping")
        health.stopping = True
        await asyncio.sleep(clocks.unready_s)


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a process's coroutine on a fast loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
