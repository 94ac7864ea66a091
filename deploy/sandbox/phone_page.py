"""The phone page: our own files, served with a policy that lets nothing else in."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

_FOLDER = Path(__file__).parent / "page"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes() -> APIRouter:
    """Serve `/` and its style sheet, script and icon."""
    router = APIRouter(include_in_schema=False)

    def serve(path: str, name: str, media_type: str) -> None:
        async def file() -> FileResponse:
            return FileResponse(_FOLDER / name, media_type=media_type, headers=_HEADERS)

        router.add_api_route(path, file, methods=["GET"])

    serve("/", "index.html", "text/html")
    serve("/page/phone.css", "phone.css", "text/css")
    serve("/page/phone.js", "phone.js", "text/javascript")
    serve("/page/bubbles.js", "bubbles.js", "text/javascript")
    serve("/page/icon.svg", "icon.svg", "image/svg+xml")
    serve("/favicon.ico", "icon.svg", "image/svg+xml")
    return router
