"""The client of the Graph API on real sockets: what certainly never left, and what may have, is told apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from email.parser import BytesParser
from email.policy import HTTP

import httpx
import pytest

from deploy.local.ports import any_free_port
from services.sender.graph import Answer, Graph, failure_of, open_graph
from shared.settings.clocks import Clocks
from shared.whatsapp.errors import Failure, Kind, classify

CLOCKS = replace(Clocks(), send_connect_timeout_s=0.3, send_timeout_s=0.6)
TOKEN = "EAAG-secret"
ACCEPTED = b'{"messages":[{"id":"wamid.1"}]}'

Behave = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Reads a request's head and body, then does as told."""

    def __init__(self, behave: Behave) -> None:
        self._behave = behave
        self.requests: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lowered = head.lower()
                body = b""
                if b"content-length: " in lowered:
                    body = await reader.readexactly(int(lowered.split(b"content-length: ")[1].split(b"\r\n")[0]))
                elif b"transfer-encoding: chunked" in lowered:
                    while size := int(await reader.readline(), 16):
                        body += await reader.readexactly(size)
                        await reader.readline()
                    await reader.readline()
                self.requests.append(head + body)
                await self._behave(head + body, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(behave: Behave, *, connections: int = 4) -> AsyncIterator[tuple[Graph, Server]]:
    server = Server(behave)
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with open_graph(f"http://127.0.0.1:{port}/v26.0", clocks=CLOCKS, connections=connections) as graph:
        yield graph, server
    listening.close()


def answering(raw: bytes, *, then: str = "stay") -> Behave:
    async def behave(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        if then == "close":
            await writer.drain()
            writer.close()
        elif then == "reset":
            writer.transport.abort()
        elif then == "hang":
            await writer.drain()
            await asyncio.Event().wait()

    return behave


def http(body: bytes, *, status: str = "200 OK", length: int | None = None) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), length or len(body), body)


async def send(graph: Graph) -> Answer:
    return await graph.post("42/messages", {"to": "1"}, token=TOKEN)


async def test_an_answer_is_read_whatever_its_status() -> None:
    refusal = b'{"error":{"code":131047}}'
    async with serving(answering(http(refusal, status="400 Bad Request"))) as (graph, server):
        answer = await send(graph)

    assert answer == Answer(400, {"error": {"code": 131047}})
    assert server.requests[0].startswith(b"POST /v26.0/42/messages HTTP/1.1\r\n")
    assert b"authorization: Bearer EAAG-secret\r\n" in server.requests[0]
    assert server.requests[0].endswith(b'\r\n\r\n{"to":"1"}')


@pytest.mark.parametrize(
    ("raw", "then", "answer", "kind"),
    [
        (b"", "reset", Answer(None, None, Failure.RESET), Kind.IN_DOUBT),
        (b"", "close", Answer(None, None, Failure.RESET), Kind.IN_DOUBT),
        (b"", "hang", Answer(None, None, Failure.TIMEOUT), Kind.IN_DOUBT),
        (http(ACCEPTED[:9], length=99), "hang", Answer(None, None, Failure.TIMEOUT), Kind.IN_DOUBT),
        (http(ACCEPTED[:9], length=99), "close", Answer(None, None, Failure.RESET), Kind.IN_DOUBT),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "close", Answer(None, None, Failure.UNREADABLE), Kind.IN_DOUBT),
        (http(b"<html>", status="502 Bad Gateway"), "stay", Answer(502, None), Kind.IN_DOUBT),
        (http(b"<html>"), "stay", Answer(200, None), Kind.IN_DOUBT),
        (http(b"", status="302 Found"), "stay", Answer(302, None), Kind.PERMANENT),
    ],
    ids=["reset", "closed", "hangs", "hangs_midway", "cut_midway", "not_http", "gateway", "not_json", "redirect"],
)
async def test_after_the_request_left_nothing_but_an_answer_says_it_was_not_sent(
    raw: bytes, then: str, answer: Answer, kind: Kind
) -> None:
    async with serving(answering(raw, then=then)) as (graph, server):
        got = await send(graph)

    assert got == answer
    assert classify(got.status, got.body, got.failure).kind is kind
    assert len(server.requests) == 1  # and nothing tried again behind our back


async def test_what_never_left_is_told() -> None:
    async with open_graph(f"http://127.0.0.1:{any_free_port()}", clocks=CLOCKS, connections=1) as graph:
        assert await send(graph) == Answer(None, None, Failure.CONNECT)
    async with open_graph("http://graph.invalid", clocks=CLOCKS, connections=1) as graph:
        assert await send(graph) == Answer(None, None, Failure.DNS)

    async def plainly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b"", status="400 Bad Request"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(plainly, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with open_graph(f"https://127.0.0.1:{port}", clocks=CLOCKS, connections=1) as graph:
            assert await send(graph) == Answer(None, None, Failure.TLS)


async def test_waiting_for_a_connection_in_vain_is_not_doubt() -> None:
    async with serving(answering(b"", then="hang"), connections=1) as (graph, server):
        answers = await asyncio.gather(send(graph), send(graph))

    assert [answer.failure for answer in answers] == [Failure.TIMEOUT, Failure.CONNECT]
    assert len(server.requests) == 1


async def test_connections_are_kept_and_bounded() -> None:
    async with serving(answering(http(ACCEPTED)), connections=3) as (graph, server):
        answers = await asyncio.gather(*(send(graph) for _ in range(30)))

    assert answers == [Answer(200, {"messages": [{"id": "wamid.1"}]})] * 30
    assert server.connections == 3


async def test_a_connection_the_server_closed_while_idle_is_not_used() -> None:
    async def once(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(ACCEPTED))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with serving(once) as (graph, server):
        for _ in range(3):
            assert (await send(graph)).status == 200
            await asyncio.sleep(0.01)  # its FIN arrives

    assert server.connections == 3


async def test_a_file_in_pieces_and_a_whole_one_arrive_as_one_form() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"\x89PNG"
        yield b"\r\n--x"

    fields = {"messaging_product": "whatsapp", "type": "image/png"}
    async with serving(answering(http(b'{"id":"7"}'))) as (graph, server):
        for file, size in ((pieces(), None), (pieces(), 9), (b"\x89PNG\r\n--x", None)):
            answer = await graph.upload(
                "42/media", token=TOKEN, file=file, mime_type="image/png", filename='a"b.png', fields=fields,
                size_bytes=size,
            )  # fmt: skip
            assert answer == Answer(200, {"id": "7"})

    for request in server.requests:
        form = BytesParser(policy=HTTP).parsebytes(request.partition(b"\r\n")[2])
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        assert parts["messaging_product"].get_payload() == "whatsapp"
        assert parts["file"].get_payload(decode=True) == b"\x89PNG\r\n--x"
        assert parts["file"].get_content_type() == "image/png"
        assert parts["file"].get_filename() == "a%22b.png"


async def test_a_download_is_streamed_and_its_failure_named() -> None:
    async with serving(answering(http(b"x" * 10, length=99), then="close")) as (graph, _):
        async with graph.stream(f"{graph.base_url}file", token=TOKEN) as response:
            assert response.status_code == 200
            with pytest.raises(httpx.RequestError) as raised:
                await response.aread()

    assert failure_of(raised.value) is Failure.RESET
    assert TOKEN not in repr(raised.value)
