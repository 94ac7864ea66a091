"""The dispatcher against Meta's stand-in: what is queued goes out, in order, paced, and its fate is recorded."""

from __future__ import annotations

import asyncio
import time

import redis.asyncio

from deploy.local.ports import any_free_port
from tests.integration.dispatching import Dispatching, until
from tests.world import PHONE_A, PHONE_B


async def all_done(d: Dispatching, count: int) -> bool:
    return await d.states() == {"done": count}


async def test_what_is_queued_goes_out_once_and_its_statuses_come_back(d: Dispatching) -> None:
    await d.queue_a(conversations=20)

    async with d.dispatcher():
        await until(lambda: all_done(d, 20), what="all are sent")

        async def delivered() -> bool:
            return (await d.rows("select count(*) from public.whatsapp_messages where status = 'delivered'"))[0][
                0
            ] == 20

        await until(delivered, what="all are delivered")

    accepted = await d.accepted()
    assert len({one["to"] for one in accepted}) == len(accepted) == 20
    rows = await d.rows(
        "select m.wamid, m.id::text || '.' || a.attempt, a.outcome, a.evidence"
        " from public.whatsapp_messages m join app.send_attempts a on a.message_id = m.id"
    )
    assert {(wamid, callback) for wamid, callback, _, _ in rows} == {
        (one["wamid"], one["biz_opaque_callback_data"]) for one in accepted
    }
    assert {outcome for _, _, outcome, _ in rows} == {"accepted"}


async def test_a_ring_is_heard_at_once_and_without_one_the_poll_finds_it(d: Dispatching) -> None:
    async with d.dispatcher():
        await asyncio.sleep(0.3)
        waits = []
        for n in range(5):
            await d.queue_a(conversations=1, first=12_026_000_000 + n)
            started = time.monotonic()
            await d.ring()
            await until(lambda n=n: all_done(d, n + 1), what="the ring is heard")  # type: ignore[misc]
            waits.append(time.monotonic() - started)

    assert min(waits) < 0.5  # the poll alone takes up to five seconds


async def test_a_conversation_keeps_its_order_and_a_pair_that_must_wait_never_stops_the_number(
    d: Dispatching,
) -> None:
    await d.queue_a(conversations=1, each=1, first=12_028_000_000, text="Had a burst")
    await d.rows("update app.send_pairs set free_at = now() + interval '1 hour', burst = 10 returning 1")
    await d.queue_a(conversations=1, each=6, text="Talkative")
    await d.queue_a(conversations=30, first=12_027_000_000, text="Others")

    async def all_but_one() -> bool:
        return await d.states() == {"done": 36, "waiting": 1}

    async with d.dispatcher():
        await until(all_but_one, within_s=20, what="all went but to whom a burst went before")

    talkative = [one["biz_opaque_callback_data"] for one in await d.accepted() if one["to"] == "+12025000001"]
    ordered = await d.rows("select id::text || '.1' from public.whatsapp_messages where content ~ 'Talk' order by seq")
    assert [(callback,) for callback in talkative] == ordered
    assert await d.rows("select wait_reason from app.outbox where state = 'waiting'") == [("pair",)]
    assert all(call["status"] == 200 for call in await d.calls())  # no 131056, no 130429


async def _accepted(d: Dispatching, count: int) -> bool:
    return len(await d.accepted()) >= count


async def test_a_workspace_with_thousands_queued_does_not_delay_anothers_reply(d: Dispatching) -> None:
    await d.queue_a(conversations=1500, priority=6)
    await d.rows("update public.whatsapp_channels set tier_mps = 1000 returning 1")
    await d.behave(throughput=False)
    await d.fault({"mode": "slow", "latency_ms": 6000, "for": {"path": PHONE_A}})  # and Meta hangs on that number

    async with d.dispatcher():
        await until(lambda: _in_flight(d, 64), what="half of all slots hang")
        started = time.monotonic()
        await d.queue_b(conversations=1, first=44_000)
        await d.ring()
        await until(lambda: _to(d, PHONE_B), what="the other's reply")
        took_s = time.monotonic() - started
        await d.fault()

    assert took_s < 3  # promised: one second on a machine of its own; those before it take six
    assert len(await _to(d, PHONE_A)) <= 128


async def _in_flight(d: Dispatching, count: int) -> bool:
    return (await d.rows("select count(*) from app.outbox where lease_token is not null"))[0][0] >= count


async def _to(d: Dispatching, number: str) -> list[str]:
    return [one["wamid"] for one in await d.accepted() if one["phone_number_id"] == number]


async def test_two_dispatchers_pace_a_number_together_without_one_refusal(d: Dispatching) -> None:
    await d.queue_a(conversations=400)

    started = time.monotonic()
    async with d.dispatcher(), d.dispatcher():
        await until(lambda: _accepted(d, 100), what="they send")
        await asyncio.sleep(2)
        count, took_s = len(await d.accepted()), time.monotonic() - started

    assert all(call["status"] == 200 for call in await d.calls())
    assert 100 <= count <= 79.2 * took_s + 8 + 1  # a full bucket to begin with


async def test_too_fast_slows_the_number_and_fails_nothing(d: Dispatching) -> None:
    await d.fault({"mode": "error", "code": 130429, "http": 400, "times": 3, "for": {"path": PHONE_A}})
    await d.queue_a(conversations=6)

    async with d.dispatcher():
        await until(lambda: all_done(d, 6), what="all are sent")

    async with d.admin.cursor() as cursor:
        await cursor.execute("select outcome, meta_code, count(*) from app.send_attempts group by 1, 2 order by 1, 2")
        assert await cursor.fetchall() == [("accepted", None, 6), ("throttled", 130429, 3)]
    async with redis.asyncio.Redis.from_url(d.redis_url) as client:
        assert await client.exists(f"wa:slowed:{PHONE_A}")


async def test_a_refused_token_pauses_the_number_and_the_messages_wait(d: Dispatching) -> None:
    await d.fault({"mode": "error", "code": 190, "for": {"path": PHONE_A}})
    await d.queue_a(conversations=40)
    await d.queue_b(conversations=1, first=44_000)

    async with d.dispatcher():
        await until(lambda: _paused(d), what="the number is paused")
        await until(lambda: _to(d, PHONE_B), what="the other number goes on")

    assert await d.rows("select paused_reason from public.whatsapp_channels where state = 'paused'") == [("auth",)]
    assert await d.rows("select event, severity from public.account_events") == [("sending_paused", "critical")]
    assert set(
        await d.rows("select distinct status from public.whatsapp_messages where phone_number like '1202%%'")
    ) == {("queued",)}


async def _paused(d: Dispatching) -> bool:
    return bool(await d.rows("select 1 from public.whatsapp_channels where state = 'paused'"))


async def test_a_token_that_cannot_be_opened_pauses_before_anything_is_tried(d: Dispatching) -> None:
    await d.rows(
        "update app.channel_tokens set key_id = 'another' where channel_id = %s returning 1", d.world.channel_a
    )
    await d.queue_a(conversations=3)

    async with d.dispatcher():
        await until(lambda: _paused(d), what="the number is paused")

    assert await d.rows("select paused_reason from public.whatsapp_channels where state = 'paused'") == [
        ("token_unreadable",)
    ]
    assert await d.rows("select count(*) from app.send_attempts") == [(0,)]
    assert await d.states() == {"due": 3}


async def test_what_is_too_old_is_given_up_with_a_sentence(d: Dispatching) -> None:
    await d.queue_a(conversations=2)
    await d.rows("update app.outbox set expires_at = now() - interval '1 second' returning 1")

    async with d.dispatcher():
        await until(lambda: _failed(d, 2), what="both are given up")

    assert await d.accepted() == []
    assert await d.rows("select distinct error ->> 'reason' from public.whatsapp_messages") == [("too_old",)]


async def _failed(d: Dispatching, count: int) -> bool:
    return (await d.rows("select count(*) from public.whatsapp_messages where status = 'failed'"))[0][0] == count


async def test_a_refusal_for_good_says_why_and_what_follows_is_done(d: Dispatching) -> None:
    await d.fault({"mode": "error", "code": 131050, "times": 1})
    await d.queue_a(conversations=1)

    async with d.dispatcher():
        await until(lambda: _opted_out(d), what="the contact is opted out")

    status, error = (await d.rows("select status, error from public.whatsapp_messages"))[0]
    assert status == "failed"
    assert (error["code"], error["reason"]) == (131050, "opted_out")


async def _opted_out(d: Dispatching) -> bool:
    return bool(await d.rows("select 1 from public.contacts where opted_out_at is not null"))


async def test_stopping_lets_calls_end_and_records_them(d: Dispatching) -> None:
    await d.fault({"mode": "slow", "latency_ms": 700})
    await d.queue_a(conversations=7)

    async with d.dispatcher():
        await until(lambda: _in_flight(d, 7), what="all are on their way")

    assert await d.states() == {"done": 7}
    assert len(await d.accepted()) == 7


async def test_what_was_claimed_ahead_is_put_back_on_stopping(d: Dispatching) -> None:
    await d.fault({"mode": "slow", "latency_ms": 60})
    await d.queue_a(conversations=200)

    async with d.dispatcher(SLOTS="8"):
        await until(lambda: _accepted(d, 20), what="it sends, and claims ahead")

    states, accepted = await d.states(), len(await d.accepted())
    assert states == {"done": accepted, "due": 200 - accepted}
    assert not await _in_flight(d, 1)
    left = await d.rows("select count(*) from app.send_attempts where outcome is null or outcome = 'unknown'")
    assert left == [(0,)]


async def test_what_was_claimed_ahead_is_spared_a_refused_token(d: Dispatching) -> None:
    await d.fault({"mode": "slow", "latency_ms": 60})
    await d.queue_a(conversations=200)

    async with d.dispatcher(SLOTS="8"):
        await until(lambda: _accepted(d, 20), what="it sends, and claims ahead")
        await d.fault({"mode": "error", "code": 190})
        await until(lambda: _paused(d), what="the number is paused")
        await until(lambda: _idle(d), what="nothing is claimed")

    refused = [call for call in await d.calls() if call["status"] == 401]
    assert 1 <= len(refused) <= 4  # those under way
    assert (await d.states())["due"] > 0


async def _idle(d: Dispatching) -> bool:
    return not await _in_flight(d, 1)


async def test_an_outage_of_redis_slows_and_stops_nothing(d: Dispatching) -> None:
    await d.queue_a(conversations=10)

    async with d.dispatcher(REDIS_URL=f"redis://127.0.0.1:{any_free_port()}"):
        await until(lambda: all_done(d, 10), what="all are sent without Redis")
