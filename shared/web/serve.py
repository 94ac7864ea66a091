"""Run ASGI apps on one loop and stop them in order: unready first, then drain."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any

import structlog
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.settings.clocks import Clocks
from shared.settings.groups import HttpSettings, InternalHttpSettings
from shared.web.health import Health
from shared.web.https import RequireHttps
from shared.web.problem import MEDIA_TYPE, problem

log = structlog.get_logger()


# Longer than nginx keeps a connection it does not use (60 s by default): who hangs up first loses no request that way.
_IDLE_S = 75.0
_TOO_SLOW = problem(408, code="request_too_slow")
_408 = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
    MEDIA_TYPE.encode(),
    len(_TOO_SLOW),
    _TOO_SLOW,
)


class _Protocol(HttpToolsProtocol):
    """uvicorn's, without its timer for each answer, a twentieth of a webhook's time (0.9 of 20 µs, 2026-11-24)."""

    def on_response_complete(self) -> None:
        """Be ready for the next request; `_Server` looks who makes none."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()


class _Server(uvicorn.Server):
    """uvicorn, which has no deadline for receiving a request, with one; and without its hand on signals.

    All connections are looked at once a second; `asyncio.timeout` costs each request 3.4 µs (2026-11-24).
    """

    def __init__(self, config: uvicorn.Config, *, receive_within_s: float) -> None:
        super().__init__(config)
        self._receive_within_s = receive_within_s
        self._waited_for: dict[tuple[object, bool], float] = {}  # and since when

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second, and ours once."""
        if counter % 10 == 0:
            self._hang_up_on_the_slow()
        return await super().on_tick(counter)

    def _hang_up_on_the_slow(self) -> None:
        now, before, self._waited_for = time.monotonic(), self._waited_for, {}
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)  # the newest request; None before the first one's head is here
            is_idle = cycle is not None and cycle.response_complete
            if cycle is not None and not cycle.more_body and not is_idle:
                continue  # it waits for us
            what = (cycle or connection, is_idle)
            since = before.get(what, now)
            if now - since < (_IDLE_S if is_idle else self._receive_within_s):
                self._waited_for[what] = since
                continue
            if not is_idle:
                log.warning("request.receiving_timed_out")
                if cycle is None or not cycle.response_started:
                    connection.transport.write(_408)
            connection.transport.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # Two servers share the loop, and readiness goes off before either drains: signals are `stop_signal`'s.
        yield


@contextlib.asynccontextmanager
async def serving(
    app: Any, *, host: str, port: int, drain_s: float, trusted_proxies: str = "", receive_within_s: float = 30.0
) -> AsyncIterator[None]:
    """Serve `app` while the block runs; on leaving, accept no more and give requests in flight `drain_s`.

    `receive_within_s`: whose request takes longer to arrive gets 408, at most two seconds after that.
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
            http=_Protocol,
            ws="none",
        ),
        receive_within_s=receive_within_s,
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


async def serve_until_stopped(
    app: Any, *, http: HttpSettings, health: Health, clocks: Clocks, receive_within_s: float = 30.0
) -> None:
    """Serve a public app until SIGTERM or SIGINT; then unready, wait, drain. See `serving`."""
    stop = stop_signal()
    public = RequireHttps(app) if http.require_https else app
    async with (
        serving_internal(health, http),
        serving(
            public,
            host=http.host,
            port=http.port,
            drain_s=clocks.drain_s,
            trusted_proxies=http.trusted_proxies,
            receive_within_s=receive_within_s,
        ),
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
