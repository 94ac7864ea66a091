"""The `sender` process: wiring only."""

from __future__ import annotations

import httpx
from fastapi import FastAPI

from services.sender.routes import messages
from services.sender.routes.media import UPLOAD_DEADLINE_S
from services.sender.serve_media import serve_media
from services.sender.settings import SenderSettings
from shared.auth.tokens import TokenVerifier
from shared.queue.bell import OutboxBell
from shared.queue.connection import connect
from shared.settings.clocks import Clocks
from shared.storage.open_storage import open_storage
from shared.store.choose import open_store
from shared.store.media import Uploads
from shared.store.sending import Sending
from shared.web.app import behind_health, new_app
from shared.web.health import Health
from shared.web.serve import serve_until_stopped

# A person waits while the bell is rung; dispatchers poll, so a Redis that hangs may cost no more than this.
_RING_TIMEOUT_S = 0.2


async def main(settings: SenderSettings) -> None:
    """Serve people until told to stop."""
    secret = settings.supabase.jwt_secret
    async with (
        httpx.AsyncClient(timeout=3.0) as http,
        open_store(settings.database, settings.supabase.rest(), service_role=None) as store,
        connect(settings.cache_url, timeout_s=_RING_TIMEOUT_S, max_connections=32) as redis,
        open_storage(settings.storage, supabase_url=settings.supabase.url) as storage,
    ):
        verifier = TokenVerifier(
            issuer=f"{settings.supabase.url.rstrip('/')}/auth/v1",
            hs256_secret=secret.get_secret_value().encode() if secret else None,
            http=http,
        )
        health = Health({"postgres": store.is_reachable})  # Redis is no need: without it dispatchers poll
        app = make_app(sending=Sending(store), bell=OutboxBell(redis), verifier=verifier)
        serve_media(app, uploads=Uploads(store), storage=storage, settings=settings.storage)
        await serve_until_stopped(
            behind_health(app, health),
            http=settings.http,
            health=health,
            clocks=Clocks(),
            receive_within_s=UPLOAD_DEADLINE_S,  # 100 MB over an agent's line; nginx hangs up on who sends nothing
        )


def make_app(*, sending: Sending, bell: OutboxBell, verifier: TokenVerifier) -> FastAPI:
    """Return the app with the routes for messages, each of which needs a signed-in person; files: `serve_media`."""
    app = new_app(
        summary="What is said on WhatsApp.",
        description="Sign in with Supabase Auth and send its access token as bearer token. Errors are problem details: "
        "decide by `code`, show `hint`, mark what `problems` names.",
        openapi_url="/api/sender/openapi.json",
        docs_url="/api/sender/docs",
    )
    app.state.sending = sending
    app.state.bell = bell
    app.state.verifier = verifier
    app.include_router(messages.router)
    return app
