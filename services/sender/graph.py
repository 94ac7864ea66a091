"""Meta's Graph API over HTTP: one pooled client per process, and one table that says what left the house when it fails.

httpx's interface over aiohttp's transport; why, with figures: docs/decisions/0009.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
import orjson
from httpx_aiohttp import AiohttpTransport

from shared.settings.clocks import Clocks
from shared.whatsapp.errors import Failure
from shared.whatsapp.wire import Json

# Shorter than any server's patience with an idle connection that we know of (uvicorn's 5 s is the shortest): a request
# that crosses the server's hanging up is in doubt for minutes, a new connection costs two round trips.
_KEEP_IDLE_S = 4.0

# What aiohttp says, from the narrowest class to the widest. Not what httpx-aiohttp makes of it: that turns a connection
# reset after the request into ConnectTimeout (0.2.0, read 2026-11-24), and a message would be sent twice.
_FAILURES: tuple[tuple[type[BaseException], Failure], ...] = (
    (aiohttp.ClientConnectorDNSError, Failure.DNS),
    (aiohttp.ClientSSLError, Failure.TLS),
    (aiohttp.ServerFingerprintMismatch, Failure.TLS),
    (aiohttp.ClientConnectorError, Failure.CONNECT),
    (aiohttp.ConnectionTimeoutError, Failure.CONNECT),  # none free, or not connected in time: nothing was written
    (aiohttp.NonHttpUrlClientError, Failure.CONNECT),
    (aiohttp.InvalidURL, Failure.CONNECT),
    (aiohttp.ServerTimeoutError, Failure.TIMEOUT),
    (TimeoutError, Failure.TIMEOUT),
    (aiohttp.ClientPayloadError, Failure.RESET),
    (aiohttp.ClientConnectionError, Failure.RESET),
    (aiohttp.ClientError, Failure.UNREADABLE),  # what came is not HTTP
    (httpx.DecodingError, Failure.UNREADABLE),
)
_ERRORS = (httpx.RequestError, aiohttp.ClientError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to, for `shared.whatsapp.errors.classify`: body is None where it is not JSON."""

    status: int | None
    body: object | None
    failure: Failure | None = None


class Graph:
    """Calls Graph; paths are relative to the base URL ("402776318915527/messages"). No call raises for the network.

    Each call ends within `send_timeout_s`, connecting included; redirects are not followed; tokens are in no URL, no
    log line and no error.
    """

    def __init__(self, client: httpx.AsyncClient, base_url: str, *, send_timeout_s: float) -> None:
        self._client = client
        self.base_url = base_url.rstrip("/") + "/"
        self._send_timeout_s = send_timeout_s

    async def get(self, path: str, *, token: str, params: Mapping[str, str] | None = None) -> Answer:
        """Read something; may be repeated."""
        return await self._call("GET", path, token, params=params)

    async def post(self, path: str, body: Json, *, token: str) -> Answer:
        """Send a JSON body."""
        return await self._call("POST", path, token, content=orjson.dumps(body), content_type="application/json")

    async def delete(
        self, path: str, *, token: str, params: Mapping[str, str] | None = None, body: Json | None = None
    ) -> Answer:
        """Delete something; Graph takes a body here, too (block_users)."""
        content = None if body is None else orjson.dumps(body)
        kind = None if body is None else "application/json"
        return await self._call("DELETE", path, token, params=params, content=content, content_type=kind)

    async def upload(
        self,
        path: str,
        *,
        token: str,
        file: AsyncIterable[bytes] | bytes,
        mime_type: str,
        filename: str,
        fields: Mapping[str, str],
        size_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send a file as multipart/form-data, field `file` last.

        `size_bytes`: of a file that comes in pieces; without it the body is chunked. `timeout_s`: instead of the
        deadline of other calls, which a large file over a slow line does not meet.
        """
        boundary = secrets.token_hex(16)
        head = _multipart_head(boundary, fields, mime_type, filename)
        tail = f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        if isinstance(file, bytes):
            return await self._call(
                "POST", path, token, content=head + file + tail, content_type=kind, timeout_s=timeout_s
            )
        length = None if size_bytes is None else len(head) + size_bytes + len(tail)
        pieces = _joined(head, file, tail)
        return await self._call(
            "POST", path, token, content=pieces, content_type=kind, content_length=length, timeout_s=timeout_s
        )

    async def put_sample(
        self, session: str, *, token: str, file: AsyncIterable[bytes], size_bytes: int, timeout_s: float | None = None
    ) -> Answer:
        """Send a file, bare, to an upload session (`upload:…`), from its start.

        Source: Meta, "Resumable Upload API", read 2026-11-24: it wants its own word before the token.
        """
        more = {"Authorization": f"OAuth {token}", "file_offset": "0"}
        pieces = _joined(b"", file, b"")
        return await self._call(
            "POST", session, token, content=pieces, content_length=size_bytes, timeout_s=timeout_s, headers=more
        )

    def stream(self, url: str, *, token: str) -> AbstractAsyncContextManager[httpx.Response]:
        """Open an address Meta gave for a file. Raises: httpx's and aiohttp's errors; see `failure_of`."""
        return self._client.stream("GET", url, headers={"Authorization": f"Bearer {token}"})

    async def _call(
        self,
        method: str,
        path: str,
        token: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        content_type: str | None = None,
        content_length: int | None = None,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        headers = {"Authorization": f"Bearer {token}", **(headers or {})}
        if content_type is not None:
            headers["Content-Type"] = content_type
        if content_length is not None:
            headers["Content-Length"] = str(content_length)
        try:
            async with asyncio.timeout(timeout_s or self._send_timeout_s):
                answer = await self._client.request(
                    method, self.base_url + path, params=params, content=content, headers=headers
                )
        except _ERRORS as error:
            return Answer(None, None, failure_of(error))
        return Answer(answer.status_code, _json(answer.content))


def failure_of(error: BaseException) -> Failure:
    """Return why there is no answer; what is unknown may have been sent.

    error: what the client raised (an httpx error caused by one of aiohttp's, or one of aiohttp's), or a TimeoutError.
    """
    told = error.__cause__ if isinstance(error, httpx.TransportError) and error.__cause__ is not None else error
    return next((failure for kind, failure in _FAILURES if isinstance(told, kind)), Failure.RESET)


@asynccontextmanager
async def open_graph(base_url: str, *, clocks: Clocks, connections: int) -> AsyncIterator[Graph]:
    """Open the process's client. `connections`: the most at once; bound what is in flight by the same number."""

    def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections, keepalive_timeout=_KEEP_IDLE_S, ssl=transport.ssl_context
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    transport = AiohttpTransport(client=session, trust_env=False)
    timeout = httpx.Timeout(
        clocks.send_timeout_s,  # between two pieces of what is read
        connect=clocks.send_connect_timeout_s,
        pool=clocks.send_connect_timeout_s,  # to aiohttp: for a connection, whether one falls free or is made
    )
    async with httpx.AsyncClient(
        transport=transport,
        timeout=timeout,
        trust_env=False,
        follow_redirects=False,
        headers={"User-Agent": "parley"},
    ) as client:
        yield Graph(client, base_url, send_timeout_s=clocks.send_timeout_s)


def _json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _multipart_head(boundary: str, fields: Mapping[str, str], mime_type: str, filename: str) -> bytes:
    """Return all that comes before the file's bytes. A name's quotes and line ends are escaped as browsers do."""
    escaped = filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{escaped}"\r\n'
        f"Content-Type: {mime_type}\r\n\r\n"
    )
    return "".join(parts).encode()


async def _joined(head: bytes, file: AsyncIterable[bytes], tail: bytes) -> AsyncIterator[bytes]:
    yield head
    async for piece in file:
        yield piece
    yield tail
