"""The buckets in a real Redis: two dispatchers share a number's rate and Meta's own bucket refuses neither."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from deploy.local.ports import any_free_port
from deploy.sandbox.graph.limits import Throughput
from services.sender.pacing import LocalPacing, Pacing, Want
from shared.queue.connection import connect
from shared.queue.inbound_rate import InboundRate


@pytest.fixture
async def client(empty_redis: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with connect(empty_redis, timeout_s=2, max_connections=8) as found:
        yield found


async def sent_in(seconds: float, dispatchers: list[Pacing], tier: int) -> tuple[int, int]:
    """Send as fast as allowed; return how many went, and how many Meta refused."""
    meta, ends_at, counts = Throughput(), time.monotonic() + seconds, [0, 0]

    async def dispatch(pacing: Pacing) -> None:
        while time.monotonic() < ends_at:
            granted = (await pacing.take([Want("42", tier, 50)]))["42"]
            for _ in range(granted.tokens):
                counts[0 if meta.take("42", tier, time.monotonic()) else 1] += 1
            await asyncio.sleep(max(0.005, granted.next_in_s))

    await asyncio.gather(*(dispatch(one) for one in dispatchers))
    return counts[0], counts[1]


async def test_two_dispatchers_together_send_at_the_tier_and_never_above(client: redis.asyncio.Redis) -> None:
    sent, refused = await sent_in(2, [Pacing(client), Pacing(client)], tier=80)

    assert refused == 0
    assert 150 <= sent <= 2 * 79.2 + 8 + 1  # a full bucket at the start; the machine may be slow, not fast


async def test_many_numbers_are_asked_for_at_once_and_do_not_share(client: redis.asyncio.Redis) -> None:
    pacing = Pacing(client)

    first = await pacing.take([Want("1", 80, 99), Want("2", 1000, 99), Want("3", 80, 3)])
    second = await pacing.take([Want("1", 80, 99)])

    assert [first[number].tokens for number in "123"] == [7, 99, 3]
    assert second["1"].tokens < 3
    assert 0 < second["1"].next_in_s <= 1 / 79 + 0.001  # told in whole milliseconds


async def test_what_was_not_used_is_there_again(client: redis.asyncio.Redis) -> None:
    pacing = Pacing(client)
    await pacing.take([Want("1", 80, 99)])

    await pacing.give_back({"1": 7, "unknown": 5})

    assert (await pacing.take([Want("1", 80, 99)]))["1"].tokens == 7  # and no more than a bucket holds


async def test_what_customers_write_is_taken_off_but_never_more_than_half(client: redis.asyncio.Redis) -> None:
    inbound, pacing = InboundRate(client), Pacing(client)

    await inbound.count({"1": 200, "2": 5})
    some = (await pacing.take([Want("1", 1000, 1000)]))["1"].tokens
    await inbound.count({"1": 2000})
    await client.delete("wa:pace:1")
    flood = (await pacing.take([Want("1", 1000, 1000)]))["1"].tokens

    assert some == 79  # a tenth of a second at 990 - 200
    assert flood == 50


async def test_after_meta_said_too_fast_everybody_halves_the_rate(client: redis.asyncio.Redis) -> None:
    one, other = Pacing(client), Pacing(client)

    await one.slow_down("1")

    assert (await other.take([Want("1", 1000, 1000)]))["1"].tokens == 49
    assert (await other.take([Want("2", 1000, 1000)]))["2"].tokens == 99
    assert 55 <= await client.ttl("wa:slowed:1") <= 60


async def test_without_redis_a_process_sends_at_a_quarter_of_the_tier() -> None:
    now = 0.0

    def clock() -> float:
        return now

    async with connect(f"redis://127.0.0.1:{any_free_port()}", timeout_s=1, max_connections=1) as nobody:
        pacing, sent = Pacing(nobody, clock=clock), 0
        for _ in range(200):  # ten seconds
            sent += (await pacing.take([Want("1", 80, 99)]))["1"].tokens
            now += 0.05
        await pacing.give_back({"1": 3})
        await pacing.slow_down("1")

        assert 195 <= sent <= 203
        assert (await pacing.take([Want("1", 80, 0)]))["1"].next_in_s <= 1 / 10


def test_a_bucket_of_one_process_says_when_the_next_token_comes() -> None:
    now = 0.0
    pacing = LocalPacing(lambda: now)
    assert pacing.take([Want("1", 8, 9)])["1"].tokens == 1

    granted = pacing.take([Want("1", 8, 9)])["1"]
    now = granted.next_in_s

    assert (granted.tokens, now) == (0, 0.5)
    assert pacing.take([Want("1", 8, 9)])["1"].tokens == 1
