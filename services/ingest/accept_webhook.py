"""The webhook endpoint: the outermost layer, plain ASGI. Verify, make durable, 200; nothing else."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import parse_qs

import structlog

from shared.domain.errors import Unavailable, Untrusted
from shared.telemetry import metrics
from shared.telemetry.trace import traceparent
from shared.web.problem import Send, answer, problem
from shared.whatsapp.signature import matching_secret

log = structlog.get_logger()

PATH = "/api/webhooks/whatsapp"
_LINGER_S = 1.0
_LATER_S = 5  # what Meta is told when nobody knows better; it goes by its own schedule anyway

# A 200 has no body, and no header that is not needed: each costs its share of 20 µs (2026-11-24).
_OK_HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
_OK_END = {"type": "http.response.body", "body": b""}


class Keeps(Protocol):
    """Whatever makes a body durable."""

    def keep(self, raw: bytes, traceparent: str | None) -> Awaitable[None]:
        """Be done once the body is durable. `traceparent`: Meta's, if it sent one. Raises: Unavailable."""


class WebhookEndpoint:
    """Answers Meta on PATH and passes every other request on.

    200 only once the body is durable, whatever it holds; 401 bad signature; 413 too large; 503 nothing durable.
    408, for a body that takes too long to arrive, is the server's (`shared.web.serve`).
    """

    def __init__(
        self,
        app: Any,
        *,
        durable: Keeps,
        app_secrets: Sequence[bytes],
        verify_token: bytes,
        max_body_bytes: int,
    ) -> None:
        self._app = app
        self._durable = durable
        self._app_secrets = app_secrets
        self._verify_token = verify_token
        self._max_body_bytes = max_body_bytes

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] != PATH:
            served: Awaitable[None] = self._app(scope, receive, send)
            return served
        if scope["method"] == "POST":
            return self._accept(scope, receive, send)
        if scope["method"] in ("GET", "HEAD"):
            return self._challenge(scope, send)
        return answer(send, 405, problem(405, code="method_not_allowed"), headers={b"allow": b"GET, POST"})

    async def _accept(self, scope: Any, receive: Any, send: Send) -> None:
        started = time.perf_counter()
        headers = dict(scope["headers"])
        try:
            _refuse_if_declared_too_large(headers, limit=self._max_body_bytes)
            message = await receive()
            body = message.get("body", b"")
            if message.get("more_body") or message["type"] == "http.disconnect" or len(body) > self._max_body_bytes:
                body = await _read_on(receive, message, limit=self._max_body_bytes)
            self._verify(body, headers.get(b"x-hub-signature-256"))
            trace = headers.get(b"traceparent")
            await self._durable.keep(body, traceparent(trace) if trace else None)
        except _Gone:
            status = 499  # nobody listens any more; nothing was promised
        except _TooLarge:
            status = 413
            await _refuse_too_large(receive, send, limit=self._max_body_bytes)
        except Untrusted as error:
            status = 401
            log.warning("webhook.signature_refused")
            await answer(send, status, problem(status, code=error.code))
        except Unavailable as error:
            status = 503
            log.error("webhook.not_durable", error_code=error.code)
            retry_after = b"%d" % (error.retry_after_s or _LATER_S)
            await answer(send, status, problem(status, code=error.code), headers={b"retry-after": retry_after})
        else:
            status = 200
            await send(_OK_HEAD)
            await send(_OK_END)
        metrics.WEBHOOK_ACCEPT_SECONDS.observe(time.perf_counter() - started, status)

    def _verify(self, body: bytes, signature: bytes | None) -> None:
        """Raises: Untrusted."""
        started = time.perf_counter()
        secret = matching_secret(body, signature, self._app_secrets)
        metrics.WEBHOOK_VERIFY_SECONDS.add(time.perf_counter() - started)
        if secret is None:
            metrics.WEBHOOK_SIGNATURE_REFUSED.inc()
            raise Untrusted("none of our app secrets signed this", code="bad_signature")
        metrics.WEBHOOK_SECRET_USED.add(1, secret)

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


class _Gone(Exception):
    """The client closed the connection before its body was complete."""


class _TooLarge(Exception):
    """The body is larger than the limit, or says it will be."""


def _refuse_if_declared_too_large(headers: Mapping[bytes, bytes], *, limit: int) -> None:
    """Raises: _TooLarge."""
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise _TooLarge


async def _read_on(receive: Any, message: Mapping[str, Any], *, limit: int) -> bytes:
    """Return the whole body, of which `message` is the first piece. Raises: _TooLarge, past `limit` bytes; _Gone."""
    pieces: list[bytes] = [message.get("body", b"")]
    size_bytes = len(pieces[0])
    while message.get("more_body") and size_bytes <= limit:
        message = await receive()
        pieces.append(message.get("body", b""))
        size_bytes += len(pieces[-1])
    if message["type"] == "http.disconnect":
        raise _Gone
    if size_bytes > limit:
        raise _TooLarge
    return b"".join(pieces)


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
