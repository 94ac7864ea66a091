"""The webhook endpoint: the outermost layer, plain ASGI. Verify, make durable, 200; nothing else."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import parse_qs

import structlog

from shared.domain.errors import Unavailable
from shared.domain.ids import new_id
from shared.telemetry import metrics
from shared.telemetry.trace import traceparent
from shared.web.problem import Send, answer, problem
from shared.whatsapp.events import WebhookBody
from shared.whatsapp.signature import matching_secret

log = structlog.get_logger()

PATH = "/api/webhooks/whatsapp"
_LINGER_S = 1.0


class Keeps(Protocol):
    """Whatever makes a body durable."""

    async def keep(self, body: WebhookBody) -> None:
        """Return once the body is durable. Raises: Unavailable."""


class WebhookEndpoint:
    """Answers Meta on PATH and passes every other request on.

    200 only once the body is durable, whatever it holds; 401 bad signature; 413 too large; 503 nothing durable.
    """

    def __init__(
        self, app: Any, *, durable: Keeps, app_secrets: Sequence[bytes], verify_token: bytes, max_body_bytes: int
    ) -> None:
        self._app = app
        self._durable = durable
        self._app_secrets = app_secrets
        self._verify_token = verify_token
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
        elif scope["method"] == "POST":
            started = time.perf_counter()
            status = await self._accept(scope, receive, send)
            metrics.WEBHOOK_ACCEPT_SECONDS.labels(str(status)).observe(time.perf_counter() - started)
        elif scope["method"] in ("GET", "HEAD"):
            await self._challenge(scope, send)
        else:
            await answer(send, 405, problem(405, code="method_not_allowed"), headers={b"allow": b"GET, POST"})

    async def _accept(self, scope: Any, receive: Any, send: Send) -> int:
        headers = dict(scope["headers"])
        body = await _read(receive, headers, limit=self._max_body_bytes)
        if isinstance(body, _Gone):
            return 499  # nobody listens any more; nothing was promised
        if body is None:
            await _refuse_too_large(receive, send, limit=self._max_body_bytes)
            return 413
        secret = matching_secret(body, headers.get(b"x-hub-signature-256"), self._app_secrets)
        if secret is None:
            log.warning("webhook.signature_refused", size_bytes=len(body))
            await answer(send, 401, problem(401, code="bad_signature"))
            return 401
        metrics.WEBHOOK_SECRET_USED.labels(str(secret)).inc()
        received = WebhookBody(
            id=new_id(),
            received_at=datetime.now(UTC),
            raw=body,
            traceparent=traceparent(headers.get(b"traceparent")),
        )
        try:
            await self._durable.keep(received)
        except Unavailable as error:
            log.error("webhook.not_durable", error_code=error.code)
            await answer(send, 503, problem(503, code=error.code), headers={b"retry-after": b"5"})
            return 503
        await answer(send, 200, b"", media_type="text/plain")
        return 200

    async def _challenge(self, scope: Any, send: Send) -> None:
        """Answer Meta's verification of the callback URL with its own challenge."""
        query = {
            name: values[0]
            for name, values in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).items()
        }
        mode, token, challenge = (query.get(f"hub.{name}") for name in ("mode", "verify_token", "challenge"))
        if mode is None or token is None or challenge is None:
            await answer(
                send,
                400,
                problem(400, code="not_a_verification", hint="Meta sends hub.mode, hub.verify_token, hub.challenge."),
            )
        elif mode != "subscribe" or not self._is_our_token(token):
            log.warning("webhook.verification_refused")
            await answer(send, 403, problem(403, code="verify_token_mismatch"))
        elif not (challenge.isascii() and challenge.isdigit() and len(challenge) <= 64):
            # Meta's challenge is an integer; echoing anything else would be a gift to attackers.
            await answer(send, 400, problem(400, code="challenge_not_a_number"))
        else:
            await answer(send, 200, challenge.encode(), media_type="text/plain; charset=utf-8")

    def _is_our_token(self, token: str) -> bool:
        # An unset token never matches, not even an empty one.
        return bool(self._verify_token) and hmac.compare_digest(token.encode(), self._verify_token)


class _Gone:
    """The client closed the connection before its body was complete."""


async def _read(receive: Any, headers: dict[bytes, bytes], *, limit: int) -> bytes | _Gone | None:
    """Return the raw body, None when it is larger than `limit` bytes."""
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        return None
    chunks = []
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return _Gone()
        chunk = message.get("body", b"")
        size_bytes += len(chunk)
        if size_bytes > limit:
            return None
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _refuse_too_large(receive: Any, send: Send, *, limit: int) -> None:
    """Answer 413 at once, then read a little more before closing: a sender in full flow would see a reset instead."""
    body = problem(413, code="body_too_large")

    async def unfinished(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            message["more_body"] = True
        await send(message)

    await answer(unfinished, 413, body, headers={b"connection": b"close"})
    thrown_away = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while thrown_away <= limit:
                message = await receive()
                thrown_away += len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
    await send({"type": "http.response.body", "body": b""})
