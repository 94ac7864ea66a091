"""Read marks, typing and blocks: queued in PostgreSQL, done at the sandbox's Graph, shown to people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from deploy.local.ports import any_free_port
from services.api.shapes import ContactState
from services.sender import dispatcher
from services.sender.chores import Again, Done, Failed
from services.sender.settings import DispatcherSettings
from shared.domain.ids import new_id
from shared.domain.person import Person
from shared.store.channels import Channels, ChannelWork
from shared.store.conversations import Conversations
from shared.store.postgres import PostgresTransport
from shared.store.sending import Sending
from shared.store.webhooks import Webhooks
from tests.conftest import Database
from tests.integration.chore_runs import KEYS, ChoreRun, chore_run, give_token
from tests.integration.conftest import ClaudeSandbox
from tests.world import PHONE_A, World, received, text_message, webhook

ANA = {"wa_id": "5511987650001", "user_id": "BR.1234567890123456"}


class Office:
    """The owner of workspace A, at work on what Ana wrote."""

    def __init__(
        self, world: World, admin: psycopg.AsyncConnection, api: PostgresTransport, service: PostgresTransport
    ) -> None:
        self.workspace_id, self.channel_id, self.admin = world.workspace_a, world.channel_a, admin
        self._me = Person(world.owner_a, world.claims(world.owner_a))
        self._conversations, self._sending, self._channels = Conversations(api), Sending(api), Channels(api)
        self._webhooks = Webhooks(service)
        self.conversation_id = self.contact_id = UUID(int=0)

    async def write(self, *wamids: str, keep: bool = False, **sender: Any) -> None:
        """Ana writes, and it is recorded; what recording asks of Meta is forgotten, unless it is to be kept."""
        messages = [text_message("Hello?", wamid=wamid, **ANA | sender) for wamid in wamids]
        await self._webhooks.record([received(webhook(*messages))], settle_s=0)
        ((self.conversation_id, self.contact_id),) = await self.rows(
            "select id, contact_id from public.whatsapp_conversations where channel_id = %s", self.channel_id
        )
        if not keep:
            await self.rows("delete from app.outbox returning 1")

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return await (await self.admin.execute(query.encode(), values)).fetchall()

    async def due(self) -> list[str]:
        return [kind for (kind,) in await self.rows("select kind from app.outbox where state = 'due' order by kind")]

    async def policy(self, mark_read: str) -> None:
        await self._channels.change_settings(self.workspace_id, {"mark_read": mark_read}, as_user=self._me)

    async def read(self, seen_seq: int) -> None:
        await self._conversations.mark_read(
            self.workspace_id, self.conversation_id, seen_seq=seen_seq, as_user=self._me
        )

    async def type(self) -> None:
        await self._sending.start_typing(self.workspace_id, self.conversation_id, as_user=self._me)

    async def queue_mark(self) -> None:
        """Ask for a read mark as recording does."""
        await self.rows(
            "select app.queue_chore(%s, %s, 'mark_read', '{}', 3::smallint, '1 day', %s)",
            self.workspace_id,
            self.channel_id,
            self.conversation_id,
        )

    async def block(self) -> ContactState:
        answer = await self._conversations.block_contact(self.workspace_id, self.contact_id, as_user=self._me)
        return ContactState.model_validate_json(answer)

    async def unblock(self) -> ContactState:
        answer = await self._conversations.unblock_contact(self.workspace_id, self.contact_id, as_user=self._me)
        return ContactState.model_validate_json(answer)

    async def shown(self) -> list[tuple[str, str, str | None]]:
        """What the API says of blocking Ana at Meta: (wanted, state, reason) of each number."""
        answer = await self._channels.contact_blocks(self.workspace_id, self.contact_id, as_user=self._me)
        blocks = ContactState.model_validate_json(answer).meta_blocks
        return [(one.wanted, one.state, one.reason) for one in blocks]


@pytest.fixture
async def office(
    world: World, admin: psycopg.AsyncConnection, api_store: PostgresTransport, service_store: PostgresTransport
) -> Office:
    made = Office(world, admin, api_store, service_store)
    await give_token(admin, world.workspace_a, world.channel_a)
    await made.write("wamid.1", "wamid.2", "wamid.3")
    return made


@pytest.fixture
async def run(service_store: PostgresTransport, claude_process: ClaudeSandbox) -> AsyncIterator[ChoreRun]:
    async with chore_run(service_store, claude_process) as made:
        yield made


def marked(run: ChoreRun) -> list[tuple[str, bool]]:
    """What Meta was told was read, and whether typing came with it."""
    return [(one["message_id"], bool(one["typing"])) for one in run.read_marks()]


async def test_opening_tells_meta_where_the_workspace_wants_it(office: Office, run: ChoreRun) -> None:
    await office.read(1)
    by_default = await office.due()
    await office.policy("on_open")

    await office.read(2)
    await office.read(2)
    queued = await office.due()
    outcomes = await run.once()

    assert (by_default, queued, outcomes) == ([], ["mark_read"], [("mark_read", Done())])
    assert marked(run) == [("wamid.2", False)]  # not the third, which nobody has opened


async def test_one_mark_waits_for_a_conversation_however_often_it_is_opened(office: Office, run: ChoreRun) -> None:
    await office.policy("on_open")

    for seq in (1, 2, 3):
        await office.read(seq)

    assert await office.due() == ["mark_read"]
    await run.once()
    assert marked(run) == [("wamid.3", False)]


@pytest.mark.parametrize(
    "change",
    [
        'update public.workspaces set settings = \'{"mark_read": "never"}\' returning 1',
        "update public.whatsapp_messages set sent_at = now() - interval '31 days' returning 1",
        "update public.whatsapp_messages set origin = 'history' returning 1",
        "update public.whatsapp_messages set revoked_at = now() returning 1",
        "update public.whatsapp_conversations set status = 'blocked' returning 1",
        "update public.whatsapp_conversations set status = 'deleted', deleted_at = now() returning 1",
    ],
)
async def test_what_holds_when_the_mark_is_made_decides(office: Office, run: ChoreRun, change: str) -> None:
    await office.queue_mark()
    await office.rows(change)

    assert await run.once() == [("mark_read", Done())]
    assert run.calls() == []


async def test_a_mark_on_receipt_is_of_the_newest_message_there_is(office: Office, run: ChoreRun) -> None:
    await office.queue_mark()
    await office.rows("update public.whatsapp_messages set suppressed_at = now() where wamid = 'wamid.3' returning 1")

    await run.once()

    assert marked(run) == [("wamid.2", False)]


async def test_typing_shows_with_the_mark_and_not_without(office: Office, run: ChoreRun) -> None:
    await office.type()
    await run.once("typing")
    await office.policy("never")
    await office.type()

    assert await run.once("typing") == [("typing", Done())]
    assert marked(run) == [("wamid.3", True)]


async def test_typing_that_comes_too_late_is_not_shown(office: Office, run: ChoreRun) -> None:
    await office.type()
    ((lives_s,),) = await office.rows("select extract(epoch from expires_at - created_at)::int from app.outbox")
    await office.rows("update app.outbox set expires_at = now() returning 1")

    assert (lives_s, await run.once("typing"), run.calls()) == (20, [], [])


async def test_blocking_blocks_at_meta_and_unblocking_likewise(office: Office, run: ChoreRun) -> None:
    run.wrote(PHONE_A, **ANA)

    blocked = await office.block()
    asked = await office.shown()
    assert await run.once() == [("block", Done())]
    done = await office.shown()
    await office.unblock()
    assert await run.once() == [("unblock", Done())]

    assert blocked.blocked_at is not None
    assert (asked, done) == ([("block", "asked", None)], [("block", "done", None)])
    assert await office.shown() == [("unblock", "done", None)]
    assert run.calls() == [("POST", f"{PHONE_A}/block_users"), ("DELETE", f"{PHONE_A}/block_users")]


async def test_who_did_not_write_within_a_day_is_blocked_here_and_the_reason_is_said(
    office: Office, run: ChoreRun
) -> None:
    await office.block()

    ((_, outcome),) = await run.once()

    assert isinstance(outcome, Failed)
    assert await office.shown() == [("block", "refused", "not_recent")]
    ((entry,),) = await office.rows("select meta_blocks from public.contacts where id = %s", office.contact_id)
    assert entry[str(office.channel_id)]["sentence"].startswith("Blocked here, not yet at WhatsApp")


async def test_who_could_not_be_blocked_is_blocked_once_they_write_again(
    office: Office, run: ChoreRun, service_store: PostgresTransport
) -> None:
    work = ChannelWork(service_store)
    await office.rows("update public.whatsapp_messages set sent_at = now() - interval '2 days' returning 1")
    await office.block()
    await run.once()

    queued = [await work.schedule_blocks()]
    await office.write("wamid.4", sent_at=datetime.now(UTC) + timedelta(seconds=2))
    queued += [await work.schedule_blocks(), await work.schedule_blocks()]
    run.wrote(PHONE_A, **ANA)
    await run.once()

    assert queued == [0, 1, 0]
    assert await office.shown() == [("block", "done", None)]


async def test_recording_tells_meta_unless_the_workspace_says_otherwise(office: Office, run: ChoreRun) -> None:
    await office.write("wamid.4", keep=True)
    await office.write("wamid.5", keep=True)
    queued = await office.due()
    await run.once()
    await office.policy("on_open")
    await office.write("wamid.6", keep=True)

    assert (queued, await office.due()) == (["mark_read"], [])
    assert marked(run) == [("wamid.5", False)]


async def test_an_unblock_that_overtakes_a_block_calls_it_off(office: Office, run: ChoreRun) -> None:
    await office.block()
    await office.unblock()

    assert await run.once() == []
    assert (run.calls(), await office.shown()) == ([], [("unblock", "done", None)])

    run.wrote(PHONE_A, **ANA)
    await office.block()
    await run.once()
    await office.unblock()
    await office.block()  # and the other way round: Meta has them blocked

    assert await run.once() == []
    assert await office.shown() == [("block", "done", None)]


async def test_an_unblock_waits_for_a_block_that_is_under_way(office: Office, run: ChoreRun) -> None:
    run.wrote(PHONE_A, **ANA)
    await office.block()
    await office.rows(  # another dispatcher is at it
        "update app.outbox set lease_token = %s, lease_until = now() + interval '1 minute', attempts = 1 returning 1",
        new_id(),
    )
    await office.unblock()

    ((kind, outcome),) = await run.once()

    assert kind == "unblock"
    assert isinstance(outcome, Again)
    assert outcome.error.reason == "overtaken"
    await office.rows(  # it died: whoever takes the block over finds that nobody wants it
        "update app.outbox set lease_until = now() - interval '1 second', next_attempt_at = now() returning 1"
    )
    assert sorted(await run.once()) == [("block", Done()), ("unblock", Done())]
    assert run.calls() == [("DELETE", f"{PHONE_A}/block_users")]


async def test_a_block_goes_to_every_number_with_a_token_they_talked_with(
    office: Office, world: World, run: ChoreRun, admin: psycopg.AsyncConnection
) -> None:
    for phone_number_id, has_token in (("111111111111111", True), ("222222222222222", False)):
        channel_id = new_id()
        await office.rows(
            "insert into public.whatsapp_channels"
            " (workspace_id, id, waba_id, portfolio_id, phone_number_id, display_phone_number)"
            " values (%s, %s, '318204775196043', '690113358247715', %s, '1') returning 1",
            office.workspace_id,
            channel_id,
            phone_number_id,
        )
        await office.rows(
            "insert into public.whatsapp_conversations (workspace_id, id, channel_id, contact_id, last_message_at)"
            " values (%s, %s, %s, %s, now()) returning 1",
            office.workspace_id,
            new_id(),
            channel_id,
            office.contact_id,
        )
        if has_token:
            await give_token(admin, world.workspace_a, channel_id)

    await office.block()

    assert await office.rows(
        "select c.phone_number_id, o.kind from app.outbox o join public.whatsapp_channels c on c.id = o.channel_id"
        " where o.kind = 'block' order by 1"
    ) == [("111111111111111", "block"), (PHONE_A, "block")]


async def test_who_has_no_user_id_is_blocked_by_phone_and_who_is_erased_is_not(
    office: Office, run: ChoreRun, service_store: PostgresTransport
) -> None:
    work = ChannelWork(service_store)
    by_id = await work.block_target(office.workspace_id, office.channel_id, office.contact_id, kind="block")
    await office.rows("update public.whatsapp_messages set sender_user_id = null returning 1")
    by_phone = await work.block_target(office.workspace_id, office.channel_id, office.contact_id, kind="block")
    nobody = await work.block_target(office.workspace_id, office.channel_id, new_id(), kind="block")
    run.wrote(PHONE_A, **ANA)
    await office.block()

    assert await run.once() == [("block", Done())]
    assert (by_id.user_id, by_phone.user_id, by_phone.wa_id) == (ANA["user_id"], None, ANA["wa_id"])
    assert nobody.contact_id is None


async def test_blocking_and_unblocking_at_once_ends_as_the_last_one_said(office: Office, run: ChoreRun) -> None:
    run.wrote(PHONE_A, **ANA)

    await asyncio.gather(*(one() for one in (office.block, office.unblock, office.block, office.unblock)))
    while await run.once():
        pass

    ((blocked_at, at_meta),) = await office.rows(
        "select blocked_at is not null, coalesce((meta_blocks -> %s ->> 'at_meta')::boolean, false)"
        " from public.contacts where id = %s",
        str(office.channel_id),
        office.contact_id,
    )
    assert blocked_at == at_meta


async def test_a_dispatcher_does_all_of_it_by_itself(
    office: Office, run: ChoreRun, database: Database, empty_redis: str, tmp_path: Path
) -> None:
    settings = DispatcherSettings.model_validate(
        {
            "database": {"url": database.url("test_service")},
            "redis": {"url": empty_redis},
            "http": {"internal_port": any_free_port()},
            "storage": {"dir": str(tmp_path)},
            "whatsapp": {"graph_url": f"{run.sandbox.url}/graph/v26.0", "token_keys": KEYS.private_key},
        }
    )
    await office.type()
    await office.rows(
        "select app.queue_first_chores(%s, %s)", office.workspace_id, office.channel_id
    )  # as connecting does
    stop = asyncio.Event()
    task = asyncio.create_task(dispatcher.run(settings, stop=stop))
    async with asyncio.timeout(20):
        while {"channel_check", "channel_subscribe"} & set(await office.due()) or not marked(run):
            await asyncio.sleep(0.02)
    stop.set()
    await task

    assert marked(run) == [("wamid.3", True)]
    ((outcome, is_subscribed),) = await office.rows(
        "select last_check ->> 'outcome', subscription -> 'is_subscribed' from public.whatsapp_channels where id = %s",
        office.channel_id,
    )
    assert (outcome, is_subscribed) == ("ok", True)
