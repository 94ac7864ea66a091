"""A Meta whose files go wrong in ways the sandbox's never do: it lies about lengths, redirects, breaks off."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class BadMeta:
    """Answers GET /graph/<id> with an address at itself, and that address with what `file` holds, in turn."""

    content: bytes = b""
    url: str = ""
    answers: list[bytes] = field(default_factory=list)  # whole HTTP answers for the file; the last one stays
    address: str = ""  # of the file; empty: at itself
    sha256: str = ""  # empty: the right one
    asked: list[str] = field(default_factory=list)  # paths, each with its token
    piece: bytes = b""  # sent over and over after the answer, until somebody hangs up
    sent: int = 0
    hangs: bool = False  # says nothing more, until somebody hangs up

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        token = next((line for line in head.split("\r\n") if line.lower().startswith("authorization")), "none")
        self.asked.append(f"{path.partition('?')[0]} {token.removeprefix('Authorization: ')}")
        if path.startswith("/graph/"):
            digest = self.sha256 or hashlib.sha256(self.content).hexdigest()
            known = {"url": self.address or f"{self.url}/file", "mime_type": "image/png", "sha256": digest}
            writer.write(ok(json.dumps(known).encode(), kind="application/json"))
        else:
            writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            try:
                if self.hangs:
                    await reader.read()
                while self.piece:
                    writer.write(self.piece)
                    self.sent += len(self.piece)
                    await writer.drain()
            except ConnectionError:
                pass
        writer.close()


def ok(content: bytes, *, length: int | None = None, kind: str = "image/png", status: str = "200 OK") -> bytes:
    """A whole answer; length: what it says of itself."""
    said = len(content) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {said}\r\nConnection: close\r\n\r\n"
    return head.encode() + content


def moved(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


@asynccontextmanager
async def bad_meta() -> AsyncIterator[BadMeta]:
    """Serve it on the loopback."""
    meta = BadMeta()
    server = await asyncio.start_server(meta.answer, "127.0.0.1", 0)
    meta.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield meta
