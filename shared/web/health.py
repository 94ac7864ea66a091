"""/live, /ready and /metrics, over plain ASGI."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.web.problem import answer, problem

Check = Callable[[], Awaitable[bool]]


class Health:
    """Is this process alive (its loop answers), and should it be sent work?

    `checks`: what it needs, by name. `any_of`: one of them is enough (ingest, with two places to be durable in).
    """

    def __init__(self, checks: Mapping[str, Check], *, any_of: bool = False) -> None:
        self._checks = checks
        self._any_of = any_of
        self.stopping = False  # set on SIGTERM, before draining

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve /live and /ready: for the public port."""
        if scope["type"] != "http":
            return
        if scope["path"] == "/live":
            await answer(send, 200, b'{"live": true}', media_type="application/json")
        elif scope["path"] == "/ready":
            ready, body = await self._readiness()
            await answer(send, 200 if ready else 503, body, media_type="application/json")
        else:
            await answer(send, 404, problem(404, code="route_not_found"))

    async def internal_app(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve /metrics too: for the internal port only."""
        if scope["type"] == "http" and scope["path"] == "/metrics":
            await answer(send, 200, generate_latest(), media_type=CONTENT_TYPE_LATEST)
        else:
            await self.app(scope, receive, send)

    async def _readiness(self) -> tuple[bool, bytes]:
        found = {name: await check() for name, check in self._checks.items()}
        enough = any(found.values()) if self._any_of else all(found.values())
        ready = enough and not self.stopping
        return ready, json.dumps({"ready": ready, "stopping": self.stopping, "checks": found}).encode()
