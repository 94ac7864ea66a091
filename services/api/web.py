"""The `api` process: wiring only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_swagger import patch_fastapi
from starlette.exceptions import HTTPException

from services.api.routes import account_events as account_event_routes
from services.api.routes import channels, me
from services.api.routes import conversations as conversation_routes
from services.api.routes import erasures as erasure_routes
from services.api.settings import Settings
from services.api.shapes import Problem
from shared.auth.tokens import TokenVerifier
from shared.domain.errors import ParleyError, Unavailable
from shared.domain.ids import new_id
from shared.settings.clocks import Clocks
from shared.store.account_events import AccountEvents
from shared.store.choose import open_store
from shared.store.conversations import Conversations
from shared.store.inbox import Inbox
from shared.telemetry import metrics
from shared.telemetry.trace import trace_id, traceparent
from shared.web.health import Health
from shared.web.problem import MEDIA_TYPE, problem, status_of
from shared.web.serve import serve_until_stopped

log = structlog.get_logger()

_MOST_BODY_BYTES = 1024 * 1024
_OPEN_PATHS = ("/live", "/ready")


async def main(settings: Settings) -> None:
    """Serve the API until told to stop."""
    clocks = Clocks()
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
            verifier=verifier,
        )
        observed = Observe(app)

        async def public(scope: Any, receive: Any, send: Any) -> None:
            outermost = health.app if scope.get("path") in _OPEN_PATHS else observed
            await outermost(scope, receive, send)

        await serve_until_stopped(public, http=settings.http, health=health, clocks=clocks)


def make_app(
    *, inbox: Inbox, conversations: Conversations, account_events: AccountEvents, verifier: TokenVerifier
) -> FastAPI:
    """Return the app with its routes; every one needs a signed-in person."""
    app = FastAPI(
        title="Parley",
        version="1",
        summary="Conversations on WhatsApp, understood.",
        description="Sign in with Supabase Auth and send its access token as bearer token. Errors are problem details: "
        "decide by `code`, show `hint`.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
        max_body_size=_MOST_BODY_BYTES,
        telemetry={"tracing": False, "metrics": False},
        responses={
            status: {"model": Problem, "description": description}
            for status, description in (
                (401, "Not signed in, or the token is not accepted"),
                (404, "Does not exist, or is not yours"),
                (422, "Not valid; the hint says what to change"),
                (503, "Not available right now; Retry-After says when"),
            )
        },
    )
    app.openapi = partial(_describe, app)  # type: ignore[method-assign]
    app.state.inbox = inbox
    app.state.conversations = conversations
    app.state.account_events = account_events
    app.state.verifier = verifier
    app.include_router(me.router)
    app.include_router(conversation_routes.router)
    app.include_router(conversation_routes.contacts)
    app.include_router(erasure_routes.router)
    app.include_router(account_event_routes.router)
    app.include_router(channels.router)
    patch_fastapi(
        app,
        docs_url="/api/docs",
        redirect_from_root_to_docs=False,
        swagger_js_url="/api/docs/swagger-ui-bundle.js",
        swagger_css_url="/api/docs/swagger-ui.css",
        swagger_favicon_url="/api/docs/favicon.png",
        swagger_ui_parameters={"tryItOutEnabled": True, "persistAuthorization": False},
    )
    app.add_exception_handler(ParleyError, _on_expected)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)
    return app


def _describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document with problems under their own media type, which FastAPI cannot be told."""
    document = FastAPI.openapi(app)
    for operations in document["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                content = answer["content"]
                if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("/Problem"):
                    content[MEDIA_TYPE] = content.pop("application/json")
    return document


class Observe:
    """ASGI middleware: give each request an id, measure it, log what it came to."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; its id is in `request.state.request_id` and in the answer's x-request-id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = str(new_id())
        parent = traceparent(dict(scope["headers"]).get(b"traceparent"))
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id, trace_id=trace_id(parent))
        status = 500

        async def observed(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            path = getattr(scope.get("route"), "path", "unknown")
            duration_s = time.perf_counter() - started
            metrics.HTTP_SECONDS.labels(path, str(status)).observe(duration_s)
            log.info("request.answered", route=path, status=status, duration_ms=round(duration_s * 1000, 1))


async def _on_expected(request: Request, error: Exception) -> Response:
    assert isinstance(error, ParleyError)  # noqa: S101  registered for it
    status = status_of(error)
    log.info("request.refused", error_code=error.code, status=status)
    headers = {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(max(1, round(error.retry_after_s or 1)))
    hint = error.hint or ("Try again in a moment." if isinstance(error, Unavailable) else None)
    return _problem(request, status, code=error.code, detail=str(error), hint=hint, headers=headers)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  registered for it
    # Where and what, never the value: it may be personal.
    wrong = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {_meaning(e)}" for e in error.errors())
    return _problem(request, 422, code="not_valid", detail=wrong, hint="See /api/docs for what this call takes.")


# Pydantic's sentences for other kinds may quote what was sent.
_SAYS_NO_VALUE = frozenset(
    {"missing", "greater_than_equal", "less_than_equal", "string_too_long", "string_too_short", "int_parsing"}
)


def _meaning(error: Mapping[str, Any]) -> str:
    kind = str(error["type"])
    return str(error["msg"]) if kind in _SAYS_NO_VALUE else f"not a valid {kind.partition('_')[0]}"


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for it
    code = {404: "route_not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(error.status_code, "rejected")
    headers = dict(error.headers or {})
    return _problem(request, error.status_code, code=code, hint="See /api/docs for what there is.", headers=headers)


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("request.failed", exc_info=error)
    return _problem(request, 500, code="internal_error", hint="This is our fault. Tell us the request_id.")


def _problem(
    request: Request,
    status: int,
    *,
    code: str,
    detail: str | None = None,
    hint: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    request_id = getattr(request.state, "request_id", None)
    body = problem(status, code=code, detail=detail, hint=hint, request_id=request_id)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)
