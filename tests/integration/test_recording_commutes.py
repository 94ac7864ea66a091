"""Recording commutes: whatever order, batching and number of recorders, the rows are those of the set of events.

What they should be is computed by `recording_model`, from docs/decisions/0008 alone. PARLEY_EXAMPLES=999 searches on.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from deploy.local.postgres import Postgres
from shared.domain.ids import new_id
from shared.store.postgres import PostgresTransport, postgres_transport
from shared.store.webhooks import Recorded, Webhooks
from tests import meta_events as meta
from tests.conftest import Database
from tests.integration.recording_model import (
    Agents,
    Archive,
    Block,
    Call,
    Change,
    Chat,
    ChatKey,
    Contact,
    Edit,
    Event,
    Fact,
    Ids,
    Letter,
    Message,
    People,
    Preference,
    Reaction,
    Revoke,
    Rows,
    State,
    Status,
    differences,
    expected_rows,
)
from tests.meta_events import NUMBER_A, NUMBER_B, Number, Who
from tests.world import World, build_world, received

MINUTE_0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
REOPENS = "reopen_archived"  # the workspace's setting

NUMBERS = {"A1": NUMBER_A, "A2": Number("402776318915990", NUMBER_A.waba_id, "12025550188"), "B1": NUMBER_B}
CHANNELS = {number.phone_number_id: name for name, number in NUMBERS.items()}


# --- Events as Meta words them ---


def as_item(told: Event) -> meta.Item:
    number, at = NUMBERS[told.channel], when(told.at)
    if isinstance(told, Change):
        return _change_item(told, number)
    who = Who(wire_user(told.who.user), wire_phone(told.who.phone))
    more: dict[str, Any] = {"number": number}
    if not isinstance(told, Call | Preference):
        more["profile"] = {k: v for k in ("name", "username") if (v := getattr(told, k, None))}
    match told:
        case Letter():
            return _letter_item(told, who, more)
        case Status():
            if told.status == "failed":
                more |= {"profile": None, "error": told.error}
            return meta.status(told.wamid, who, at, told.status, **more)
        case Reaction():
            return meta.reaction(told.wamid, who, at, told.target, told.emoji, **more)
        case Edit(outbound=True):
            now = {"type": "text", "text": {"body": told.text}}
            edited = {"type": "edit", "edit": {"original_message_id": told.target, "message": now}}
            return meta.echo(told.wamid, who, at, edited, **more)
        case Edit():
            return meta.edit(told.wamid, who, at, told.target, {"type": "text", "text": {"body": told.text}}, **more)
        case Revoke(outbound=True):
            revoked = {"type": "revoke", "revoke": {"original_message_id": told.target}}
            return meta.echo(told.wamid, who, at, revoked, **more)
        case Revoke():
            return meta.revoke(told.wamid, who, at, told.target, **more)
        case Call():
            kind = "connect" if told.by_customer else "terminate"
            return meta.call(told.wamid, who, at, event=kind, by_customer=told.by_customer, **more)
        case Preference():
            return meta.preference(who, at, "stop" if told.stop else "resume", **more)


def _letter_item(told: Letter, who: Who, more: dict[str, Any]) -> meta.Item:
    at = when(told.at)
    content: dict[str, Any] = {"type": told.type}
    if told.type == "text":
        content["text"] = {"body": told.text}
    elif told.type == "image":
        content["image"] = meta.picture(f"media-{told.wamid}", told.text)
    if told.reply_to:
        content["context"] = {"id": told.reply_to}
    if told.origin == "history" and told.type == "image":
        sender = None if told.outbound else who.wa_id
        return meta.history_media(
            told.wamid, at, f"media-{told.wamid}", sender=sender, caption=told.text, number=more["number"]
        )
    if told.origin == "history":
        return meta.history(
            told.wamid, who, at, content, outbound=told.outbound, status=told.told or "READ", number=more["number"]
        )
    if told.outbound:
        return meta.echo(told.wamid, who, at, content, **more)
    more |= {"reply_to": told.reply_to, "group_id": told.group}
    if told.type == "image":
        return meta.image(told.wamid, who, at, f"media-{told.wamid}", caption=told.text, **more)
    return meta.text(told.wamid, who, at, told.text or "", **more)


def _change_item(told: Change, number: Number) -> meta.Item:
    at, old, new = when(told.at), wire_phone(told.old_phone), wire_phone(told.phone)
    user, previous = wire_user(told.user), wire_user(told.previous)
    if user is None:
        assert old
        assert new
        return meta.customer_changed_number(told.wamid, at, old_wa_id=old, wa_id=new, number=number)
    if new is None:
        assert previous
        return meta.user_changed_user_id(told.wamid, at, user_id=user, previous_user_id=previous, number=number)
    assert old
    return meta.user_changed_number(
        told.wamid, at, old_wa_id=old, wa_id=new, user_id=user, previous_user_id=previous, number=number
    )


def when(minute: float) -> datetime:
    return MINUTE_0 + timedelta(minutes=minute)


def minute(at: datetime | None) -> float | None:
    return None if at is None else (at - MINUTE_0) / timedelta(minutes=1)


def wire_user(user: str | None) -> str | None:
    return user and f"US.{user}"


def wire_phone(phone: str | None) -> str | None:
    return phone and f"120255501{phone[1:]:0>2}"


def short(value: str) -> str:
    return value[3:] if value.startswith("US.") else f"P{int(value[-2:])}"


# --- The database, as the model speaks of it ---


async def clear(admin: psycopg.AsyncConnection, agents: Agents) -> None:
    """Leave the two workspaces and their channels. Deleting few rows is faster than truncating 40 tables."""
    cursor = await admin.execute(
        """
        select n.nspname, c.relname
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('public', 'app') and c.relkind in ('r', 'p') and not c.relispartition
          and c.relname not in ('workspaces', 'workspace_members', 'whatsapp_channels')
        """
    )
    deletes = [sql.SQL("delete from {};").format(sql.Identifier(*table)) for table in await cursor.fetchall()]
    await admin.execute(
        sql.SQL(
            "begin; set local session_replication_role = replica; {}"
            " update public.workspaces set settings = {}; commit;"
        ).format(sql.SQL("").join(deletes), json.dumps({REOPENS: agents.reopens}))
    )


async def act(admin: psycopg.AsyncConnection, world: World, agents: Agents) -> None:
    """Do what agents did, of people who are known by then."""
    for block in agents.blocks:
        workspace = world.workspace_a if block.workspace == "A" else world.workspace_b
        await admin.execute(
            """
            with who as (
              select workspace_id, contact_id from public.contact_identities
              where workspace_id = %(workspace)s and kind = 'bsuid' and value = %(user)s
            ), noted as (
              insert into app.contact_blocks (workspace_id, contact_id, blocked_at, unblocked_at)
              select workspace_id, contact_id, %(since)s, %(until)s from who
            ), marked as (
              update public.contacts c set blocked_at = %(since)s from who
              where c.workspace_id = who.workspace_id and c.id = who.contact_id and %(until)s::timestamptz is null
            )
            update public.whatsapp_conversations c set status = 'blocked', blocked_at = %(since)s from who
            where c.workspace_id = who.workspace_id and c.contact_id = who.contact_id
              and %(until)s::timestamptz is null
            """,
            {
                "workspace": workspace,
                "user": wire_user(block.user),
                "since": when(block.since),
                "until": None if block.until is None else when(block.until),
            },
        )
    for archive in agents.archives:
        await admin.execute(
            """
            update public.whatsapp_conversations c set status = 'archived', archived_at = %s
            from public.contact_identities i, public.whatsapp_channels h
            where c.workspace_id = i.workspace_id and c.contact_id = i.contact_id and i.kind = 'bsuid' and i.value = %s
              and h.id = c.channel_id and h.phone_number_id = %s
            """,
            (when(archive.at), wire_user(archive.user), NUMBERS[archive.channel].phone_number_id),
        )


@dataclass(frozen=True)
class Named:
    """What our ids stand for."""

    workspaces: dict[UUID, str]
    channels: dict[UUID, str]
    people: dict[UUID, People]


async def fetch(admin: psycopg.AsyncConnection, query: str) -> list[tuple[Any, ...]]:
    cursor = await admin.execute(query.encode())
    return await cursor.fetchall()


async def read_rows(admin: psycopg.AsyncConnection) -> Rows:
    """Read the rows, in the model's words."""
    named = await _names(admin)
    rows = Rows()
    for id_, workspace, name, username, opted_out_at, first_seen_at, blocked_at in await fetch(
        admin,
        "select id, workspace_id, name, username, opted_out_at, first_seen_at, blocked_at from public.contacts"
        " where merged_into is null",
    ):
        ids = named.people.get(id_, frozenset({f"nobody {id_}"}))
        rows.contacts[named.workspaces[workspace], ids] = Contact(
            name or None, username or None, minute(opted_out_at), minute(first_seen_at), blocked_at is not None
        )
    chats: dict[UUID, ChatKey] = {}
    for id_, channel, contact, group, status, unread, last_message_at, last_inbound_at, window in await fetch(
        admin,
        "select id, channel_id, contact_id, group_id, status, unread_count, last_message_at, last_inbound_at,"
        " window_expires_at from public.whatsapp_conversations where deleted_at is null and merged_into is null",
    ):
        chats[id_] = named.channels[channel], group or named.people.get(contact, frozenset({"nobody"}))
        hours = None if window is None else (window - last_inbound_at) / timedelta(hours=1)
        rows.chats[chats[id_]] = Chat(status, unread, minute(last_message_at), minute(last_inbound_at), hours)
    await _read_messages(admin, named, chats, rows)
    await _read_states_and_facts(admin, named, rows)
    return rows


async def _names(admin: psycopg.AsyncConnection) -> Named:
    workspaces: dict[UUID, str] = {}
    channels = {}
    for workspace, channel, number in await fetch(
        admin, "select workspace_id, id, phone_number_id from public.whatsapp_channels"
    ):
        channels[channel] = CHANNELS[number]
        workspaces[workspace] = CHANNELS[number][0]
    ids = defaultdict(set)
    for contact, value in await fetch(
        admin,
        """
        select contact_id, value from public.contact_identities i
        where user_id <> '' or not exists ( -- a phone's time before its first user id
          select from public.contact_identities o
          where (o.workspace_id, o.portfolio_id, o.kind, o.value) = (i.workspace_id, i.portfolio_id, i.kind, i.value)
            and o.user_id <> '')
        """,
    ):
        ids[contact].add(short(value))
    return Named(workspaces, channels, {contact: frozenset(theirs) for contact, theirs in ids.items()})


async def _read_messages(admin: psycopg.AsyncConnection, named: Named, chats: dict[UUID, ChatKey], rows: Rows) -> None:
    for row in await fetch(
        admin,
        """
        select channel_id, wamid, contact_id, conversation_id, direction, message_type, content, status, origin,
          edited_at, revoked_at, suppressed_at is not null, content_version, ai_state, reply_to_wamid, media.files
        from public.whatsapp_messages m
        cross join lateral (
          select count(*) filter (where state <> 'gone') as files from public.media f where f.message_id = m.id) media
        """,
    ):
        channel, wamid, contact, chat, direction, kind, content, status, origin, *rest = row
        edited_at, revoked_at, is_suppressed, version, ai_state, reply_to, files = rest
        key = named.channels[channel], wamid
        rows.messages[key] = Message(
            contact=named.people.get(contact, frozenset({"nobody"})),
            chat=chats.get(chat, ("?", "one that is gone")),
            direction=direction,
            type=kind,
            content=content,
            status=status,
            origin=origin,
            edited_at=minute(edited_at),
            revoked_at=minute(revoked_at),
            suppressed=is_suppressed,
            content_version=version,
            is_pending={"pending": True, "skipped": False}[ai_state],
            reply_to=reply_to,
        )
        if files:
            assert files == 1
            rows.media.add(key)


async def _read_states_and_facts(admin: psycopg.AsyncConnection, named: Named, rows: Rows) -> None:
    for channel, wamid, rank, *times, revoked_at, edited_at, edits in await fetch(
        admin,
        "select channel_id, wamid, rank, sent_at, failed_at, delivered_at, read_at, played_at, revoked_at, edited_at,"
        " edits from app.message_states",
    ):
        names = ("sent", "failed", "delivered", "read", "played")
        key = named.channels[channel], wamid
        state = State(
            rank=None if rank < 0 or key in rows.messages else ("queued", *names)[rank],
            times=tuple((name, minute(at)) for name, at in zip(names, times, strict=True) if at),
            revoked_at=minute(revoked_at),
            edited_at=minute(edited_at),
            edits=edits,
        )
        if state != State(None, (), None, None, 0):
            rows.states[key] = state
    latest: dict[tuple[str, str, People], tuple[datetime, str]] = {}
    for channel, wamid, kind, key, contact, at, emoji in await fetch(
        admin,
        "select channel_id, wamid, kind, key, contact_id, sent_at, payload ->> 'emoji' from public.message_events",
    ):
        about = named.channels[channel], wamid
        is_own = kind in ("reaction", "edit", "revoke")
        whose = named.people.get(contact, frozenset({"nobody"})) if kind == "reaction" or "call" in kind else None
        rows.facts.add(Fact(*about, kind, key if is_own else "", minute(at), whose))
        if kind == "reaction" and whose:
            latest[*about, whose] = max(latest.get((*about, whose), (at, "")), (at, emoji or ""))
    rows.reactions = {whose: emoji for whose, (_, emoji) in latest.items() if emoji}


def loosened(rows: Rows, by: Rows) -> Rows:
    """Forget what the definition leaves open, as `by` (the model's) says with None."""
    for key, message in rows.messages.items():
        if key in by.messages and by.messages[key].is_pending is None:
            rows.messages[key] = Message(**{**_fields(message), "is_pending": None})
    return rows


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


# Every column of these has to be the same whatever the order, but for our ids and times, places in a conversation,
# and work: that there is enough of it is checked apart, and a worker who finds nothing to do lets it go.
COMPARED = {
    "public.contacts": (),
    "public.contact_identities": ("kind", "value", "user_id"),
    "app.identity_changes": ("wamid",),
    "public.whatsapp_conversations": (),
    "public.whatsapp_messages": ("channel_id", "wamid"),
    "app.message_states": ("channel_id", "wamid"),
    "public.message_events": ("channel_id", "wamid", "kind", "key"),
    "public.media": ("message_id", "meta_id"),
    "app.outbox": ("message_id", "kind"),
}
GONE = {
    "public.contacts": " where merged_into is null",
    "public.whatsapp_conversations": " where merged_into is null and deleted_at is null",
    "app.outbox": " where state <> 'expired'",
}
OURS = {"id", "created_at", "seq", "next_seq", "first_seq", "read_seq", "next_attempt_at", "expires_at", "place"}
Table = dict[str, dict[str, str]]  # row → column → value


async def full_rows(admin: psycopg.AsyncConnection) -> Table:
    """Read every row that recording writes, our ids replaced by what they stand for."""
    named = await _names(admin)
    contacts = {str(contact): "+".join(sorted(ids)) for contact, ids in named.people.items()}
    channels = {str(channel): name for channel, name in named.channels.items()}
    chats, messages, media = {}, {}, {}
    for id_, channel, whose in await fetch(
        admin,
        "select id::text, channel_id, coalesce(group_id, contact_id::text) from public.whatsapp_conversations"
        " where merged_into is null",
    ):
        chats[id_] = f"{named.channels[channel]} {contacts.get(whose, whose)}"
    for id_, channel, wamid in await fetch(admin, "select id::text, channel_id, wamid from public.whatsapp_messages"):
        messages[id_] = f"{named.channels[channel]} {wamid}"
    for id_, meta_id in await fetch(admin, "select id::text, meta_id from public.media"):
        media[id_] = meta_id
    meaning = {
        "contact_id": contacts,
        "channel_id": channels,
        "conversation_id": chats,
        "message_id": messages,
        "media_id": media,
        "workspace_id": {str(workspace): name for workspace, name in named.workspaces.items()},
    }
    rows: Table = {}
    for table, keys in COMPARED.items():
        gone = GONE.get(table, "")
        for (row,) in await fetch(admin, f"select to_jsonb(t) from {table} t{gone}"):  # noqa: S608
            shown = {k: _told_apart(k, v, meaning) for k, v in row.items() if k not in OURS}
            whose = {"public.contacts": contacts, "public.whatsapp_conversations": chats}.get(table, {})
            label = [shown["workspace_id"], table.partition(".")[2], *(shown[k] for k in keys)]
            label = " ".join([*label, whose[row["id"]]] if whose else label)
            rows[label if label not in rows else f"{label} again"] = shown
    return rows


def _told_apart(column: str, value: Any, meaning: dict[str, dict[str, str]]) -> str:
    if isinstance(value, dict):
        value = {k: _told_apart(k, v, meaning) for k, v in sorted(value.items())}
    return meaning[column].get(value, f"{value}?") if column in meaning and value else str(value)


def contradictions(one: Table, other: Table) -> list[str]:
    """Say what two recordings of the same events disagree about."""
    lines = []
    for label in sorted({*one, *other}):
        mine, theirs = one.get(label, {}), other.get(label, {})
        if not mine or not theirs:
            lines.append(f"{label}: only in the {'first' if mine else 'second'}")
        else:
            lines += [f"{label} {k}: {mine[k]} / {theirs[k]}" for k in mine if mine[k] != theirs[k]]
    return lines


# --- Recording ---


@dataclass(frozen=True)
class Story:
    """What Meta tells, after a prelude that is recorded before agents act."""

    events: tuple[Event, ...]
    prelude: tuple[Event, ...] = ()
    agents: Agents = field(default_factory=Agents)

    def __repr__(self) -> str:
        lines = [f"    {told!r}," for told in self.events]
        if self.prelude:
            lines += [f"  after {list(self.prelude)}", f"  and {self.agents}"]
        return "Story((\n" + "\n".join(lines) + "\n))"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis would spell out every field


Batches = list[list[bytes]]  # what one recorder records, one batch after the other


@dataclass(frozen=True)
class Deal:
    """How events reach recorders. `seed` decides on order, batches and repeats."""

    seed: int = 0
    bodies: int = 1
    recorders: int = 1

    def out(self, events: Sequence[Event]) -> list[Batches]:
        random = Random(self.seed)
        bodies: list[list[Event]] = [[] for _ in range(self.bodies)]
        for told in events:
            for body in {random.randrange(self.bodies)} | {b for b in range(self.bodies) if random.random() < 0.1}:
                bodies[body] += [told] * random.choice((1, 1, 1, 2))
        raws = []
        for body in bodies:
            random.shuffle(body)
            if body:
                raws += [meta.body(*map(as_item, body), spread=random)] * random.choice((1, 1, 1, 2))
        random.shuffle(raws)
        recorders: list[Batches] = [[] for _ in range(self.recorders)]
        for raw in raws:
            batches = random.choice(recorders)
            if batches and random.random() < 0.5:
                batches[-1].append(raw)
            else:
                batches.append([raw])
        return recorders


def one_by_one(events: Iterable[Event]) -> list[Batches]:
    """Each event in a body and a transaction of its own, in that order."""
    return [[[meta.body(as_item(told))] for told in events]]


@dataclass
class Bench:
    """One database that is used again and again."""

    admin: psycopg.AsyncConnection
    store: PostgresTransport
    world: World

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("bench")

    async def record(self, story: Story, recorders: Iterable[Batches], order: Iterable[Event] = ()) -> Table:
        """Record a story from nothing: what was there first, what agents did, the rest. Return every row, in full.

        `order`: shown when the rows are not the model's.
        """
        await clear(self.admin, story.agents)
        if story.prelude:
            await self._record_in_turn([[meta.body(*map(as_item, story.prelude))]])
        await act(self.admin, self.world, story.agents)
        await asyncio.gather(*map(self._record_in_turn, recorders))
        await self._check(story, order)
        return await full_rows(self.admin)

    async def _record_in_turn(self, batches: Batches) -> None:
        webhooks = Webhooks(self.store)
        for batch in batches:
            bodies = [received(raw) for raw in batch]
            recorded = await webhooks.record(bodies, settle_s=0)
            assert accounted(recorded) == sum(b.parsed.items for b in bodies), (recorded, batch)

    async def _check(self, story: Story, order: Iterable[Event]) -> None:
        expected = expected_rows([*story.prelude, *story.events], story.agents)
        actual = loosened(await read_rows(self.admin), expected)
        found = differences(expected, actual)
        assert not found, "\n".join(["expected -, found +:", *found, *map(repr, order)])
        unseen = await fetch(
            self.admin,
            """
            select m.wamid from public.whatsapp_messages m where m.ai_state = 'pending' and not exists (
              select from app.conversation_work w where w.conversation_id = m.conversation_id)
            """,
        )
        assert unseen == [], "nobody will analyse these"
        unfetched = await fetch(
            self.admin,
            """
            select f.meta_id from public.media f where f.state = 'pending' and not exists (
              select from app.outbox o where o.message_id = f.message_id and o.state = 'due')
            """,
        )
        assert unfetched == [], "nobody will fetch these"
        wrong = await fetch(
            self.admin,
            "select items, stored, duplicate, unrouted, suppressed, quarantined from app.webhook_bodies"
            " where items <> stored + duplicate + unrouted + suppressed + quarantined or quarantined + unrouted > 0",
        )
        assert wrong == []


def assert_same(one: Table, other: Table, *where: str) -> None:
    found = contradictions(one, other)
    assert not found, "\n".join(["first / second:", *found, *where])


def accounted(recorded: Recorded) -> int:
    return recorded.stored + recorded.duplicate + recorded.unrouted + recorded.suppressed + recorded.quarantined


@pytest.fixture(scope="module")
async def bench(postgres_server: Postgres) -> AsyncIterator[Bench]:
    """A database for all tests here; no two recorders of any of them may deadlock."""
    name = "test_commutes"
    async with await psycopg.AsyncConnection.connect(postgres_server.url(), autocommit=True) as owner:
        await owner.execute(f"create database {name} template template_parley".encode())
        database = Database(postgres_server, name)
        async with await psycopg.AsyncConnection.connect(database.url(), autocommit=True) as admin:
            world = await build_world(admin)
            await admin.execute(
                "insert into public.whatsapp_channels"
                " (workspace_id, id, waba_id, portfolio_id, phone_number_id, display_phone_number)"
                " select workspace_id, %s, waba_id, portfolio_id, %s, %s from public.whatsapp_channels where id = %s",
                (new_id(), NUMBERS["A2"].phone_number_id, NUMBERS["A2"].display, world.channel_a),
            )
            async with postgres_transport(
                database.url("test_service"), service_role="service_role", max_connections=4
            ) as store:
                yield Bench(admin, store, world)
        # Closed connections have reported theirs.
        cursor = await owner.execute("select deadlocks from pg_stat_database where datname = %s", (name,))
        assert await cursor.fetchall() == [(0,)]
        await owner.execute(f"drop database {name} with (force)".encode())


# --- Stories at random ---

users, phones = st.sampled_from(["U1", "U2", "U3", "U4"]), st.sampled_from(["P1", "P2", "P3"])
channels = st.sampled_from(["A1", "A1", "A1", "A2", "B1"])
minutes = st.integers(1, 20)
names = st.sampled_from([None, "Ana", "Bea"])
anybody = st.one_of(st.builds(Ids, users), st.builds(Ids, st.none(), phones), st.builds(Ids, users, phones))
BLOCKED = [Ids("U8"), Ids("U8", "P8"), Ids(None, "P8")]
ARCHIVED = [Ids("U9"), Ids("U9", "P9"), Ids(None, "P9")]


@st.composite
def copies_of_a_letter(draw: st.DrawFn, wamid: str, people: st.SearchStrategy[Ids]) -> tuple[Letter, ...]:
    """One message in one to three copies, of which one wins whatever their order."""
    channel, at, who, words = draw(channels), draw(minutes), draw(people), draw(st.sampled_from("abc"))
    about = channel, wamid, at
    kind = draw(st.sampled_from(["in", "in", "in", "out", "out", "image", "old", "group", "file"]))
    outbound = draw(st.booleans()) if kind in ("old", "file") else kind == "out"
    old_ids = draw(st.sampled_from([who, Ids(who.user, None if who.user else who.phone)]))
    told = draw(st.sampled_from(["SENT", "DELIVERED", "READ", "ERROR"]))
    old = Letter(*about, old_ids, "old", origin="history", outbound=outbound, told=told)
    name = draw(names)
    username = draw(st.sampled_from([None, "ana"])) if name else None
    match kind:
        case "in" | "out":
            origin = "app" if outbound else "live"
            reply_to = draw(st.sampled_from([None, "m0", "x1"]))
            new = Letter(
                *about, who, words, origin=origin, outbound=outbound, name=name, username=username, reply_to=reply_to
            )
            return (new, old) if draw(st.booleans()) else (new,)
        case "image":
            new = Letter(*about, who, draw(st.sampled_from([None, "c"])), "image", name=name)
            placeholder = Letter(*about, old_ids, None, "media_placeholder", "history", told=told)
            return (new, placeholder) if draw(st.booleans()) else (new,)
        case "group":
            return (Letter(*about, who, words, name=name, group="G1"),)
        case "old":
            return (old,)
    # A file names its sender by phone, or, when it is ours, nobody.
    whose = who if outbound else Ids(None, who.phone or "P1")
    placeholder = Letter(*about, whose, None, "media_placeholder", "history", outbound, told)
    file = Letter(
        *about, Ids() if outbound else whose, draw(st.sampled_from([None, "f"])), "image", "history", outbound
    )
    return draw(st.sampled_from([(placeholder,), (placeholder, file), (placeholder, file), (file,)]))


@st.composite
def facts_about(draw: st.DrawFn, own: str, letters: Sequence[Letter], people: st.SearchStrategy[Ids]) -> Event:
    """Something about a message, one of these or unknown."""
    stray = Letter("A1", draw(st.sampled_from(["x1", "x2"])), 1, draw(people), "x", outbound=draw(st.booleans()))
    letter = draw(st.sampled_from([stray, *letters]))
    channel, at, name, who = letter.channel, draw(minutes), draw(names), letter.who
    who = stray.who if who == Ids() else who
    kinds = ["revoke"]
    kinds += ["edit", "edit"] if letter.type == "text" else []
    kinds += ["reaction"] if letter.group is None else []
    kinds += ["status"] * 4 if letter.outbound else []
    match draw(st.sampled_from(kinds)):
        case "status":
            kind = draw(st.sampled_from(["sent", "delivered", "read", "played", "failed", "teleported"]))
            return Status(channel, letter.wamid, at, who, kind, None if kind == "failed" else name)
        case "edit":
            return Edit(channel, own, at, who, letter.wamid, draw(st.sampled_from("def")), name, letter.outbound)
        case "reaction":
            return Reaction(channel, own, at, who, letter.wamid, draw(st.sampled_from(["", "+", "-"])), name)
    return Revoke(channel, own, at, who, letter.wamid, name, letter.outbound)


@st.composite
def other_facts(draw: st.DrawFn, own: str, people: st.SearchStrategy[Ids], renamed: st.SearchStrategy[str]) -> Event:
    """A call, a wish about marketing, or ids that change."""
    channel, at = draw(channels), draw(minutes)
    user, old_phone, phone = draw(users), draw(phones), draw(phones)
    previous = draw(renamed.filter(lambda one: one != user))
    kinds = ["call", "wish", "number", "user id", "number, no previous", "legacy"]
    if phone == old_phone:
        kinds = [*kinds[:2], "user id"]
    match draw(st.sampled_from(kinds)):
        case "call":
            return Call(channel, own, at, draw(people), draw(st.booleans()))
        case "wish":
            return Preference(channel, own, at, draw(people), at % 2 == 0)
        case "number":
            return Change(channel, own, at, previous, old_phone, user, phone)
        case "user id":
            return Change(channel, own, at, previous, None, user)
        case "number, no previous":
            return Change(channel, own, at, None, old_phone, user, phone)
    return Change(channel, own, at, None, old_phone, None, phone)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    prelude: list[Event] = []
    blocks, archives = [], []
    people, renamed = anybody, users
    if draw(st.booleans()):
        blocks = [Block("A", "U8", 5.5, draw(st.sampled_from([None, 12.5])))]
        prelude.append(Letter("A1", "m8", 0, Ids("U8", "P8"), "b"))
        people, renamed = st.one_of(people, st.sampled_from(BLOCKED)), st.one_of(users, st.just("U8"))
    if draw(st.booleans()):
        archives = [Archive("A1", "U9", 6.5)]
        prelude.append(Letter("A1", "m9", 0, Ids("U9", "P9"), "z"))
        people = st.one_of(people, st.sampled_from(ARCHIVED))
    letters = [copy for n in range(draw(st.integers(1, 7))) for copy in draw(copies_of_a_letter(f"m{n}", people))]
    told = letters + [draw(facts_about(f"f{n}", letters, people)) for n in range(draw(st.integers(0, 8)))]
    told += [draw(other_facts(f"o{n}", people, renamed)) for n in range(draw(st.integers(0, 5)))]
    return Story(tuple(told), tuple(prelude), Agents(tuple(blocks), tuple(archives), draw(st.booleans())))


deals = st.builds(Deal, st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 4))
EXAMPLES = int(os.environ.get("PARLEY_EXAMPLES", "0"))


@settings(
    max_examples=EXAMPLES or 50,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(story=stories(), first=deals, second=deals)
async def test_rows_are_a_function_of_the_set_of_events(bench: Bench, story: Story, first: Deal, second: Deal) -> None:
    one = await bench.record(story, first.out(story.events))
    other = await bench.record(story, second.out(story.events))

    assert_same(one, other)


# --- Hard cases, one by one ---

U1, U2, U3, P1, P2 = Ids("U1"), Ids("U2"), Ids("U3"), Ids(None, "P1"), Ids(None, "P2")
U1_P1, U2_P1, U2_P2, U3_P2 = Ids("U1", "P1"), Ids("U2", "P1"), Ids("U2", "P2"), Ids("U3", "P2")


def old(wamid: str, at: int, who: Ids, text: str | None = "old", **more: Any) -> Letter:
    return Letter("A1", wamid, at, who, text, origin="history", **more)


def ours(wamid: str, at: int, who: Ids, text: str = "ours", **more: Any) -> Letter:
    return Letter("A1", wamid, at, who, text, origin="app", outbound=True, **more)


BLOCK = {
    "prelude": (Letter("A1", "m8", 0, Ids("U8", "P8"), "b"),),
    "agents": Agents(blocks=(Block("A", "U8", 5.5, 12.5),)),
}
STILL_BLOCKED = BLOCK | {"agents": Agents(blocks=(Block("A", "U8", 5.5),))}
ARCHIVE = {
    "prelude": (Letter("A1", "m9", 0, Ids("U9", "P9"), "z"),),
    "agents": Agents(archives=(Archive("A1", "U9", 6.5),)),
}
REOPENING = ARCHIVE | {"agents": Agents(archives=(Archive("A1", "U9", 6.5),), reopens=True)}

CASES = {
    "a number that is used by someone else": Story(
        (
            Letter("A1", "m1", 1, U1_P1, "a", name="Ana"),
            Letter("A1", "m2", 3, P1, "b"),
            Letter("A1", "m3", 5, U2_P1, "c", name="Bea"),
            Letter("A1", "m4", 7, P1, "d"),
        )
    ),
    "a phone only, then its user id": Story(
        (
            Letter("A1", "m1", 1, P1, "a", name="Ana"),
            Letter("A1", "m2", 2, U1_P1, "b"),
            Letter("A1", "m3", 3, P1, "c"),
        )
    ),
    "a user id and a phone apart, then together": Story(
        (Letter("A1", "m1", 1, P1, "a"), Letter("A1", "m2", 2, U1, "b"), Letter("A1", "m3", 3, U1_P1, "c"))
    ),
    "an earlier sighting takes phone-only messages away": Story(
        (
            Letter("A1", "m1", 6, P1, "a", name="Ana"),
            Letter("A1", "m2", 9, U1_P1, "b"),
            Letter("A1", "m3", 3, U2_P1, "c"),
        )
    ),
    "a sighting in between takes phone-only messages away": Story(
        (
            Letter("A1", "m1", 2, U1_P1, "a"),
            Letter("A1", "m2", 6, P1, "b", name="Ana"),
            Letter("A1", "m3", 4, U2_P1, "c"),
        )
    ),
    "a name stays with the user id it was told of": Story(
        (
            Letter("A1", "m1", 3, P1, "a"),
            Letter("A1", "m2", 5, U2_P1, "b", name="Bea"),
            Letter("A1", "m3", 1, U1_P1, "c", name="Ana"),
        )
    ),
    "a wish stays with the user id it was told of": Story(
        (
            Letter("A1", "m1", 3, P1, "a"),
            Preference("A1", "o1", 5, U2_P1, True),
            Letter("A1", "m2", 1, U1_P1, "c"),
        )
    ),
    "names go apart again with people who were not one after all": Story(
        (
            Letter("A1", "m1", 1, U1_P1, "a", name="Ana"),
            Change("A1", "o1", 9, None, "P1", "U2", "P2"),
            Letter("A1", "m2", 10, U2_P2, "b", name="Bea"),
            Letter("A1", "m3", 6, Ids("U3", "P1"), "c"),
        )
    ),
    "another user id under the same number": Story(
        (Letter("A1", "m1", 1, U1_P1, "a"), Change("A1", "o1", 5, None, "P1", "U2", "P1"))
    ),
    "what a phone-only person wanted goes with the messages": Story(
        (
            Preference("A1", "o1", 6, P1, True),
            Letter("A1", "m1", 9, U1_P1, "b"),
            Letter("A1", "m2", 3, U2_P1, "c"),
        )
    ),
    "a phone-only reaction and call go with the messages": Story(
        (
            Reaction("A1", "f1", 6, P1, "x1", "+"),
            Call("A1", "o1", 7, P1),
            Letter("A1", "m1", 9, U1_P1, "b"),
            Letter("A1", "m2", 3, U2_P1, "c"),
        )
    ),
    "a number change with the previous id": Story(
        (
            Letter("A1", "m1", 1, U1_P1, "a", name="Ana"),
            Change("A1", "o1", 4, "U1", "P1", "U2", "P2"),
            Letter("A1", "m2", 6, U2_P2, "b", name="Bea"),
        )
    ),
    "a number change without the previous id": Story(
        (
            Letter("A1", "m1", 1, U1_P1, "a"),
            Change("A1", "o1", 4, None, "P1", "U2", "P2"),
            Letter("A1", "m2", 6, U2_P2, "b"),
        )
    ),
    "a number change of a phone nobody was seen with": Story(
        (Letter("A1", "m1", 1, P1, "a"), Change("A1", "o1", 4, None, "P1", "U2", "P2"), Letter("A1", "m2", 6, U2, "b"))
    ),
    "a number change whose old phone turns out to be someone else's": Story(
        (
            Letter("A1", "m1", 1, U1_P1, "a"),
            Change("A1", "o1", 9, None, "P1", "U2", "P2"),
            Letter("A1", "m2", 6, Ids("U3", "P1"), "b"),
            Letter("A1", "m3", 10, U2_P2, "c"),
        )
    ),
    "a legacy number change between phones": Story(
        (Letter("A1", "m1", 1, P1, "a"), Change("A1", "o1", 4, None, "P1", None, "P2"), Letter("A1", "m2", 6, P2, "b"))
    ),
    "a legacy number change between user ids": Story(
        (
            Letter("A1", "m1", 1, U1_P1, "a"),
            Change("A1", "o1", 4, None, "P1", None, "P2"),
            Letter("A1", "m2", 6, U2_P2, "b"),
        )
    ),
    "a chain of user ids": Story(
        (
            Letter("A1", "m1", 1, U1, "a"),
            Change("A1", "o1", 4, "U1", None, "U2"),
            Change("A1", "o2", 6, "U2", None, "U3"),
            Letter("A1", "m2", 9, U3, "b"),
        )
    ),
    "a change before any message": Story((Change("A1", "o1", 4, "U1", None, "U2"), Letter("A1", "m1", 1, U1, "a"))),
    "a number change before any message": Story(
        (Change("A1", "o1", 4, "U1", "P1", "U2", "P2"), Letter("A1", "m1", 1, P1, "a"))
    ),
    "two who turn out to be one, both with a chat and unread": Story(
        (
            Letter("A1", "m1", 1, U1, "a", name="Ana"),
            Letter("A1", "m2", 2, U2, "b", name="Bea"),
            Letter("A2", "m3", 2, U2, "b"),
            Change("A1", "o1", 4, "U1", None, "U2"),
        )
    ),
    "wishes of two who turn out to be one": Story(
        (
            Preference("A1", "o1", 1, U1, True),
            Preference("A1", "o2", 2, U2, False),
            Change("A1", "o3", 4, "U1", None, "U2"),
        )
    ),
    "a revoke before its message": Story(
        (Revoke("A1", "f1", 4, U1, "m1"), Letter("A1", "m1", 1, U1, "a"), Edit("A1", "f2", 2, U1, "m1", "d"))
    ),
    "a revoked image": Story((Revoke("A1", "f1", 4, U1, "m1"), Letter("A1", "m1", 1, U1, "a", "image"))),
    "an edit older than an edit": Story(
        (
            Letter("A1", "m1", 1, U1, "a"),
            Edit("A1", "f1", 4, U1, "m1", "d"),
            Edit("A1", "f2", 2, U1, "m1", "e"),
            Edit("A1", "f3", 4, U1, "m1", "f"),
        )
    ),
    "live after history": Story(
        (old("m1", 1, U1), Letter("A1", "m1", 1, U1_P1, "new", name="Ana"), Edit("A1", "f1", 2, U1, "m1", "d"))
    ),
    "an echo after history": Story(
        (old("m1", 1, U1, outbound=True, told="READ"), ours("m1", 1, U1_P1), Status("A1", "m1", 3, U1, "delivered"))
    ),
    "a file after its placeholder": Story(
        (
            old("m1", 1, U1_P1, None, type="media_placeholder", outbound=True, told="PLAYED"),
            old("m1", 1, Ids(), "price list", type="image", outbound=True),
            old("m2", 2, P1, None, type="media_placeholder"),
            old("m2", 2, P1, "torn seam", type="image"),
        )
    ),
    "a file beside its placeholder and another's message": Story(
        (
            Letter("A1", "m1", 1, U2, "a"),
            old("m2", 1, U1, None, type="media_placeholder", outbound=True, told="SENT"),
            old("m2", 1, Ids(), None, type="image", outbound=True),
        )
    ),
    "a live image and its placeholder in history": Story(
        (old("m1", 1, U1, None, type="media_placeholder"), Letter("A1", "m1", 1, U1, None, "image"))
    ),
    "a status before and after its echo": Story(
        (
            Status("A1", "m1", 3, U1, "delivered", "Ana"),
            ours("m1", 1, U1),
            Status("A1", "m1", 2, U1, "sent"),
            Status("A1", "m1", 9, U1, "read"),
        )
    ),
    "failed, yet delivered": Story(
        (ours("m1", 1, U1), Status("A1", "m1", 2, U1, "failed"), Status("A1", "m1", 3, U1, "delivered"))
    ),
    "a status told at two times": Story(
        (ours("m1", 1, U1), Status("A1", "m1", 4, U1, "read"), Status("A1", "m1", 3, U1, "read"))
    ),
    "a name in a status is only shown while there is no profile": Story(
        (Status("A1", "x1", 9, U1, "read", "Ana"), Letter("A1", "m1", 1, U1, "a", name="Bea"))
    ),
    "statuses of a message of nobody": Story(
        (
            Status("A1", "x1", 9, U1_P1, "read"),
            Status("A1", "x1", 2, P1, "failed"),
            Status("A1", "x1", 5, U2, "warning"),
        )
    ),
    "suppressed, although it arrives after the block": Story(
        (
            Letter("A1", "m1", 7, Ids(None, "P8"), "a"),
            Letter("A1", "m2", 15, Ids("U8"), "b"),
            Letter("A1", "m3", 3, Ids("U8"), "c"),
        ),
        **BLOCK,  # type: ignore[arg-type]
    ),
    "only suppressed": Story((Letter("A2", "m1", 7, Ids("U8"), "a"), Call("A2", "o1", 8, Ids("U8"))), **STILL_BLOCKED),  # type: ignore[arg-type]
    "a blocked person turns out to be another too": Story(
        (
            Letter("A1", "m1", 7, U1, "a"),
            Letter("A2", "m2", 4, U1, "b"),
            Change("A1", "o1", 14, "U8", None, "U1"),
        ),
        **STILL_BLOCKED,  # type: ignore[arg-type]
    ),
    "a blocked person's number turns out to have been someone else's": Story(
        (Letter("A1", "m1", 10, Ids(None, "P8"), "a"), Letter("A1", "m2", 6, Ids("U3", "P8"), "b")),
        **STILL_BLOCKED,  # type: ignore[arg-type]
    ),
    "archived stays archived": Story((Letter("A1", "m1", 7, Ids("U9"), "a"),), **ARCHIVE),  # type: ignore[arg-type]
    "archived reopens by what was sent later": Story(
        (Letter("A1", "m1", 7, Ids("U9"), "a"), Revoke("A1", "f1", 8, Ids("U9"), "m1")),
        **REOPENING,  # type: ignore[arg-type]
    ),
    "archived reopens neither by what was sent earlier nor by a reaction": Story(
        (Letter("A1", "m1", 6, Ids("U9"), "a"), Reaction("A1", "f1", 8, Ids("U9"), "m1", "+")),
        **REOPENING,  # type: ignore[arg-type]
    ),
    "a reaction before there is a chat": Story(
        (
            Reaction("A1", "f1", 3, U1, "x1", "+"),
            Reaction("A1", "f2", 5, U1, "x1", ""),
            Call("A1", "o1", 4, U1),
            ours("m1", 1, U1),
        )
    ),
    "a group": Story(
        (Letter("A1", "m1", 1, U1, "a", group="G1"), Letter("A1", "m2", 2, U2_P1, "b", group="G1"), old("m3", 3, U1))
    ),
    "the same ids in two workspaces": Story(
        (
            Letter("A1", "m1", 1, U1_P1, "a"),
            Letter("B1", "m1", 2, U2_P1, "b"),
            Change("B1", "o1", 4, "U1", None, "U2"),
        )
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_in_any_order(bench: Bench, case: str) -> None:
    story = CASES[case]
    orders = list(itertools.permutations(story.events))
    Random(1).shuffle(orders)
    orders = [story.events, story.events[::-1], *orders[:6]]

    first = await bench.record(story, one_by_one(orders[0]), orders[0])
    for order in orders[1:]:
        other = await bench.record(story, one_by_one(order), order)
        assert_same(first, other, f"{list(orders[0])}\nand\n{list(order)}")
    for deal in (Deal(), Deal(seed=3, bodies=4, recorders=3)):
        assert_same(first, await bench.record(story, deal.out(story.events)), f"{deal}")


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::3])
async def test_what_was_revoked_is_kept_in_no_table_but_the_log(bench: Bench, order: tuple[int, ...]) -> None:
    events: list[Event] = [
        Letter("A1", "m1", 1, U1, "secret"),
        Edit("A1", "f1", 2, U1, "m1", "secret too"),
        Edit("A1", "f2", 3, U1, "m1", "secret as well"),
        Revoke("A1", "f3", 4, U1, "m1"),
    ]
    story = Story(tuple(events[n] for n in order))

    rows = await bench.record(story, one_by_one(story.events))

    assert {label: row for label, row in rows.items() if "secret" in json.dumps(row)} == {}


# --- The model, by hand ---


def model(case: str) -> Rows:
    story = CASES[case]
    return expected_rows([*story.prelude, *story.events], story.agents)


def test_model_gives_a_number_to_who_was_last_seen_with_it() -> None:
    rows = model("a number that is used by someone else")

    first, second = frozenset({"U1", "P1"}), frozenset({"U2", "P1"})
    assert {key: message.contact for key, message in rows.messages.items()} == {
        ("A1", "m1"): first,
        ("A1", "m2"): first,
        ("A1", "m3"): second,
        ("A1", "m4"): second,
    }
    assert rows.contacts == {
        ("A", first): Contact("Ana", None, None, 1, False),
        ("A", second): Contact("Bea", None, None, 5, False),
    }


def test_model_gives_phone_only_messages_to_the_earliest_sighting() -> None:
    rows = model("an earlier sighting takes phone-only messages away")

    assert rows.messages["A1", "m1"].contact == {"U2", "P1"}
    assert rows.contacts["A", frozenset({"U1", "P1"})] == Contact(None, None, None, 9, False)
    assert rows.contacts["A", frozenset({"U2", "P1"})] == Contact("Ana", None, None, 3, False)


def test_model_joins_by_the_owner_of_the_old_phone_just_then() -> None:
    rows = model("a number change whose old phone turns out to be someone else's")

    assert set(rows.contacts) == {("A", frozenset({"U1", "P1"})), ("A", frozenset({"U3", "P1", "U2", "P2"}))}


def test_model_makes_one_chat_of_two() -> None:
    rows = model("two who turn out to be one, both with a chat and unread")

    both = frozenset({"U1", "U2"})
    assert rows.chats == {("A1", both): Chat("open", 2, 2, 2, 24), ("A2", both): Chat("open", 1, 2, 2, 24)}
    assert rows.contacts == {("A", both): Contact("Bea", None, None, 1, False)}


def test_model_suppresses_by_when_it_was_sent() -> None:
    rows = model("suppressed, although it arrives after the block")

    assert {wamid: m.suppressed for (_, wamid), m in rows.messages.items()} == {
        "m8": False,
        "m1": True,
        "m2": False,
        "m3": False,
    }
    assert rows.chats["A1", frozenset({"U8", "P8"})] == Chat("open", 3, 15, 15, 24)


def test_model_shows_the_latest_edit_unless_revoked() -> None:
    edited = model("an edit older than an edit").messages["A1", "m1"]
    revoked = model("a revoke before its message").messages["A1", "m1"]

    assert (edited.content, edited.edited_at, edited.content_version, edited.is_pending) == ("f", 4, 4, True)
    assert (revoked.content, revoked.revoked_at, revoked.is_pending) == (None, 4, False)


def test_model_ranks_statuses() -> None:
    delivered = model("failed, yet delivered")
    told = model("a status before and after its echo")

    assert delivered.messages["A1", "m1"].status == "delivered"
    assert told.messages["A1", "m1"].status == "read"
    assert told.states["A1", "m1"].times == (("sent", 2), ("delivered", 3), ("read", 9))
