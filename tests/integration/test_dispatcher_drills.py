"""kill -9 at each named point around Meta's acceptance, statuses late: nothing is sent twice, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
import redis.asyncio

from shared.queue.streams import STREAM
from shared.store.postgres import PostgresTransport
from tests.integration.dispatching import Dispatching, until
from tests.integration.gate import Gate, gate
from tests.integration.sends import Sends


@pytest.fixture
def sends(d: Dispatching, api_store: PostgresTransport, service_store: PostgresTransport) -> Sends:
    """Only to be heard later: tokens are there."""
    return Sends(d.admin, d.world, api_store, service_store)


MESSAGES = 5
# Where it is killed: at which server's gate, what it was saying, whether that arrived; how many Meta has by then.
POINTS: dict[str, tuple[Literal["postgres", "graph"], bytes, Literal["request", "answer"], int]] = {
    "before_claim": ("postgres", b"claim_messages", "request", 0),
    "after_claim_before_call": ("postgres", b"claim_messages", "answer", 0),
    "after_bytes_sent": ("graph", b"/messages", "request", 0),
    "after_acceptance_before_answer": ("graph", b"/messages", "answer", MESSAGES),
    "after_answer_before_finish": ("postgres", b"finish_messages", "request", MESSAGES),
    "during_finish": ("postgres", b"finish_messages", "answer", MESSAGES),
}
COMMITTED = {
    "after_claim_before_call": "select count(*) = 5 from app.outbox where lease_token is not null",
    "during_finish": "select count(*) > 0 from app.outbox where state = 'done'",  # answers may come in two batches
}


async def accepted_by_message(d: Dispatching) -> Counter[str]:
    return Counter(one["biz_opaque_callback_data"].partition(".")[0] for one in await d.accepted())


async def let_time_pass(d: Dispatching) -> None:
    """The killed process's leases end; the grace, half a second, passes by itself."""
    await d.rows(
        "update app.outbox set lease_until = now() - interval '1 second' where lease_token is not null returning 1"
    )


async def lag_intake(d: Dispatching, *, lags: bool) -> None:
    """Have an entry in our stream that nobody has recorded for two minutes; or take it away."""
    async with redis.asyncio.Redis.from_url(d.redis_url) as client:
        if lags:
            await client.xadd(STREAM, {"v": "2", "n": 0}, id=f"{int((time.time() - 120) * 1000)}-0")
        else:
            await client.delete(STREAM)


async def die_at(d: Dispatching, point: str) -> None:
    """Run a dispatcher until it is at the point, and kill it there."""
    where, word, what, _ = POINTS[point]
    postgres, meta = urlsplit(d.settings["DATABASE_URL"]), urlsplit(d.settings["WHATSAPP_GRAPH_URL"])
    async with gate(str(postgres.hostname), int(postgres.port or 0)) as to_postgres:
        async with gate(str(meta.hostname), int(meta.port or 0)) as to_meta:
            process = await d.start_process(
                DATABASE_URL=d.settings["DATABASE_URL"].replace(f":{postgres.port}/", f":{to_postgres.own_port}/"),
                WHATSAPP_GRAPH_URL=d.settings["WHATSAPP_GRAPH_URL"].replace(f":{meta.port}/", f":{to_meta.own_port}/"),
            )
            held: Gate = to_postgres if where == "postgres" else to_meta
            held.word, held.what = word, what
            wanted = 1 if where == "postgres" else MESSAGES

            async def is_there() -> bool:
                is_committed = True
                if (where, what) == ("postgres", "answer"):  # its first bytes may come before the transaction's end
                    is_committed = await d.rows(COMMITTED[point]) == [(True,)]
                return held.held >= wanted and is_committed

            try:
                await until(is_there, within_s=20, what=f"the dispatcher is at {point}")
            finally:
                process.kill()
                await process.wait()


async def settled(d: Dispatching) -> bool:
    return set(await d.states()) <= {"done", "in_doubt"}


@pytest.mark.parametrize("point", POINTS)
async def test_killed_at(d: Dispatching, sends: Sends, point: str) -> None:
    accepted_then = POINTS[point][3]
    d.statuses.is_late = True
    await lag_intake(d, lags=True)
    await d.queue_a(conversations=MESSAGES)

    await die_at(d, point)
    assert len(await d.accepted()) == accepted_then
    done_then = (await d.states()).get("done", 0)
    await let_time_pass(d)

    async with d.dispatcher():
        await until(lambda: settled(d), what="what was not claimed is sent, the rest is in doubt")
        await sends.hear_later()  # what the number's webhooks say is later than the attempts
        await asyncio.sleep(2.2)  # the grace, and two rounds of tending
        # Our own intake lags: silence says nothing yet, and nothing is sent again.
        in_doubt = (await d.states()).get("in_doubt", 0)
        assert in_doubt == (0 if point == "before_claim" else MESSAGES - done_then)
        assert max((await accepted_by_message(d)).values(), default=0) <= 1
        assert await d.rows(
            "select distinct sending ->> 'state', sending ->> 'until' is not null from public.whatsapp_messages"
            " where sending is not null"
        ) == ([("in_doubt", True)] if in_doubt else [])

        d.statuses.is_late = False
        await d.statuses.record()
        await lag_intake(d, lags=False)
        await until(lambda: _done(d), what="all are sent")
        await until(lambda: _delivered(d), what="all are delivered")

    assert await accepted_by_message(d) == dict.fromkeys(await message_ids(d), 1)
    by_status = await d.rows(
        "select count(*) from app.send_attempts where outcome = 'accepted' and evidence = 'status'"
    )
    assert by_status == [(in_doubt if accepted_then else 0,)]
    tried_again = await d.rows("select count(*) from app.send_attempts where evidence = 'silence'")
    assert tried_again == [(MESSAGES if in_doubt and not accepted_then else 0,)]


async def message_ids(d: Dispatching) -> list[str]:
    return [str(row[0]) for row in await d.rows("select id from public.whatsapp_messages where direction = 'outbound'")]


async def _done(d: Dispatching) -> bool:
    return await d.states() == {"done": MESSAGES}


async def _delivered(d: Dispatching) -> bool:
    found = await d.rows("select count(*) from public.whatsapp_messages where status = 'delivered'")
    return bool(found[0][0] == MESSAGES)


async def test_a_lost_reply_is_settled_by_its_status(d: Dispatching) -> None:
    await d.fault({"mode": "reply_lost"})
    await d.queue_a(conversations=MESSAGES)

    async with d.dispatcher():
        await until(lambda: _delivered(d), what="all are delivered")

    assert await accepted_by_message(d) == dict.fromkeys(await message_ids(d), 1)
    shown = await d.rows("select distinct sending ->> 'state', sending ->> 'evidence' from public.whatsapp_messages")
    assert shown == [("settled", "status")]


async def test_a_dispatcher_that_slept_through_its_lease_neither_repeats_nor_loses_what_meta_said(
    d: Dispatching,
) -> None:
    d.statuses.is_late = True
    await d.queue_a(conversations=MESSAGES)
    await d.fault({"mode": "slow", "latency_ms": 1500, "for": {"path": "/messages"}})
    process = await d.start_process()

    async def all_claimed() -> bool:
        found: list[Any] = await d.rows("select count(*) from app.outbox where lease_token is not null")
        return bool(found[0][0] == MESSAGES)

    try:
        await until(all_claimed, within_s=20, what="all are claimed")
        os.kill(process.pid, signal.SIGSTOP)
        await let_time_pass(d)
        async with d.dispatcher():
            await until(lambda: _in_doubt(d), what="another dispatcher finds the leases dead")
            os.kill(process.pid, signal.SIGCONT)
            await until(lambda: _done(d), what="the first wakes and records what Meta said")
    finally:
        process.kill()
        await process.wait()

    assert await accepted_by_message(d) == dict.fromkeys(await message_ids(d), 1)


async def _in_doubt(d: Dispatching) -> bool:
    return await d.states() == {"in_doubt": MESSAGES}
