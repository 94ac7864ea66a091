"""What people do to conversations and contacts, in a real PostgreSQL: as each role, and all at the same time."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import product
from typing import Any
from uuid import UUID

import psycopg
import pytest

from shared.domain.conversation import Action, ConversationStatus, move
from shared.domain.errors import Forbidden, NotFound, ParleyError, Rejected
from shared.domain.ids import new_id
from shared.domain.message_status import MessageStatus, advance
from shared.domain.person import Person
from shared.store.conversations import Conversations
from shared.store.inbox import Inbox
from shared.store.postgres import PostgresTransport
from tests.conftest import Database
from tests.integration.lifecycle_rows import Talk, add_member, add_talk, arrive
from tests.world import World

FUNCTIONS = {
    "archive_conversation": "conversation",
    "reopen_conversation": "conversation",
    "mark_conversation_read": "conversation",
    "delete_conversation": "conversation",
    "block_contact": "contact",
    "unblock_contact": "contact",
}
Act = Callable[[Talk, Person], Awaitable[str]]


@pytest.fixture
def store(api_store: PostgresTransport) -> Conversations:
    return Conversations(api_store)


@pytest.fixture
def owner(world: World) -> Person:
    return person(world, world.owner_a)


def person(world: World, user_id: UUID) -> Person:
    return Person(user_id, world.claims(user_id))


def acts(store: Conversations, seen_seq: int = 99) -> dict[str, Act]:
    """Every function, by name."""
    return {
        "archive_conversation": lambda t, p: store.archive(t.workspace_id, t.id, seen_seq=seen_seq, as_user=p),
        "reopen_conversation": lambda t, p: store.reopen(t.workspace_id, t.id, as_user=p),
        "mark_conversation_read": lambda t, p: store.mark_read(t.workspace_id, t.id, seen_seq=seen_seq, as_user=p),
        "delete_conversation": lambda t, p: store.delete(t.workspace_id, t.id, as_user=p),
        "block_contact": lambda t, p: store.block_contact(t.workspace_id, t.contact_id, as_user=p),
        "unblock_contact": lambda t, p: store.unblock_contact(t.workspace_id, t.contact_id, as_user=p),
    }


async def rows(admin: psycopg.AsyncConnection, query: str, *values: object) -> list[tuple[Any, ...]]:
    return await (await admin.execute(query.encode(), values)).fetchall()


async def row_of(admin: psycopg.AsyncConnection, talk: Talk) -> dict[str, Any]:
    ((found,),) = await rows(admin, "select to_jsonb(c) from public.whatsapp_conversations c where id = %s", talk.id)
    return dict(found)


async def audited(admin: psycopg.AsyncConnection) -> list[tuple[str, UUID]]:
    return await rows(admin, "select action, subject_id from public.audit_log order by id")  # type: ignore[return-value]


async def is_waiting(admin: psycopg.AsyncConnection) -> None:
    """Return once some call waits for a lock."""
    async with asyncio.timeout(10):
        while not await rows(admin, "select from pg_stat_activity where wait_event_type = 'Lock'"):
            await asyncio.sleep(0.01)


# The rules, and their readable statement.


async def test_every_action_in_every_state_does_what_the_rule_says(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    by_action = dict(
        zip(
            (Action.ARCHIVE, Action.REOPEN, Action.DELETE, Action.BLOCK, Action.UNBLOCK),
            [acts(store)[n] for n in FUNCTIONS if n != "mark_conversation_read"],
            strict=True,
        )
    )
    expected, found = {}, {}
    for status, action in product(ConversationStatus, Action):
        pair = f"{status} {action}"
        try:
            expected[pair] = (move(status, action), None)
        except ParleyError as error:
            expected[pair] = (status, (type(error), error.code, error.hint))
        talk = await add_talk(admin, world, status=status)

        refusal = None
        try:
            await by_action[action](talk, owner)
        except ParleyError as error:
            refusal = (type(error), error.code, error.hint)

        row = await row_of(admin, talk)
        found[pair] = (row["status"], refusal)
        was_archived = row["status"] == "archived" or (status, action) == ("archived", "delete")
        assert (row["archived_at"] is not None) == was_archived
        assert (row["deleted_at"] is not None) == (row["status"] == "deleted")

    assert len(found) == 20
    assert found == expected


async def test_the_rank_of_a_status_is_the_same_in_both_languages(admin: psycopg.AsyncConnection) -> None:
    ranked = dict(
        await rows(admin, "select s, app.status_rank(s) from unnest(%s::text[]) s", [*MessageStatus, "warning"])
    )

    by_rank = {rank: status for status, rank in ranked.items()}
    pairs = list(product(MessageStatus, MessageStatus))
    assert len(pairs) == 36
    assert {(a, b): by_rank[max(ranked[a], ranked[b])] for a, b in pairs} == {(a, b): advance(a, b) for a, b in pairs}
    assert ranked["warning"] is None


# Who may.


@pytest.mark.parametrize("role", ["owner", "admin", "agent"])
async def test_whoever_answers_customers_may(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, role: str
) -> None:
    member = person(world, await add_member(admin, world.workspace_a, role))
    talk = await add_talk(admin, world, messages=1)

    for act in acts(store).values():
        with suppress(Rejected):  # deleting what is open
            await act(talk, member)

    assert {actor for (actor,) in await rows(admin, "select distinct actor from public.audit_log")} == {member.user_id}
    assert [action for action, _ in await audited(admin)] == [
        "conversation.archived",
        "conversation.reopened",
        "conversation.read",
        "conversation.blocked",
        "contact.blocked",
        "conversation.unblocked",
        "contact.unblocked",
    ]


async def test_a_viewer_is_told_why_not_and_a_stranger_that_there_is_nothing(
    store: Conversations, world: World, admin: psycopg.AsyncConnection
) -> None:
    viewer = person(world, await add_member(admin, world.workspace_a, "viewer"))
    talks = [await add_talk(admin, world, status=s, messages=1) for s in ("open", "archived", "blocked", "deleted")]
    before = [await row_of(admin, talk) for talk in talks]

    for talk, (name, act) in product(talks, acts(store).items()):
        with pytest.raises(Forbidden) as refused:
            await act(talk, viewer)
        assert refused.value.code == "role_may_not_write"
        assert refused.value.hint

        told = set()
        elsewhere = Talk(world.workspace_b, world.channel_b, talk.contact_id, talk.id)
        nothing = Talk(world.workspace_b, world.channel_b, new_id(), new_id())
        owner_b, stranger = person(world, world.owner_b), person(world, world.stranger)
        for whose, who in (
            (talk, stranger),
            (talk, owner_b),
            (elsewhere, owner_b),
            (nothing, owner_b),
            (elsewhere, stranger),
        ):
            with pytest.raises(NotFound) as unknown:
                await act(whose, who)
            told.add((str(unknown.value), unknown.value.code, unknown.value.hint))
        noun = FUNCTIONS[name]
        assert told == {(f"{noun} not found", f"{noun}_not_found", "It does not exist, or it is not yours.")}

    assert [await row_of(admin, talk) for talk in talks] == before
    assert await audited(admin) == []


@pytest.mark.parametrize("claims", ["", '{"role": "service_role"}', '{"sub": null}'])
async def test_who_is_nobody_finds_nothing(
    api_store: PostgresTransport, world: World, admin: psycopg.AsyncConnection, claims: str
) -> None:
    talk = await add_talk(admin, world)

    for act in acts(Conversations(api_store)).values():
        with pytest.raises(NotFound):
            await act(talk, Person(world.owner_a, claims))


@pytest.mark.parametrize(
    ("login", "role"), [("test_api", "anon"), ("test_service", "service_role"), ("test_ingest", "parley_ingest")]
)
async def test_only_the_signed_in_may_call(database: Database, world: World, login: str, role: str) -> None:
    async with await psycopg.AsyncConnection.connect(database.url(login), autocommit=True) as connection:
        await connection.execute(f"set role {role}".encode())
        await connection.execute("select set_config('request.jwt.claims', %s, false)", (world.claims(world.owner_a),))
        for name in FUNCTIONS:
            seq = ", 1" if name in ("archive_conversation", "mark_conversation_read") else ""
            call = f"select public.{name}(gen_random_uuid(), gen_random_uuid(){seq})"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(call.encode())


WRITES = (
    "update public.whatsapp_conversations set status = 'archived'",
    "update public.contacts set blocked_at = now()",
    "update public.whatsapp_messages set content = null",
    "delete from public.whatsapp_conversations",
    "insert into public.whatsapp_conversations default values",
    "insert into public.audit_log default values",
    "update public.audit_log set at = now()",
    "delete from public.audit_log",
    "truncate public.audit_log",
    "select app.audit(gen_random_uuid(), 'a.b', gen_random_uuid())",
    "select app.lock_identities(array[gen_random_uuid()], true)",
    "set role parley_writer",
)


async def test_a_person_changes_nothing_but_through_the_functions(
    store: Conversations, database: Database, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world)
    await store.archive(talk.workspace_id, talk.id, seen_seq=0, as_user=owner)

    async with await psycopg.AsyncConnection.connect(database.url("test_api"), autocommit=True) as connection:
        await connection.execute("set role authenticated")
        await connection.execute("select set_config('request.jwt.claims', %s, false)", (owner.claims,))
        (log,) = await rows(connection, "select action, source, actor, before, after from public.audit_log")
        for write in WRITES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(write.encode())

    assert log == ("conversation.archived", "user", owner.user_id, {"status": "open"}, {"status": "archived"})


async def as_writer(admin: psycopg.AsyncConnection, claims: str, statement: str) -> int:
    """Run a statement as parley_writer on somebody's behalf, and undo it; return how many rows it met."""
    async with admin.transaction(force_rollback=True):
        await admin.execute(
            "select set_config('request.jwt.claims', %s, true), set_config('role', 'parley_writer', true)", (claims,)
        )
        return (await admin.execute(statement.encode())).rowcount


async def test_parley_writer_itself_is_held_by_every_policy(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    viewer = await add_member(admin, world.workspace_a, "viewer")
    talk = await add_talk(admin, world, messages=1)
    await store.archive(talk.workspace_id, talk.id, seen_seq=1, as_user=owner)
    writes = (
        "update public.whatsapp_conversations set status = 'open'",
        "update public.contacts set blocked_at = now()",
        "update public.whatsapp_messages set content = null",
    )
    log = (
        "insert into public.audit_log (workspace_id, actor, source, action, subject_type, subject_id)"
        " values ('{}', {}, '{}', 'a.b', 'a', gen_random_uuid())"
    )

    for write in writes:
        assert await as_writer(admin, owner.claims, write) == 1
        for claims in ("", *(world.claims(user) for user in (viewer, world.owner_b, world.stranger))):
            assert await as_writer(admin, claims, write) == 0
    for claims, actor, source in (
        (owner.claims, f"'{world.owner_b}'", "user"),
        (owner.claims, "null", "system"),
        (world.claims(world.owner_b), f"'{world.owner_b}'", "user"),
        (world.claims(viewer), f"'{viewer}'", "user"),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await as_writer(admin, claims, log.format(world.workspace_a, actor, source))
    assert await as_writer(admin, owner.claims, log.format(world.workspace_a, f"'{owner.user_id}'", "user")) == 1
    for forbidden in (
        "update public.audit_log set at = now()",
        "delete from public.audit_log",
        "truncate public.audit_log",
        "delete from public.whatsapp_conversations",
        "update public.whatsapp_conversations set first_seq = 1",
        "update public.workspace_members set role = 'owner'",
        "select * from app.webhook_bodies",
        "create table public.mine (id int)",
        "create table app.mine (id int)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await as_writer(admin, owner.claims, forbidden)


async def test_who_stops_being_an_agent_while_waiting_changes_nothing(
    store: Conversations, database: Database, world: World, admin: psycopg.AsyncConnection
) -> None:
    agent = person(world, await add_member(admin, world.workspace_a, "agent"))
    talk = await add_talk(admin, world)

    async with await psycopg.AsyncConnection.connect(database.url()) as other:
        await other.execute("select from public.whatsapp_conversations where id = %s for update", (talk.id,))
        archiving = asyncio.create_task(store.archive(talk.workspace_id, talk.id, seen_seq=0, as_user=agent))
        await is_waiting(admin)
        await other.execute("update public.workspace_members set role = 'viewer' where user_id = %s", (agent.user_id,))
        await other.commit()
    with suppress(ParleyError):
        await archiving

    assert await audited(admin) == []
    assert (await row_of(admin, talk))["status"] == "open"


async def test_what_is_asked_twice_is_done_and_logged_once(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world, messages=2)
    act = acts(store)
    order = (
        "mark_conversation_read",
        "archive_conversation",
        "reopen_conversation",
        "block_contact",
        "unblock_contact",
        "archive_conversation",
        "delete_conversation",
    )

    for name in order:
        answers = [json.loads(await act[name](talk, owner)) for _ in range(3)]
        assert answers[0] == answers[1] == answers[2], name

    assert await audited(admin) == [
        ("conversation.read", talk.id),
        ("conversation.archived", talk.id),
        ("conversation.reopened", talk.id),
        ("conversation.blocked", talk.id),
        ("contact.blocked", talk.contact_id),
        ("conversation.unblocked", talk.id),
        ("contact.unblocked", talk.contact_id),
        ("conversation.archived", talk.id),
        ("conversation.deleted", talk.id),
    ]
    assert await rows(admin, "select distinct subject_type from public.audit_log order by 1") == [
        ("contact",),
        ("conversation",),
    ]


async def test_an_answer_shows_the_conversation_as_the_list_does(
    store: Conversations, api_store: PostgresTransport, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world, messages=2)

    answer = json.loads(await store.archive(talk.workspace_id, talk.id, seen_seq=2, as_user=owner))
    page = json.loads(await Inbox(api_store).list_conversations(talk.workspace_id, limit=1, cursor=None, as_user=owner))

    (item,) = page["items"]
    assert {"contact_id", "archived_at", "blocked_at"} <= set(answer)
    assert {name: value for name, value in item.items() if name in answer} == {
        name: value for name, value in answer.items() if name in item
    }
    assert answer["contact_id"] == item["contact"]["id"]


# Archiving and reading.


async def test_archiving_past_an_unseen_message_is_refused(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world, messages=2)

    for seen_seq in (-1, 0, 1):
        with pytest.raises(ParleyError) as refused:
            await store.archive(talk.workspace_id, talk.id, seen_seq=seen_seq, as_user=owner)
        assert (refused.value.code, refused.value.hint) == ("new_message", "Read it first, then archive with its seq.")
    with pytest.raises(Rejected) as unsaid:
        await store.archive(talk.workspace_id, talk.id, seen_seq=None, as_user=owner)  # type: ignore[arg-type]
    answer = json.loads(await store.archive(talk.workspace_id, talk.id, seen_seq=2, as_user=owner))

    assert unsaid.value.code == "bad_seq"
    assert (answer["status"], answer["archived_at"] is not None) == ("archived", True)


async def test_what_nobody_is_shown_does_not_stand_in_the_way_of_archiving(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world, messages=1)
    await arrive(admin, talk, mark="suppressed_at")

    answer = json.loads(await store.archive(talk.workspace_id, talk.id, seen_seq=1, as_user=owner))

    assert answer["status"] == "archived"


async def test_a_message_that_arrives_while_archiving_waits_is_not_archived_past(
    store: Conversations, database: Database, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world, messages=1)

    async with await psycopg.AsyncConnection.connect(database.url(), autocommit=True) as recorder:
        async with recorder.transaction():
            await recorder.execute(
                "select from public.whatsapp_conversations where id = %s for no key update", (talk.id,)
            )
            archiving = asyncio.create_task(store.archive(talk.workspace_id, talk.id, seen_seq=1, as_user=owner))
            await is_waiting(admin)
            await arrive(recorder, talk)
    with pytest.raises(ParleyError) as refused:
        await archiving

    assert refused.value.code == "new_message"
    assert (await row_of(admin, talk))["status"] == "open"


async def test_of_a_message_and_archiving_one_comes_first_and_the_other_knows(
    store: Conversations, database: Database, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    async def archive(talk: Talk) -> str:
        try:
            await store.archive(talk.workspace_id, talk.id, seen_seq=1, as_user=owner)
        except ParleyError as error:
            return error.code
        return "archived"

    outcomes = set()
    async with await psycopg.AsyncConnection.connect(database.url(), autocommit=True) as recorder:
        for attempt in range(60):
            talk = await add_talk(admin, world, messages=1)
            both: list[Awaitable[str]] = [archive(talk), arrive(recorder, talk)]

            # Whose task starts first is as much as we choose; the lock decides.
            told = await asyncio.gather(*(both if attempt % 2 else both[::-1]))
            outcomes.add(frozenset(told))

    assert outcomes <= {frozenset({"archived"}), frozenset({"new_message", "open"})}


async def test_many_who_archive_at_once_archive_once(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world)

    answers = await asyncio.gather(
        *(store.archive(talk.workspace_id, talk.id, seen_seq=0, as_user=owner) for _ in range(8))
    )

    assert len(set(answers)) == 1
    assert await audited(admin) == [("conversation.archived", talk.id)]


async def test_reading_counts_what_a_customer_wrote_later_and_is_shown(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world, messages=2)  # 1, 2
    await arrive(admin, talk, direction="outbound")  # 3
    await arrive(admin, talk, origin="history")  # 4
    await arrive(admin, talk, mark="revoked_at")  # 5
    await arrive(admin, talk, mark="suppressed_at")  # 6
    await arrive(admin, talk)  # 7

    async def read(seen_seq: int) -> tuple[int, int]:
        answer = json.loads(await store.mark_read(talk.workspace_id, talk.id, seen_seq=seen_seq, as_user=owner))
        return answer["read_seq"], answer["unread_count"]

    assert (await row_of(admin, talk))["unread_count"] == 3
    assert [await read(seq) for seq in (0, 1, 3, 2, -5, 6, 2**63 - 1, 1)] == [
        (0, 3),
        (1, 2),
        (3, 1),
        (3, 1),
        (3, 1),
        (6, 1),
        (7, 0),
        (7, 0),
    ]
    assert await rows(admin, "select before, after from public.audit_log order by id") == [
        ({"read_seq": a}, {"read_seq": b}) for a, b in ((0, 1), (1, 3), (3, 6), (6, 7))
    ]
    await arrive(admin, talk)
    assert (await row_of(admin, talk))["unread_count"] == 1


@pytest.mark.parametrize("status", ["archived", "blocked"])
async def test_reading_is_allowed_whatever_a_conversations_state(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person, status: str
) -> None:
    talk = await add_talk(admin, world, status=status, messages=1)

    answer = json.loads(await store.mark_read(talk.workspace_id, talk.id, seen_seq=1, as_user=owner))

    assert (answer["status"], answer["unread_count"]) == (status, 0)


# Blocking.


async def test_blocking_reaches_every_live_conversation_of_whoever_goes_on(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    channels = [new_id() for _ in range(3)]
    for n, channel_id in enumerate(channels):
        await admin.execute(
            "insert into public.whatsapp_channels"
            " (workspace_id, id, waba_id, portfolio_id, phone_number_id, display_phone_number)"
            " values (%s, %s, '1', '1', %s, '1')",
            (world.workspace_a, channel_id, str(n)),
        )
    open_one = await add_talk(admin, world)
    who = open_one.contact_id
    archived = await add_talk(admin, world, status="archived", contact_id=who, channel_id=channels[0])
    deleted = await add_talk(admin, world, status="deleted", contact_id=who, channel_id=channels[1])
    somebody_else = await add_talk(admin, world)
    merged = [await add_talk(admin, world, status="deleted") for _ in range(2)]
    for gone, into in ((merged[0].contact_id, who), (merged[1].contact_id, merged[0].contact_id)):
        await admin.execute("update public.contacts set merged_into = %s where id = %s", (into, gone))

    answer = json.loads(await store.block_contact(world.workspace_a, merged[1].contact_id, as_user=owner))
    blocked = {talk: (await row_of(admin, talk)) for talk in (open_one, archived, deleted, somebody_else)}
    intervals = await rows(admin, "select contact_id, blocked_at, unblocked_at from app.contact_blocks")
    ((contact_blocked_at,),) = await rows(admin, "select blocked_at from public.contacts where id = %s", who)
    opened = json.loads(await store.unblock_contact(world.workspace_a, merged[1].contact_id, as_user=owner))

    assert answer["id"] == str(who)
    assert [v["id"] for v in answer["conversations"]] == [str(open_one.id), str(archived.id)]
    assert [row["status"] for row in blocked.values()] == ["blocked", "blocked", "deleted", "open"]
    assert intervals == [(who, contact_blocked_at, None)]
    assert {row["blocked_at"] for row in blocked.values()} == {answer["blocked_at"], None}
    assert (opened["blocked_at"], [v["status"] for v in opened["conversations"]]) == (None, ["open", "open"])
    assert [v["archived_at"] for v in opened["conversations"]] == [None, None]
    assert await rows(admin, "select contact_id, blocked_at, unblocked_at > blocked_at from app.contact_blocks") == [
        (who, contact_blocked_at, True)
    ]
    assert [action for action, _ in await audited(admin)] == [
        "conversation.blocked",
        "conversation.blocked",
        "contact.blocked",
        "conversation.unblocked",
        "conversation.unblocked",
        "contact.unblocked",
    ]


async def test_blocking_again_begins_another_interval(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world)

    for _ in range(2):
        await store.block_contact(talk.workspace_id, talk.contact_id, as_user=owner)
        await store.unblock_contact(talk.workspace_id, talk.contact_id, as_user=owner)

    intervals = await rows(admin, "select blocked_at, unblocked_at from app.contact_blocks order by 1")
    (a, b), (c, d) = intervals
    assert a < b < c < d


async def test_blocking_waits_for_recorders_and_a_stranger_holds_up_nobody(
    store: Conversations, database: Database, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world)

    async with await psycopg.AsyncConnection.connect(database.url()) as recorder:
        await recorder.execute("select app.lock_identities(array[%s]::uuid[], false)", (talk.workspace_id,))
        with pytest.raises(NotFound):  # at once: no lock was asked for
            await store.block_contact(talk.workspace_id, talk.contact_id, as_user=person(world, world.stranger))
        blocking = asyncio.create_task(store.block_contact(talk.workspace_id, talk.contact_id, as_user=owner))
        await is_waiting(admin)
        ((recorded_at,),) = await rows(recorder, "select clock_timestamp()")
        await recorder.commit()
    await blocking

    ((blocked_at,),) = await rows(admin, "select blocked_at from public.contacts where id = %s", talk.contact_id)
    assert blocked_at > recorded_at


# Deleting.


async def fill(admin: psycopg.AsyncConnection, talk: Talk) -> None:
    """Give each message of a conversation everything that may hang on one."""
    values = {"w": talk.workspace_id, "v": talk.id}
    for statement in (
        "update public.whatsapp_messages set ai_state = 'done', analysed_at = now(), sentiment = 'positive',"
        " sentiment_score = 1, intent = 'secret', ai_summary = 'secret', suggested_response = 'secret',"
        " priority = 'low', language = 'en' where workspace_id = %(w)s and conversation_id = %(v)s",
        "insert into app.conversation_work (workspace_id, conversation_id, due_at, lease_until, lease_token)"
        " values (%(w)s, %(v)s, now(), now(), gen_random_uuid())",
        "with a as (insert into app.analysis_attempts (workspace_id, conversation_id, message_ids)"
        " values (%(w)s, %(v)s, '{}') returning id)"
        " insert into public.message_analyses (workspace_id, message_id, content_version, prompt_version, attempt_id,"
        " result, model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, latency_ms)"
        " select %(w)s, m.id, 1, 'p', a.id, '{\"secret\": 1}', 'm', 1, 1, 0, 0, 0.1, 1"
        " from public.whatsapp_messages m, a where m.conversation_id = %(v)s",
        "insert into public.message_events (workspace_id, channel_id, wamid, kind, key, sent_at, payload)"
        " select %(w)s, m.channel_id, m.wamid, 'reaction', '1', now(), '{\"emoji\": \"secret\"}'"
        " from public.whatsapp_messages m where m.conversation_id = %(v)s",
        "insert into app.message_states (workspace_id, channel_id, wamid, edit)"
        ' select %(w)s, m.channel_id, m.wamid, \'{"content": "secret"}\''
        " from public.whatsapp_messages m where m.conversation_id = %(v)s and m.seq > 1",
        "insert into public.media (workspace_id, id, message_id, meta_id, kind, filename, sha256, storage_key)"
        " select %(w)s, m.id, m.id, '1', 'image', 'secret.png', 'secret', 'a/b' from public.whatsapp_messages m"
        " where m.conversation_id = %(v)s",
        "insert into app.outbox (workspace_id, id, channel_id, kind, message_id, expires_at, state)"
        " select %(w)s, m.id, m.channel_id, 'media_fetch', m.id, now(), case m.seq when 1 then 'done' else 'due' end"
        " from public.whatsapp_messages m where m.conversation_id = %(v)s",
    ):
        await admin.execute(statement.encode(), values)


_ITS = "in (select {} from public.whatsapp_messages where conversation_id = %(v)s)"
TABLES = {
    "public.whatsapp_messages": "r.conversation_id = %(v)s",
    "app.conversation_work": "r.conversation_id = %(v)s",
    "public.message_analyses": "r.message_id " + _ITS.format("id"),
    "public.message_events": "r.wamid " + _ITS.format("wamid"),
    "app.message_states": "r.wamid " + _ITS.format("wamid"),
    "public.media": "r.message_id " + _ITS.format("id"),
    "app.outbox": "r.message_id " + _ITS.format("id"),
}


async def all_of(admin: psycopg.AsyncConnection, talk: Talk) -> dict[str, list[dict[str, Any]]]:
    """Every row that hangs on a conversation."""
    found = {}
    for table, which in TABLES.items():
        query = f"select to_jsonb(r) from {table} r where {which} order by 1"  # noqa: S608  both are our own
        cursor = await admin.execute(query.encode(), {"v": talk.id})
        found[table] = [row for (row,) in await cursor.fetchall()]
    return found


@pytest.mark.parametrize("status", ["archived", "blocked"])
async def test_what_is_deleted_is_gone_wherever_it_was_written(
    store: Conversations,
    api_store: PostgresTransport,
    world: World,
    admin: psycopg.AsyncConnection,
    owner: Person,
    status: str,
) -> None:
    talk, other = [await add_talk(admin, world, status=status) for _ in range(2)]
    for each in (talk, other):
        for _ in range(3):
            await arrive(admin, each, "secret")
        await fill(admin, each)
    await admin.execute(
        "update public.whatsapp_messages set wamid = null where conversation_id = %s and seq = 3", (talk.id,)
    )
    untouched = await all_of(admin, other)

    answer = json.loads(await store.delete(talk.workspace_id, talk.id, as_user=owner))

    row = await row_of(admin, talk)
    left = await all_of(admin, talk)
    assert (answer["status"], row["status"], row["deleted_at"] is not None, row["unread_count"]) == (
        "deleted",
        "deleted",
        True,
        0,
    )
    assert "secret" not in json.dumps(left)
    assert {table: len(found) for table, found in left.items()} == {
        "public.whatsapp_messages": 3,
        "app.conversation_work": 0,
        "public.message_analyses": 3,
        "public.message_events": 2,
        "app.message_states": 1,
        "public.media": 3,
        "app.outbox": 3,
    }
    for message in left["public.whatsapp_messages"]:
        assert (message["content"], message["payload"]) == (None, {})
        assert (message["ai_state"], message["ai_reason"]) == ("skipped", "deleted")
        assert message["priority"] is message["analysed_at"] is message["sentiment_score"] is None
    assert [m["state"] for m in left["public.media"]] == ["gone"] * 3
    assert [m["storage_key"] for m in left["public.media"]] == ["a/b"] * 3
    assert sorted(o["state"] for o in left["app.outbox"]) == ["done", "expired", "expired"]
    assert await all_of(admin, other) == untouched
    page = json.loads(await Inbox(api_store).list_conversations(talk.workspace_id, limit=9, cursor=None, as_user=owner))
    assert [item["id"] for item in page["items"]] == [str(other.id)]
    with pytest.raises(NotFound):
        await Inbox(api_store).list_messages(
            talk.workspace_id, talk.id, limit=1, before=None, after=None, as_user=owner
        )


async def test_a_deleted_message_is_remembered_by_its_digest_alone(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world, status="archived", messages=2)
    wamids = [w for (w,) in await rows(admin, "select wamid from public.whatsapp_messages")]
    digests = {hashlib.sha256(f"m {talk.channel_id} {wamid}".encode()).digest() for wamid in wamids}
    first, _ = sorted(digests)
    await admin.execute(
        "insert into app.tombstones (workspace_id, digest, until) values (%s, %s, '2100-01-01')",
        (talk.workspace_id, first),
    )

    await store.delete(talk.workspace_id, talk.id, as_user=owner)

    found = await rows(
        admin, "select digest, sent_before, until > now() + interval '8 days' from app.tombstones order by 1"
    )
    assert found == [(digest, None, True) for digest in sorted(digests)]
    assert await rows(admin, "select 1 from app.tombstones where until = '2100-01-01'") == [(1,)]


async def test_a_deleted_conversation_makes_room_for_a_new_one(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk = await add_talk(admin, world, status="archived", messages=1)
    await store.delete(talk.workspace_id, talk.id, as_user=owner)

    again = await add_talk(admin, world, contact_id=talk.contact_id)

    assert (await row_of(admin, again))["status"] == "open"


async def test_a_conversation_that_went_into_another_is_not_there(
    store: Conversations, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    talk, into = await add_talk(admin, world, status="deleted"), await add_talk(admin, world)
    await admin.execute("update public.whatsapp_conversations set merged_into = %s where id = %s", (into.id, talk.id))

    for name, act in acts(store).items():
        if FUNCTIONS[name] == "conversation":
            with pytest.raises(NotFound):
                await act(talk, owner)


async def test_deleting_waits_for_recorders_so_that_none_brings_words_back(
    store: Conversations, database: Database, world: World, admin: psycopg.AsyncConnection, owner: Person
) -> None:
    # A recorder that found neither a tombstone nor a deleted conversation goes on to write an edit and a message.
    talk = await add_talk(admin, world, status="archived", messages=1)

    async with await psycopg.AsyncConnection.connect(database.url()) as recorder:
        await recorder.execute("select app.lock_identities(array[%s]::uuid[], false)", (talk.workspace_id,))
        with pytest.raises(NotFound):  # at once: no lock was asked for
            await store.delete(talk.workspace_id, talk.id, as_user=person(world, world.stranger))
        deleting = asyncio.create_task(store.delete(talk.workspace_id, talk.id, as_user=owner))
        await is_waiting(admin)
        await recorder.execute(
            "insert into app.message_states (workspace_id, channel_id, wamid, edit)"
            ' select workspace_id, channel_id, wamid, \'{"content": "secret"}\' from public.whatsapp_messages'
        )
        await recorder.execute("update public.whatsapp_messages set content = 'secret'")
        await arrive(recorder, talk, "secret")
        await recorder.commit()
    await deleting

    left = await all_of(admin, talk)
    assert "secret" not in json.dumps(left)
    assert len(left["public.whatsapp_messages"]) == 2
