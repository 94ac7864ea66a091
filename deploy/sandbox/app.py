"""Wiring: the parts of the sandbox, put together as one FastAPI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from deploy.sandbox import faults, phone, phone_page, sign_in
from deploy.sandbox.claude import messages_api
from deploy.sandbox.claude.calls import Calls
from deploy.sandbox.deliveries import ATTEMPT_TIMEOUT_S, CONNECTIONS, Deliveries
from deploy.sandbox.logs import log
from deploy.sandbox.settings import Settings
from deploy.sandbox.story import Story

MOST_BODY_BYTES = 8 * 1024 * 1024  # twice what our own ingest takes, so its limit can be tried


def build_app(settings: Settings, story: Story) -> FastAPI:
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

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        log("sandbox.started", port=settings.port, users=len(story.users), channels=len(story.channels))
        try:
            yield
        finally:
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
    app.include_router(phone.routes(phone.Phone(story=story, deliveries=deliveries), deliveries, board))
    app.include_router(messages_api.routes(Calls(), board))
    app.include_router(sign_in.routes(sign_in.SignIn(story.users, settings.issuer)))
    app.include_router(faults.routes(board))
    app.include_router(phone_page.routes())

    @app.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    return app
