"""The `api` process: wiring only."""

from __future__ import annotations

import httpx
from fastapi import FastAPI

from services.api.routes import account_events as account_event_routes
from services.api.routes import analyses as analysis_routes
from services.api.routes import bulk_sends as bulk_send_routes
from services.api.routes import channels as channel_routes
from services.api.routes import contacts as contact_routes
from services.api.routes import conversations as conversation_routes
from services.api.routes import erasures as erasure_routes
from services.api.routes import me, workspace_settings
from services.api.routes import templates as template_routes
from services.api.settings import Settings
from shared.auth.tokens import TokenVerifier
from shared.settings.clocks import Clocks
from shared.store.account_events import AccountEvents
from shared.store.bulk import BulkSends
from shared.store.channels import Channels
from shared.store.choose import open_store
from shared.store.contacts import Contacts
from shared.store.conversations import Conversations
from shared.store.corrections import Corrections
from shared.store.inbox import Inbox
from shared.store.templates import Templates
from shared.web.app import behind_health, new_app
from shared.web.health import Health
from shared.web.serve import serve_until_stopped


async def main(settings: Settings) -> None:
    """Serve the API until told to stop."""
    secret = settings.supabase.jwt_secret
    async with (
        httpx.AsyncClient(timeout=3.0) as http,
        open_store(settings.database, settings.supabase.rest(), service_role=None) as store,
    ):
        verifier = TokenVerifier(
            issuer=f"{settings.supabase.url.rstrip('/')}/auth/v1",
            hs256_secret=secret.get_secret_value().encode() if secret else None,
            http=http,
        )
        health = Health({"postgres": store.is_reachable})
        app = make_app(
            inbox=Inbox(store),
            conversations=Conversations(store),
            account_events=AccountEvents(store),
            channels=Channels(store),
            token_public_key=settings.whatsapp.token_public_key,
            templates=Templates(store),
            bulk_sends=BulkSends(store),
            corrections=Corrections(store),
            contacts=Contacts(store),
            verifier=verifier,
        )
        await serve_until_stopped(behind_health(app, health), http=settings.http, health=health, clocks=Clocks())


def make_app(
    *,
    inbox: Inbox,
    conversations: Conversations,
    account_events: AccountEvents,
    channels: Channels,
    token_public_key: str | None,
    templates: Templates,
    bulk_sends: BulkSends,
    corrections: Corrections,
    contacts: Contacts,
    verifier: TokenVerifier,
) -> FastAPI:
    """Return the app with its routes; every one needs a signed-in person.

    token_public_key: what tokens of numbers are sealed to; None: no number can be connected.
    """
    app = new_app(
        summary="Conversations on WhatsApp, understood.",
        description="Sign in with Supabase Auth and send its access token as bearer token. Errors are problem details: "
        "decide by `code`, show `hint`.",
    )
    app.state.inbox = inbox
    app.state.conversations = conversations
    app.state.account_events = account_events
    app.state.channels = channels
    app.state.token_public_key = token_public_key
    app.state.templates = templates
    app.state.bulk_sends = bulk_sends
    app.state.corrections = corrections
    app.state.contacts = contacts
    app.state.verifier = verifier
    app.include_router(me.router)
    app.include_router(conversation_routes.router)
    app.include_router(conversation_routes.contacts)
    app.include_router(contact_routes.router)
    app.include_router(contact_routes.tasks)
    app.include_router(contact_routes.proposals)
    app.include_router(contact_routes.ai)
    app.include_router(erasure_routes.router)
    app.include_router(account_event_routes.router)
    app.include_router(channel_routes.router)
    app.include_router(workspace_settings.router)
    app.include_router(template_routes.router)
    app.include_router(bulk_send_routes.router)
    app.include_router(analysis_routes.router)
    app.include_router(analysis_routes.figures)
    return app
