"""Wiring: the parts of the sandbox, put together: the Graph API on bare ASGI, FastAPI for everything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from deploy.sandbox import faults, phone, phone_page, sign_in
from deploy.sandbox.claude import messages_api
from deploy.sandbox.claude.calls import Calls
from deploy.sandbox.deliveries import ATTEMPT_TIMEOUT_S, CONNECTIONS, Deliveries
from deploy.sandbox.graph import controls
from deploy.sandbox.graph.analytics import Analytics
from deploy.sandbox.graph.app import Graph
from deploy.sandbox.graph.statuses import Statuses
from deploy.sandbox.graph.wire import Receive, Scope, Send
from deploy.sandbox.graph.world import World
from deploy.sandbox.logs import log
from deploy.sandbox.settings import Settings
from deploy.sandbox.story import Story

MOST_BODY_BYTES = 8 * 1024 * 1024  # twice what our own ingest takes, so its limit can be tried


class Sandbox:
    """The outermost application. What is under /graph is not FastAPI's: no parsing, no middleware in its way."""

    def __init__(self, graph: Graph, rest: FastAPI) -> None:
        self._graph = graph
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_graph = scope["type"] == "http" and scope["path"].startswith("/graph/")
        await (self._graph if is_graph else self._rest)(scope, receive, send)


def build_app(settings: Settings, story: Story) -> Sandbox:
    """Put the app together; nothing runs before its lifespan begins."""
    board = faults.FaultBoard(latency_ms=settings.latency_ms, record_prompts=settings.record_prompts)
    client = httpx.AsyncClient(
        timeout=ATTEMPT_TIMEOUT_S,
        limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
        follow_redirects=False,  # Meta takes a redirect for a failure
        trust_env=False,  # a proxy from the environment must not see what we sign
    )
    deliveries = Deliveries(
        webhook_url=settings.webhook_url,
        app_secret=settings.app_secret.get_secret_value(),
        board=board,
        client=client,
    )

    world = World(story, base_url=settings.base_url, app_secret=settings.app_secret.get_secret_value())
    analytics = Analytics()
    statuses = Statuses(world, board, analytics, deliveries.send)
    graph = Graph(world, statuses, analytics, board, client=client, webhook_url=settings.webhook_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        log("sandbox.started", port=settings.port, users=len(story.users), channels=len(story.channels))
        telling = asyncio.create_task(statuses.run())
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            await deliveries.close()
            await client.aclose()
            log("sandbox.stopped")

    app = FastAPI(
        title="Sandbox for Meta, Claude and Supabase Auth",
        lifespan=lifespan,
        max_body_size=MOST_BODY_BYTES,
        telemetry={"tracing": False},
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.include_router(phone.routes(phone.Phone(world=world, deliveries=deliveries), deliveries, board))
    app.include_router(controls.routes(graph))
    app.include_router(messages_api.routes(Calls(), board))
    app.include_router(sign_in.routes(sign_in.SignIn(story.users, settings.issuer)))
    app.include_router(faults.routes(board))
    app.include_router(phone_page.routes())

    @app.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    return Sandbox(graph, app)
