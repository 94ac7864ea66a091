"""The webhook endpoint over real HTTP: 200 is a promise, everything else says whose move it is."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, NamedTuple

import httpx
import pytest
from prometheus_client import REGISTRY

from deploy.local.ports import HOST, any_free_port
from services.ingest.accept_webhook import PATH, WebhookEndpoint
from shared.domain.errors import Unavailable
from shared.web import serve
from shared.web.health import Health
from shared.web.https import RequireHttps
from shared.web.serve import serving

SECRET = b"secret-of-this-test"
LIMIT = 1000
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Kept(NamedTuple):
    raw: bytes
    traceparent: str | None


class Memory:
    """Keeps bodies in memory; may be told to wait, or to refuse."""

    def __init__(self) -> None:
        self.may_return = asyncio.Event()
        self.forget()

    def forget(self) -> None:
        self.bodies: list[Kept] = []
        self.may_return.set()
        self.refuses: Unavailable | None = None

    async def keep(self, raw: bytes, traceparent: str | None) -> None:
        self.bodies.append(Kept(raw, traceparent))
        await self.may_return.wait()
        if self.refuses:
            raise self.refuses


@pytest.fixture(autouse=True)
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does, the server never logs an error of its own."""
    yield
    assert [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR] == []


def endpoint(memory: Memory) -> WebhookEndpoint:
    return WebhookEndpoint(
        Health({}).app, durable=memory, app_secrets=[b"older", SECRET], verify_token=b"token", max_body_bytes=LIMIT
    )


@asynccontextmanager
async def client_of(
    app: Any, *, trusted_proxies: str = "", receive_within_s: float = 30
) -> AsyncIterator[httpx.AsyncClient]:
    port = any_free_port()
    async with (
        serving(
            app,
            host=HOST,
            port=port,
            drain_s=1,
            trusted_proxies=trusted_proxies,
            receive_within_s=receive_within_s,
        ),
        httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=5, trust_env=False) as http,
    ):
        yield http


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[tuple[Memory, httpx.AsyncClient]]:
    """One server for all: starting and draining one costs more than most of these tests."""
    memory = Memory()
    async with client_of(endpoint(memory)) as client:
        yield memory, client


@pytest.fixture
def memory(served: tuple[Memory, httpx.AsyncClient]) -> Memory:
    served[0].forget()
    return served[0]


@pytest.fixture
def http(served: tuple[Memory, httpx.AsyncClient]) -> httpx.AsyncClient:
    return served[1]


def signed(body: bytes, secret: bytes = SECRET) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={hmac.digest(secret, body, hashlib.sha256).hex()}"}


async def until(condition: Callable[[], bool], *, within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def in_pieces(body: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def pour(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"64\r\n" + b"x" * 100 + b"\r\n")
        await writer.drain()


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


def gone_clients() -> float:
    return sample("webhook_accept_seconds_count", answer="499")


async def test_no_200_before_the_body_is_durable(http: httpx.AsyncClient, memory: Memory) -> None:
    memory.may_return.clear()

    posting = asyncio.create_task(http.post(PATH, content=b"{}", headers=signed(b"{}")))
    await until(lambda: bool(memory.bodies))
    others = [await http.get("/live") for _ in range(3)]  # the server answers others meanwhile
    was_answered = posting.done()
    memory.may_return.set()
    answer = await posting

    assert [other.status_code for other in others] == [200, 200, 200]
    assert not was_answered
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"null",
        b"[]",
        b'{"object":"page"}',
        b"\x00\xff\xfe" + bytes(range(256)),
        b'{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[]}]}',
        '{"text":"café 👋"}'.encode(),
        rb'{"text":"caf\u00e9 \ud83d\udc4b \/"}',
        b"x" * LIMIT,
    ],
    ids=lambda body: f"{len(body)}_{body[:12]!r}",
)
@pytest.mark.parametrize("is_chunked", [False, True], ids=["declared", "chunked"])
async def test_whatever_meta_signed_is_kept_byte_for_byte(
    http: httpx.AsyncClient, memory: Memory, body: bytes, is_chunked: bool
) -> None:
    answer = await http.post(PATH, content=in_pieces(body) if is_chunked else body, headers=signed(body))

    assert answer.status_code == 200
    assert [kept.raw for kept in memory.bodies] == [body]


async def test_an_older_secret_still_counts(http: httpx.AsyncClient, memory: Memory) -> None:
    answer = await http.post(PATH, content=b"{}", headers=signed(b"{}", b"older"))

    assert answer.status_code == 200
    assert len(memory.bodies) == 1


async def test_meta_is_answered_401_and_nothing_kept_when_the_signature_is_not_its(
    http: httpx.AsyncClient, memory: Memory
) -> None:
    good = signed(b"{}")["X-Hub-Signature-256"]
    wrong: list[dict[str, Any]] = [
        {},
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": good.removeprefix("sha256=")},
        {"X-Hub-Signature-256": good[:-1]},
        {"X-Hub-Signature-256": good + "0"},
        {"X-Hub-Signature-256": b"sha256=" + b"\xe9" * 64},
        {"X-Hub-Signature-256": f"{good}, {good}"},
        {"X-Hub-Signature": good},
        signed(b"{}", b"somebody else's"),
        signed(b"{ }"),
    ]

    answers = [await http.post(PATH, content=b"{}", headers=headers) for headers in wrong]

    assert [answer.status_code for answer in answers] == [401] * len(wrong)
    assert {answer.json()["code"] for answer in answers} == {"bad_signature"}
    assert memory.bodies == []


async def test_a_body_declared_too_large_is_refused_before_it_is_sent(http: httpx.AsyncClient, memory: Memory) -> None:
    reader, writer = await asyncio.open_connection(HOST, http.base_url.port)

    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT + 1}\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = await reader.read()  # to the end: the server closes, so the rest need not be sent
    writer.close()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code": "body_too_large"' in answer
    assert memory.bodies == []


async def test_a_body_that_says_nothing_about_its_size_is_cut_off_at_the_limit(
    http: httpx.AsyncClient, memory: Memory
) -> None:
    body = b"x" * (LIMIT + 1)
    reader, writer = await asyncio.open_connection(HOST, http.base_url.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"

    # The chunk that ends the body never comes: the answer must not wait for it.
    writer.write(f"{head}X-Hub-Signature-256: {signed(body)['X-Hub-Signature-256']}\r\n\r\n".encode())
    for start in range(0, len(body), 100):
        piece = body[start : start + 100]
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code": "body_too_large"' in answer
    assert memory.bodies == []


async def test_an_endless_body_is_not_read_to_its_end(http: httpx.AsyncClient, memory: Memory) -> None:
    _, writer = await asyncio.open_connection(HOST, http.base_url.port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())

    with pytest.raises(ConnectionError):  # the server hangs up
        await asyncio.wait_for(pour(writer), 5)

    assert memory.bodies == []
    assert (await http.get("/live")).status_code == 200


@pytest.mark.parametrize(("retry_after_s", "told"), [(None, "5"), (1, "1")])
async def test_meta_is_told_to_come_back_when_nothing_is_durable(
    http: httpx.AsyncClient, memory: Memory, retry_after_s: float | None, told: str
) -> None:
    memory.refuses = Unavailable("nothing is durable", code="not_durable", retry_after_s=retry_after_s)

    answer = await http.post(PATH, content=b"{}", headers=signed(b"{}"))

    assert (answer.status_code, answer.json()["code"]) == (503, "not_durable")
    assert answer.headers["retry-after"] == told


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_another_method_is_told_which_ones_there_are(
    http: httpx.AsyncClient, memory: Memory, method: str
) -> None:
    answer = await http.request(method, PATH, content=b"{}", headers=signed(b"{}"))

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert memory.bodies == []


async def test_every_other_path_is_the_inner_apps(http: httpx.AsyncClient, memory: Memory) -> None:
    paths = {"/live": 200, "/ready": 200, f"{PATH}/": 404, f"{PATH}/x": 404, PATH.upper(): 404, "/": 404}

    answers = {path: (await http.get(path)).status_code for path in paths}
    posted = [(await http.post(path, content=b"{}", headers=signed(b"{}"))).status_code for path in list(paths)[2:]]

    assert answers == paths
    assert posted == [404] * 4
    assert memory.bodies == []


@pytest.mark.parametrize("is_abrupt", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("head", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_client_that_leaves_mid_body_leaves_nothing_behind(
    http: httpx.AsyncClient, memory: Memory, head: str, is_abrupt: bool
) -> None:
    before = gone_clients()
    _, writer = await asyncio.open_connection(HOST, http.base_url.port)

    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n5\r\n12345\r\n".encode())
    await writer.drain()
    if is_abrupt:
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
    await until(lambda: gone_clients() == before + 1)

    assert memory.bodies == []
    assert (await http.post(PATH, content=b"{}", headers=signed(b"{}"))).status_code == 200


async def test_a_client_that_leaves_while_its_body_is_being_kept_does_not_undo_it(
    http: httpx.AsyncClient, memory: Memory
) -> None:
    memory.may_return.clear()
    _, writer = await asyncio.open_connection(HOST, http.base_url.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX-Hub-Signature-256: "

    writer.write(f"{head}{signed(b'{}')['X-Hub-Signature-256']}\r\n\r\n{{}}".encode())
    await until(lambda: len(memory.bodies) == 1)
    writer.close()
    memory.may_return.set()

    assert (await http.post(PATH, content=b"[]", headers=signed(b"[]"))).status_code == 200
    assert [kept.raw for kept in memory.bodies] == [b"{}", b"[]"]


async def test_metas_trace_is_continued_and_a_false_one_replaced(http: httpx.AsyncClient, memory: Memory) -> None:
    for trace in (TRACE, "00-zz-1-01"):
        await http.post(PATH, content=b"{}", headers=signed(b"{}") | {"traceparent": trace})

    continued, replaced = [kept.traceparent for kept in memory.bodies]
    assert continued == TRACE
    assert replaced is not None
    assert len(replaced) == len(TRACE)
    assert replaced != TRACE


@pytest.mark.parametrize("headers", [{}, {"traceparent": ""}], ids=["absent", "empty"])
async def test_without_a_trace_of_metas_none_is_passed_on(
    http: httpx.AsyncClient, memory: Memory, headers: dict[str, str]
) -> None:
    # Whoever reads the body begins one, from its id: `shared.queue.streams.body_of`.
    await http.post(PATH, content=b"{}", headers=signed(b"{}") | headers)

    assert [kept.traceparent for kept in memory.bodies] == [None]


async def test_head_is_answered_as_get_without_a_body(http: httpx.AsyncClient) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "token", "hub.challenge": "17"}

    answer = await http.head(PATH, params=query)

    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("trusted_proxies", "proto", "status"),
    [
        ("", None, 403),
        ("", "https", 403),  # anybody may write this header; nobody is trusted
        ("10.0.0.0/8", "https", 403),  # the test is not in that network
        ("10.0.0.0/8,192.0.2.1", "https", 403),
        (HOST, "https", 200),
        (HOST, "http", 403),
        (HOST, None, 403),
        (HOST, "HTTPS://evil", 403),
        ("127.0.0.0/8", "https", 200),
        (f"10.0.0.0/8, {HOST}", "https", 200),
    ],
)
async def test_only_a_trusted_proxy_can_say_that_it_was_https(
    memory: Memory, trusted_proxies: str, proto: str | None, status: int
) -> None:
    headers = signed(b"{}") | ({"X-Forwarded-Proto": proto} if proto else {})

    async with client_of(RequireHttps(endpoint(memory)), trusted_proxies=trusted_proxies) as http:
        answer = await http.post(PATH, content=b"{}", headers=headers)

    assert answer.status_code == status
    assert len(memory.bodies) == (status == 200)
    if status == 403:
        assert answer.json()["code"] == "https_required"


async def test_probes_may_come_over_plain_http_and_nothing_else_may(memory: Memory) -> None:
    paths = {"/live": 200, "/ready": 200, "/": 403, "/metrics": 403, PATH: 403, "/live/": 403, "/api/live": 403}

    async with client_of(RequireHttps(endpoint(memory))) as http:
        answers = {path: (await http.get(path)).status_code for path in paths}

    assert answers == paths


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_client_that_sends_twice_the_limit_still_reads_the_413(is_chunked: bool) -> None:
    body = b"x" * (2 * LIMIT)

    async def pieces():
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    async with client_of(endpoint(Memory())) as http:
        answer = await http.post(PATH, content=pieces() if is_chunked else body, headers=signed(body))

    assert answer.status_code == 413
    assert answer.json()["code"] == "body_too_large"


HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
SLOW = {
    "sends nothing at all": ("",),
    "stops within its head": (HEAD,),
    "stops after its head": (f"{HEAD}\r\n",),
    "drips": (f"{HEAD}\r\n12345", *"6789"),
}


async def test_clients_that_are_too_slow_are_answered_408_and_others_do_not_wait_for_them() -> None:
    memory = Memory()

    async with client_of(endpoint(memory), receive_within_s=0.5) as http:
        slow = [asyncio.create_task(drip(http, sent)) for sent in SLOW.values()]
        others = [(await http.post(PATH, content=b"{}", headers=signed(b"{}"))).status_code for _ in range(20)]
        were_answered = [task.done() for task in slow]
        answers = dict(zip(SLOW, await asyncio.gather(*slow), strict=True))
        afterwards = (await http.post(PATH, content=b"{}", headers=signed(b"{}"))).status_code

    assert {what: answer.split(b" ")[1] for what, answer in answers.items()} == dict.fromkeys(SLOW, b"408")
    assert all(b'"code": "request_too_slow"' in answer for answer in answers.values())
    assert were_answered == [False] * len(SLOW)
    assert [*others, afterwards] == [200] * 21
    assert [kept.raw for kept in memory.bodies] == [b"{}"] * 21


async def drip(http: httpx.AsyncClient, sent: tuple[str, ...]) -> bytes:
    """Send this, piece after piece, and return all that comes until the server hangs up."""
    reader, writer = await asyncio.open_connection(HOST, http.base_url.port)
    for piece in sent:
        writer.write(piece.encode())
        await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


async def test_slow_bodies_that_arrive_in_time_are_kept(http: httpx.AsyncClient, memory: Memory) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for piece in (b"{", b'"a":', b"1", b"}"):
            await asyncio.sleep(0.02)
            yield piece

    answer = await http.post(PATH, content=slowly(), headers=signed(b'{"a":1}'))

    assert answer.status_code == 200
    assert [kept.raw for kept in memory.bodies] == [b'{"a":1}']


async def test_a_deadline_for_receiving_does_not_cut_off_who_waits_for_an_answer() -> None:
    memory = Memory()
    memory.may_return.clear()

    async with client_of(endpoint(memory), receive_within_s=0.1) as http:
        posting = asyncio.create_task(http.post(PATH, content=b"{}", headers=signed(b"{}")))
        await asyncio.sleep(1.5)  # longer than the deadline and the look for it
        memory.may_return.set()
        answer = await posting

    assert answer.status_code == 200


async def test_a_connection_nobody_uses_is_closed_and_one_in_use_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_IDLE_S", 0.5)

    async with client_of(endpoint(Memory())) as http:
        reader, writer = await asyncio.open_connection(HOST, http.base_url.port)
        answers = []
        for _ in range(4):
            await asyncio.sleep(0.3)  # in all, longer than one may idle
            writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            answers.append(await reader.readuntil(b"true}"))
        async with asyncio.timeout(5):
            rest = await reader.read()  # to the end: the server hangs up
    writer.close()

    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert rest == b""


async def test_requests_sent_ahead_are_answered_in_turn(http: httpx.AsyncClient, memory: Memory) -> None:
    reader, writer = await asyncio.open_connection(HOST, http.base_url.port)
    bodies = [b"%d" % number for number in range(5)]

    for body in bodies:
        signature = signed(body)["X-Hub-Signature-256"]
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n".encode())
        writer.write(f"X-Hub-Signature-256: {signature}\r\n\r\n".encode() + body)
    answers = [await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) for _ in bodies]
    writer.close()

    assert [answer.split(b" ")[1] for answer in answers] == [b"200"] * 5
    assert [kept.raw for kept in memory.bodies] == bodies


async def test_what_is_measured_says_how_long_how_many_and_whose(http: httpx.AsyncClient, memory: Memory) -> None:
    names = {
        "accepted": ("webhook_accept_seconds_count", {"answer": "200"}),
        "within Meta's median": ("webhook_accept_seconds_bucket", {"answer": "200", "le": "0.25"}),
        "within Meta's limit": ("webhook_accept_seconds_bucket", {"answer": "200", "le": "1.0"}),
        "refused": ("webhook_accept_seconds_count", {"answer": "401"}),
        "first secret": ("webhook_secret_used_total", {"index": "0"}),
        "second secret": ("webhook_secret_used_total", {"index": "1"}),
        "bad signatures": ("webhook_signature_refused_total", {}),
    }
    before = {what: sample(name, **labels) for what, (name, labels) in names.items()}
    verified_s = sample("webhook_verify_seconds_total")

    for secret in (b"older", SECRET, SECRET, b"somebody else's"):
        await http.post(PATH, content=b"{}", headers=signed(b"{}", secret))

    grew = {what: sample(name, **labels) - before[what] for what, (name, labels) in names.items()}
    assert grew == {
        "accepted": 3,
        "within Meta's median": 3,
        "within Meta's limit": 3,
        "refused": 1,
        "first secret": 1,
        "second secret": 2,
        "bad signatures": 1,
    }
    assert sample("webhook_verify_seconds_total") > verified_s
