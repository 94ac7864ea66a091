"""Refuse what did not come over HTTPS."""

from __future__ import annotations

from typing import Any

from shared.web.problem import answer, problem

# Probes come from the machine itself, past the proxy that ends TLS.
_OPEN_PATHS = frozenset({"/live", "/ready"})


class RequireHttps:
    """ASGI middleware. Whose X-Forwarded-Proto counts is decided below it, by uvicorn's list of trusted proxies."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 403 to plain HTTP, pass everything else on."""
        if scope["type"] == "http" and scope["scheme"] != "https" and scope["path"] not in _OPEN_PATHS:
            body = problem(
                403, code="https_required", hint="Use https://. Behind a proxy, list it in HTTP_TRUSTED_PROXIES."
            )
            await answer(send, 403, body)
            return
        await self._app(scope, receive, send)
