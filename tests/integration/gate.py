"""A gate between a process and its server that holds what is said at one moment, so that it can be killed there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Gate:
    """Passes bytes on, until a client says `word`: then that connection's request, or its answer, goes no further.

    What is held is dropped when the client goes: nothing it said arrives later.
    """

    host: str
    port: int
    word: bytes = b""  # empty: nothing is held
    what: Literal["request", "answer"] = "request"
    own_port: int = 0
    held: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def open(self) -> None:
        """Hold nothing any more; what is held stays so."""
        self.word = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, upwriter = await asyncio.open_connection(self.host, self.port)
        holds_answers = False

        async def ask() -> None:
            nonlocal holds_answers
            while said := await reader.read(65_536):
                if self.word and self.word in said:
                    if self.what == "request":
                        self.held += 1
                        await reader.read(-1)  # until the client goes
                        return
                    holds_answers = True
                upwriter.write(said)
                await upwriter.drain()

        async def answer() -> None:
            while said := await upstream.read(65_536):
                if holds_answers:
                    self.held += 1
                    await asyncio.Event().wait()
                writer.write(said)
                await writer.drain()

        with contextlib.suppress(ConnectionError):
            both = {asyncio.create_task(ask()), asyncio.create_task(answer())}
            _, left = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        upwriter.close()
        writer.close()


@contextlib.asynccontextmanager
async def gate(host: str, port: int) -> AsyncIterator[Gate]:
    """Open one in front of a server."""
    made = Gate(host, port)
    server = await asyncio.start_server(made, "127.0.0.1", 0)
    made.own_port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
