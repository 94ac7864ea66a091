"""Errors as problem details (RFC 9457): `code` is stable, `hint` says what to do, `request_id` finds the log line."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from shared.domain.errors import Conflict, Forbidden, NotFound, ParleyError, Unavailable, Untrusted

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MEDIA_TYPE = "application/problem+json"

_TITLES = {
    400: "Bad request",
    401: "Not signed in",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    413: "Too large",
    422: "Not valid",
    500: "Internal error",
    503: "Not available right now",
}


def status_of(error: ParleyError) -> int:
    """Return the HTTP status for an error class; the only place that maps them."""
    if isinstance(error, Untrusted):
        return 401
    if isinstance(error, Unavailable):
        return 503
    for kind, status in ((NotFound, 404), (Conflict, 409), (Forbidden, 403)):
        if isinstance(error, kind):
            return status
    return 422


def problem(
    status: int,
    *,
    code: str,
    detail: str | None = None,
    hint: str | None = None,
    request_id: str | None = None,
    more: Mapping[str, object] | None = None,
) -> bytes:
    """Return the body of a problem answer; `more`: extension members (RFC 9457, section 3.2), never over our own."""
    members = {
        "type": f"urn:parley:problem:{code}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": detail,
        "hint": hint,
        "request_id": request_id,
    }
    known = {name: value for name, value in members.items() if value is not None}
    return json.dumps({**(more or {}), **known}).encode()


async def answer(
    send: Send, status: int, body: bytes, *, media_type: str = MEDIA_TYPE, headers: dict[bytes, bytes] | None = None
) -> None:
    """Send a whole answer over plain ASGI."""
    head = {
        b"content-type": media_type.encode(),
        b"content-length": str(len(body)).encode(),
        b"cache-control": b"no-store",
        b"x-content-type-options": b"nosniff",
        **(headers or {}),
    }
    await send({"type": "http.response.start", "status": status, "headers": list(head.items())})
    await send({"type": "http.response.body", "body": body})
