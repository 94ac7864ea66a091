"""What a person does to conversations and contacts over HTTP, and what they are told when it cannot be."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest

from services.api.shapes import ContactState, ConversationState
from shared.domain.ids import new_id
from shared.store.postgres import PostgresTransport
from tests.integration.lifecycle_rows import Talk, add_member, add_talk, arrive
from tests.integration.test_api import CONVERSATIONS, Client, as_problem, client_of
from tests.world import World

CONTACTS = "/api/whatsapp/contacts"
CALLS = (
    ("POST", f"{CONVERSATIONS}/{{id}}/archive"),
    ("POST", f"{CONVERSATIONS}/{{id}}/reopen"),
    ("POST", f"{CONVERSATIONS}/{{id}}/read"),
    ("DELETE", f"{CONVERSATIONS}/{{id}}"),
    ("POST", f"{CONTACTS}/{{contact_id}}/block"),
    ("POST", f"{CONTACTS}/{{contact_id}}/unblock"),
)


@pytest.fixture
async def client(api_store: PostgresTransport) -> Any:
    async with client_of(api_store) as made:
        yield made


class Office:
    """Somebody at work on one conversation."""

    def __init__(self, client: Client, talk: Talk, user: UUID | None) -> None:
        self._client, self._talk, self._user = client, talk, user

    async def ask(self, method: str, path: str, body: Any = None, workspace_id: UUID | None = None) -> Any:
        params = {"workspace_id": str(workspace_id or self._talk.workspace_id)}
        where = path.format(id=self._talk.id, contact_id=self._talk.contact_id)
        return await self._client.ask(where, method=method, user=self._user, params=params, json=body)

    async def do(self, method: str, path: str, body: Any = None) -> Any:
        """The answer, valid in its documented shape and nothing more."""
        answer = await self.ask(method, path, body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        shape = ContactState if CONTACTS in path else ConversationState
        return shape.model_validate_json(answer.content)

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
        answer = await self.ask(method, path, body)
        return (*as_problem(answer), answer.json()["hint"])


async def test_a_conversation_goes_through_its_whole_life(
    client: Client, world: World, admin: psycopg.AsyncConnection
) -> None:
    talk = await add_talk(admin, world, messages=2)
    office = Office(client, talk, world.owner_a)
    archive, reopen, read, delete, block, unblock = CALLS

    assert (await office.do(*read, {"seen_seq": 1})).unread_count == 1
    assert await office.refused(*archive, {"seen_seq": 1}) == (
        409,
        "new_message",
        "Read it first, then archive with its seq.",
    )
    archived = await office.do(*archive, {"seen_seq": 2})
    assert (archived.status, archived.archived_at is not None) == ("archived", True)
    assert (await office.do(*reopen)).status == "open"
    assert await office.refused(*delete) == (409, "conversation_not_archived", "Archive it first.")
    blocked = await office.do(*block)
    assert (blocked.id, blocked.blocked_at is not None) == (talk.contact_id, True)
    assert [(c.id, c.status) for c in blocked.conversations] == [(talk.id, "blocked")]
    assert await office.do("GET", f"{CONTACTS}/{{contact_id}}/block") == blocked
    assert await office.refused(*archive, {"seen_seq": 2}) == (
        409,
        "conversation_not_open",
        "Unblock the contact first.",
    )
    assert await office.refused(*reopen) == (409, "conversation_not_archived", "Unblock the contact first.")
    assert [(await office.do(*unblock)).blocked_at for _ in range(2)] == [None, None]
    assert (await office.do(*archive, {"seen_seq": 2})).status == "archived"
    assert [(await office.do(*delete)).status for _ in range(2)] == ["deleted", "deleted"]
    for call in (archive, read):
        assert (await office.refused(*call, {"seen_seq": 2}))[:2] == (404, "conversation_not_found")
    assert (await office.do(*block)).conversations == []


async def test_a_message_that_arrived_meanwhile_is_read_and_then_archiving_works(
    client: Client, world: World, admin: psycopg.AsyncConnection
) -> None:
    talk = await add_talk(admin, world, messages=1)
    office = Office(client, talk, await add_member(admin, talk.workspace_id, "agent"))
    archive = CALLS[0]
    await arrive(admin, talk)

    refused = await office.refused(*archive, {"seen_seq": 1})
    archived = await office.do(*archive, {"seen_seq": 2})

    assert (refused[:2], archived.status, archived.unread_count) == ((409, "new_message"), "archived", 2)


@pytest.mark.parametrize("call", CALLS)
async def test_who_may_not_is_told_so(
    client: Client, world: World, admin: psycopg.AsyncConnection, call: tuple[str, str]
) -> None:
    talk = await add_talk(admin, world)
    viewer = await add_member(admin, talk.workspace_id, "viewer")
    noun = "contact" if CONTACTS in call[1] else "conversation"
    body = {"seen_seq": 0}

    assert (await Office(client, talk, None).refused(*call, body))[:2] == (401, "token_missing")
    assert (await Office(client, talk, viewer).refused(*call, body))[:2] == (403, "role_may_not_write")
    for user in (world.owner_b, world.stranger):
        assert (await Office(client, talk, user).refused(*call, body))[:2] == (404, f"{noun}_not_found")
    unknown = Talk(talk.workspace_id, talk.channel_id, new_id(), new_id())
    assert (await Office(client, unknown, world.owner_a).refused(*call, body))[:2] == (404, f"{noun}_not_found")
    elsewhere = await Office(client, talk, world.owner_b).ask(*call, body, workspace_id=world.workspace_b)
    assert as_problem(elsewhere) == (404, f"{noun}_not_found")
    assert (await (await admin.execute("select from public.audit_log")).fetchall()) == []


@pytest.mark.parametrize("call", [CALLS[0], CALLS[2]])
@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        [],
        {"seen_seq": None},
        {"seen_seq": "1"},
        {"seen_seq": 1.5},
        {"seen_seq": True},
        {"seen_seq": -1},
        {"seen_seq": 2**63},
        {"seen_seq": 1, "status": "open"},
    ],
)
async def test_what_was_seen_must_be_said_plainly(
    client: Client, world: World, admin: psycopg.AsyncConnection, call: tuple[str, str], body: Any
) -> None:
    talk = await add_talk(admin, world)

    assert (await Office(client, talk, world.owner_a).refused(*call, body))[:2] == (422, "not_valid")
