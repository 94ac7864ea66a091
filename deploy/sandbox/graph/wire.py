"""Requests and answers of the Graph API, on bare ASGI: a thousand sends a second leave no time for more."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.story import Token

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON_TYPE = "application/json; charset=UTF-8"


@dataclass(slots=True)
class Request:
    """One call, taken apart; `token` is filled in once it is checked."""

    method: str
    version: str
    parts: list[str]
    query: dict[str, str]
    headers: dict[bytes, bytes]
    raw: bytes
    token: Token
    base_url: str

    @property
    def edge(self) -> str:
        return "/".join(self.parts[1:])

    def body(self) -> dict[str, Any]:
        """Read the JSON body, or a form; parameters of the query count as well, as Graph mixes them freely.

        Raises: Refused 100 when it is neither.
        """
        if not self.raw:
            return dict(self.query)
        if self.content_type.startswith("application/x-www-form-urlencoded"):
            return dict(self.query) | dict(parse_qsl(self.raw.decode("utf-8", "replace")))
        try:
            found = json.loads(self.raw)
        except ValueError as error:
            raise Refused(100, "The request body is not valid JSON.") from error
        if not isinstance(found, dict):
            raise Refused(100, "The request body must be a JSON object.")
        return {**self.query, **found} if self.query else found

    @property
    def content_type(self) -> str:
        return self.headers.get(b"content-type", b"").decode("latin-1")


@dataclass(slots=True)
class Answer:
    """What goes back: JSON unless `content_type` says otherwise."""

    body: Any
    status: int = 200
    content_type: str = JSON_TYPE
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body, separators=(",", ":")).encode()


SUCCESS: dict[str, Any] = {"success": True}


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart body."""

    name: str
    filename: str | None
    content_type: str
    content: bytes


def multipart(request: Request) -> dict[str, Part]:
    """Split a multipart/form-data body; `{}` when it is something else.

    Written out because the libraries that do it are not among our dependencies, and files here are small.
    """
    kind, _, parameters = request.content_type.partition(";")
    boundary = _parameter(parameters, "boundary")
    if kind.strip().lower() != "multipart/form-data" or not boundary:
        return {}
    parts: dict[str, Part] = {}
    for chunk in (b"\r\n" + request.raw).split(b"\r\n--" + boundary.encode("latin-1"))[1:]:
        head, separator, content = chunk.partition(b"\r\n\r\n")
        if not separator:
            continue
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n"))
        }
        disposition = headers.get("content-disposition", "")
        name = _parameter(disposition, "name")
        if name:
            parts[name] = Part(name, _parameter(disposition, "filename"), headers.get("content-type", ""), content)
    return parts


def _parameter(header: str, name: str) -> str | None:
    for piece in header.split(";"):
        key, _, value = piece.strip().partition("=")
        if key.lower() == name:
            return value.strip().strip('"')
    return None


async def read_all(receive: Receive, most: int) -> bytes | None:
    """Read a request's body; None when it is longer than that."""
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            return None
        chunks.append(chunk)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def answer_with(send: Send, answer: Answer, version: str) -> None:
    content = answer.content()
    headers = [
        (b"content-type", answer.content_type.encode("latin-1")),
        (b"content-length", str(len(content)).encode()),
        (b"facebook-api-version", version.encode()),
        (b"cache-control", b"private, no-cache, no-store, must-revalidate"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def cut_connection(send: Send) -> None:
    """Close the client's connection without a word.

    ASGI has no message for it, so this reaches for uvicorn's transport; we run as its outermost application, so `send`
    is the method of its own request. Elsewhere the connection stays open until the client gives up.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
