"""What dispatchers, recorders and people do to the same messages at once: always the same end, no deadlock."""

from __future__ import annotations

import asyncio
import random

import psycopg
import pytest

from shared.domain.errors import Conflict
from shared.store.postgres import PostgresTransport
from shared.store.sending import Sending
from tests.integration.sends import Sends
from tests.world import World

PAIRS = 60


@pytest.fixture
async def sends(
    admin: psycopg.AsyncConnection, world: World, api_store: PostgresTransport, service_store: PostgresTransport
) -> Sends:
    made = Sends(admin, world, api_store, service_store)
    await made.prepare()
    return made


async def test_answers_and_statuses_side_by_side_end_the_same(sends: Sends) -> None:
    chance = random.Random(7)
    conversations = [await sends.customer(n) for n in range(PAIRS)]
    sent = [await sends.send(conversation_id=c) for c in conversations]
    place = {message["id"]: n for n, message in enumerate(sent)}
    claimed = []
    while found := (await sends.claim(30))["messages"]:
        claimed += found
    assert len(claimed) == PAIRS

    async def answer(batch: list[dict[str, object]]) -> None:
        await asyncio.sleep(chance.random() * 0.02)
        await sends.finish(batch, "accepted")

    async def doubt(batch: list[dict[str, object]]) -> None:
        await asyncio.sleep(chance.random() * 0.02)
        await sends.finish(batch, "unknown", error={"reason": "unclear"})

    async def report(one: dict[str, object], status: str) -> None:
        await asyncio.sleep(chance.random() * 0.02)
        wamid = f"wamid.out.{one['message_id']}.1"
        await sends.status(status, wamid=wamid, callback=f"{one['message_id']}.1", n=place[str(one["message_id"])])

    work = []
    for first in range(0, PAIRS, 6):
        batch = claimed[first : first + 6]
        chance.shuffle(batch)
        work.append(answer(batch[:3]))
        work.append(doubt(batch[3:]))
        work += [report(one, status) for one in batch for status in ("sent", "delivered", "delivered")]
    await asyncio.gather(*work)

    rows = await sends.rows(
        "select m.status, m.wamid = 'wamid.out.' || m.id || '.1', m.sending ->> 'sent_twice', o.state, a.outcome"
        " from public.whatsapp_messages m join app.outbox o on o.message_id = m.id and o.kind = 'message'"
        " join app.send_attempts a on a.message_id = m.id where m.direction = 'outbound'"
    )
    assert rows == [("delivered", True, None, "done", "accepted")] * PAIRS
    deadlocks = await sends.rows("select deadlocks from pg_stat_database where datname = current_database()")
    assert deadlocks == [(0,)]


async def test_two_dispatchers_never_have_the_same_message(sends: Sends) -> None:
    conversations = [await sends.customer(n) for n in range(PAIRS)]
    sent = [(await sends.send(str(n), conversation_id=c))["id"] for n in range(2) for c in conversations]

    async def dispatcher() -> list[str]:
        got = []
        for _ in range(40):
            messages = (await sends.claim(7))["messages"]
            got += [m["message_id"] for m in messages]
            if messages:
                await sends.finish(messages, "accepted")
        return got

    got = [one for each in await asyncio.gather(*(dispatcher() for _ in range(4))) for one in each]

    assert len(got) == len(set(got))
    assert set(got) == set(sent)
    order = await sends.rows(
        "select count(*) from app.send_attempts a join app.outbox o on o.id = a.outbox_id join app.outbox p"
        " on p.lane = o.lane and p.place > o.place and p.kind = 'message'"
        " join app.send_attempts b on b.outbox_id = p.id where b.started_at < a.settled_at"
    )
    assert order == [(0,)], "a conversation's second message began before its first was settled"


async def test_a_message_is_cancelled_or_sent_and_never_both(sends: Sends) -> None:
    conversations = [await sends.customer(n) for n in range(20)]
    sent = [(await sends.send(conversation_id=c))["id"] for c in conversations]
    sending = Sending(sends.api)

    async def cancel(message_id: str) -> str | None:
        try:
            await sending.cancel(sends.world.workspace_a, message_id, as_user=sends.person)  # type: ignore[arg-type]
        except Conflict:
            return None
        return message_id

    async def claim() -> list[str]:
        return [m["message_id"] for _ in range(4) for m in (await sends.claim(5))["messages"]]

    claimed, *cancelled = await asyncio.gather(claim(), *map(cancel, sent))

    taken_back = {one for one in cancelled if one}
    assert taken_back.isdisjoint(claimed)
    assert taken_back | set(claimed) <= set(sent)
