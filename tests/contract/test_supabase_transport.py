"""What the REST transport does on the wire: whose token goes where, what is asked again, what is told to whom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from deploy.local.ports import HOST, any_free_port
from shared.domain.errors import BadData, Conflict, Forbidden, ParleyError, Unavailable, Untrusted
from shared.domain.ids import new_id
from shared.domain.person import Person
from shared.store.supabase import SupabaseTransport, supabase_transport
from shared.web.problem import answer
from shared.web.serve import serving

KEY = "sb_secret_of_the_service"


@dataclass(frozen=True)
class Request:
    """One request as the gateway saw it."""

    path: str
    headers: dict[str, str]
    body: Any

    @property
    def token(self) -> str:
        return self.headers["authorization"].removeprefix("Bearer ")


@dataclass
class Gateway:
    """Stands where PostgREST would; answers as told, `{}` when nothing is."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waits_for: int = 0  # requests that must be in flight before any is answered

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        raw = b""
        while (part := await receive())["type"] == "http.request":
            raw += part.get("body", b"")
            if not part.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append(Request(scope["path"], headers, json.loads(raw) if raw else None))
        if len(self.requests) >= self.waits_for:
            self.gate.set()
        await self.gate.wait()
        status, body = self.answers.pop(0) if self.answers else (200, b"{}")
        await answer(send, status, body, media_type="application/json")


def error(code: str, **more: object) -> bytes:
    return json.dumps({"code": code, "message": "as PostgREST says it", "details": None, "hint": None} | more).encode()


def person(token: str | None, user: UUID | None = None) -> Person:
    return Person(user or new_id(), "{}", token)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    port = any_free_port()
    made = Gateway(f"http://{HOST}:{port}")
    async with serving(made.app, host=HOST, port=port, drain_s=1):
        yield made
        made.gate.set()


@asynccontextmanager
async def transport(
    url: str, *, timeout_s: float = 5.0, own_token: str | None = KEY
) -> AsyncIterator[SupabaseTransport]:
    async with supabase_transport(url, key=KEY, own_token=own_token, max_connections=32, timeout_s=timeout_s) as made:
        yield made


@pytest.fixture
async def store(gateway: Gateway) -> AsyncIterator[SupabaseTransport]:
    async with transport(gateway.url) as made:
        yield made


async def test_each_call_in_flight_carries_its_own_token(gateway: Gateway, store: SupabaseTransport) -> None:
    people = [person("token-of-ana"), person("token-of-ben"), None] * 8
    gateway.waits_for = len(people)

    async with asyncio.TaskGroup() as calls:
        for one in people:
            calls.create_task(store.call("me", {"p_me": one.token if one else KEY}, as_user=one))

    assert len(gateway.requests) == len(people)
    assert [request.token for request in gateway.requests] == [request.body["p_me"] for request in gateway.requests]
    assert {request.headers["apikey"] for request in gateway.requests} == {KEY}


async def test_a_persons_token_is_gone_once_their_call_is_over(gateway: Gateway, store: SupabaseTransport) -> None:
    gateway.answers = [(200, b"{}"), (409, error("PT409")), (503, b""), (200, b"{}")]

    await store.call("me", {}, as_user=person("token-of-ana"))
    with pytest.raises(Conflict):
        await store.call("me", {}, as_user=person("token-of-ben"))
    await store.call("me", {}, as_user=person("token-of-cem"))
    await store.call("make_webhook_partitions", {})
    await store.is_reachable()

    assert [request.token for request in gateway.requests] == [
        "token-of-ana",
        "token-of-ben",
        "token-of-cem",
        "token-of-cem",
        KEY,
        KEY,
    ]


async def test_a_token_that_claims_another_role_is_never_sent(gateway: Gateway, store: SupabaseTransport) -> None:
    with pytest.raises(Untrusted) as caught:
        await store.call("me", {}, as_user=person(None))

    assert caught.value.code == "role_not_accepted"
    assert gateway.requests == []


async def test_arguments_and_the_answer_travel_as_they_are(gateway: Gateway, store: SupabaseTransport) -> None:
    text = '{"cost_usd": 0.00130001, "many": 12345678901234567890.10, "said": "ação 🌱"}'
    gateway.answers = [(200, text.encode())]
    args = {"p_bodies": [{"raw": "aGk=", "changes": [{"payload": {"a": [1, None, "é"]}}]}], "p_raw": None}

    answered = await store.call("record_webhook_batch", args)

    assert answered == text
    assert (gateway.requests[0].path, gateway.requests[0].body) == ("/rest/v1/rpc/record_webhook_batch", args)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (502, b"<html>Bad gateway</html>"),
        (503, b""),
        (504, b"upstream timed out"),
        (520, b"<html>Cloudflare</html>"),
        (503, error("PGRST000")),
        (503, error("PGRST001")),
        (503, error("PGRST002")),
        (504, error("PGRST003")),
    ],
)
async def test_a_hiccup_on_the_way_is_asked_again(
    gateway: Gateway, store: SupabaseTransport, status: int, body: bytes
) -> None:
    gateway.answers = [(status, body), (200, b'{"stored": 1}')]

    assert await store.call("store_webhook_bodies", {"p_bodies": []}) == '{"stored": 1}'
    assert len(gateway.requests) == 2
    assert gateway.requests[0].body == gateway.requests[1].body


async def test_a_connection_cut_in_the_middle_is_asked_again() -> None:
    seen = []

    async def cut_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        if len(seen) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(cut_first, HOST, 0)
    async with server, transport(f"http://{HOST}:{server.sockets[0].getsockname()[1]}") as store:
        answered = await store.call("me", {}, as_user=person("token-of-ana"))

    assert answered == "{}"
    assert [b"Bearer token-of-ana" in head for head in seen] == [True, True]


async def test_a_hiccup_that_does_not_pass_is_told_as_later(gateway: Gateway, store: SupabaseTransport) -> None:
    gateway.answers = [(503, b"")] * 10

    with pytest.raises(Unavailable) as caught:
        await store.call("me", {}, as_user=person("token-of-ana"))

    assert caught.value.code == "database_unavailable"
    assert len(gateway.requests) == 4


async def test_all_tries_together_take_no_longer_than_one_may(gateway: Gateway) -> None:
    gateway.waits_for = 99
    started = asyncio.get_running_loop().time()

    async with transport(gateway.url, timeout_s=0.3) as store:
        with pytest.raises(Unavailable):
            await store.call("me", {}, as_user=person("token-of-ana"))

    assert asyncio.get_running_loop().time() - started < 1.5
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "is_users", "kind", "code"),
    [
        (409, error("PT409", details="new_message", hint="Read it first."), True, Conflict, "new_message"),
        (400, error("22P02", message='invalid input syntax: "hunter2"'), True, BadData, "sqlstate_22P02"),
        (409, error("23505", details="Key (wamid)=(hunter2) exists"), False, BadData, "sqlstate_23505"),
        (403, error("42501"), True, Forbidden, "forbidden"),
        (401, error("42501"), True, Forbidden, "forbidden"),
        (500, error("57014"), False, Unavailable, "database_too_slow"),
        (500, error("40P01"), False, Unavailable, "database_unavailable"),
        (429, b"slow down", False, Unavailable, "database_unavailable"),
        (401, error("PGRST301"), True, Untrusted, "token_not_valid"),
        (401, error("PGRST303"), True, Untrusted, "token_not_valid"),
        # Ours is refused: the message did nothing wrong, so it waits.
        (401, error("PGRST301"), False, Unavailable, "database_key_refused"),
        (401, b'{"message": "Invalid API key", "hint": "hunter2"}', True, Unavailable, "database_key_refused"),
        (401, b'{"message": "Invalid API key", "hint": "hunter2"}', False, Unavailable, "database_key_refused"),
    ],
)
async def test_what_the_database_says_is_told_once_and_as_the_same_class(
    gateway: Gateway,
    store: SupabaseTransport,
    status: int,
    body: bytes,
    is_users: bool,
    kind: type[ParleyError],
    code: str,
) -> None:
    gateway.answers = [(status, body)]

    with pytest.raises(kind) as caught:
        await store.call("me", {}, as_user=person("token-of-ana") if is_users else None)

    assert (type(caught.value), caught.value.code) == (kind, code)
    assert len(gateway.requests) == 1
    assert all(word not in f"{caught.value!r} {caught.value.hint}" for word in ("hunter2", "token-of-ana", KEY))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, error("PGRST202")),
        (500, error("PGRST300")),
        (500, error("XX000")),
        (404, error("42883")),
        (418, b"<html>"),
        (200, b"null"),
        (204, b""),
    ],
)
async def test_anything_else_is_our_bug(gateway: Gateway, store: SupabaseTransport, status: int, body: bytes) -> None:
    gateway.answers = [(status, body)]

    with pytest.raises(RuntimeError, match="claim_webhook_bodies"):
        await store.call("claim_webhook_bodies", {})

    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "is_reachable"),
    [
        (200, b"[]", True),
        (401, error("42501"), True),  # the table is closed to anon, and it is the database that says so
        (403, error("42501"), True),
        (503, error("PGRST002"), False),
        (504, b"", False),
        (401, b'{"message": "Invalid API key"}', False),
    ],
)
async def test_reachable_means_a_database_answers(
    gateway: Gateway, status: int, body: bytes, is_reachable: bool
) -> None:
    for own_token in (KEY, None):
        gateway.answers = [(status, body)]
        async with transport(gateway.url, own_token=own_token) as store:
            assert await store.is_reachable() is is_reachable


def test_a_person_in_a_log_shows_no_token() -> None:
    assert "token-of-ana" not in f"{person('token-of-ana')!r} {person('token-of-ana')}"
