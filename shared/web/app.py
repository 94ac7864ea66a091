"""What every FastAPI app of ours does the same: problem details, documentation, a body limit, one log line a request.

The routes, and who may call them, are each service's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_swagger import patch_fastapi
from starlette.exceptions import HTTPException

from shared.domain.errors import ParleyError, Rejected, Unavailable
from shared.domain.ids import new_id
from shared.telemetry import metrics
from shared.telemetry.trace import trace_id, traceparent
from shared.web.health import Health
from shared.web.problem import MEDIA_TYPE, problem, status_of
from shared.web.shapes import Problem

log = structlog.get_logger()

MOST_BODY_BYTES = 1024 * 1024
_OPEN_PATHS = ("/live", "/ready")


def new_app(
    *,
    summary: str,
    description: str,
    openapi_url: str = "/api/openapi.json",
    docs_url: str = "/api/docs",
    most_body_bytes: int = MOST_BODY_BYTES,
) -> FastAPI:
    """Return an app without routes, which answers every error as problem details.

    `docs_url`: of a page with no third party behind it. `most_body_bytes`: larger bodies get 413.
    """
    app = FastAPI(
        title="Parley",
        version="1",
        summary=summary,
        description=description,
        openapi_url=openapi_url,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
        max_body_size=most_body_bytes,
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
    app.state.docs_url = docs_url
    app.openapi = partial(_describe, app)  # type: ignore[method-assign]
    patch_fastapi(
        app,
        docs_url=docs_url,
        redirect_from_root_to_docs=False,
        swagger_js_url=f"{docs_url}/swagger-ui-bundle.js",
        swagger_css_url=f"{docs_url}/swagger-ui.css",
        swagger_favicon_url=f"{docs_url}/favicon.png",
        swagger_ui_parameters={"tryItOutEnabled": True, "persistAuthorization": False},
    )
    app.add_exception_handler(ParleyError, _on_expected)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)
    return app


def behind_health(app: Any, health: Health) -> Any:
    """Return the app as its public port serves it: observed, and with /live and /ready beside it."""
    observed = Observe(app)

    async def public(scope: Any, receive: Any, send: Any) -> None:
        outermost = health.app if scope.get("path") in _OPEN_PATHS else observed
        await outermost(scope, receive, send)

    return public


def _describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document with problems under their own media type, which FastAPI cannot be told."""
    document = FastAPI.openapi(app)
    for operations in document["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                content = answer["content"]
                if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("Problem"):
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
    more = error.more if isinstance(error, Rejected) else None
    return _problem(request, status, code=error.code, detail=str(error), hint=hint, headers=headers, more=more)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  registered for it
    # Where and what, never the value: it may be personal.
    errors = error.errors()
    wrong = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {_meaning(e)}" for e in errors)
    each = [{"field": _field(e["loc"]), "code": str(e["type"]), "message": _meaning(e)} for e in errors]
    hint = f"See {request.app.state.docs_url} for what this call takes."
    return _problem(request, 422, code="not_valid", detail=wrong, hint=hint, more={"problems": each})


def _field(place: Sequence[object]) -> str:
    """Write a place as the rules of our own do: `content.buttons[2].title`; of the body, without saying so."""
    steps = place[1:] if place and place[0] == "body" else place
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


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
    return _problem(
        request,
        error.status_code,
        code=code,
        hint=f"See {request.app.state.docs_url} for what there is.",
        headers=headers,
    )


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
    more: Mapping[str, object] | None = None,
) -> Response:
    request_id = getattr(request.state, "request_id", None)
    body = problem(status, code=code, detail=detail, hint=hint, request_id=request_id, more=more)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)
