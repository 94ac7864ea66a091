"""The webhook stream: what was appended is read, once by one, again by another when that one dies, lost never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import psycopg
import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from services.ingest.recorder import Recorder
from shared.queue.connection import connect, connect_blocking
from shared.queue.jobs import AnalyseDue, Jobs, rq_queue
from shared.queue.streams import GROUP, STREAM, StreamEntry, UnknownVersionError, WebhookStream, append, decode, encode
from shared.settings.clocks import Clocks
from shared.store.postgres import PostgresTransport, postgres_transport
from shared.store.webhooks import Webhooks
from shared.whatsapp.events import WebhookBody
from tests.conftest import Database
from tests.world import World, received, text_message, webhook

IDLE_S = 15.0
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

bodies_of_any_kind = st.builds(
    WebhookBody,
    id=st.uuids(),
    received_at=st.datetimes(timezones=st.just(UTC)),
    raw=st.binary(max_size=200),
    traceparent=st.sampled_from(["", TRACEPARENT]),
)


@pytest.fixture
async def client(empty_redis: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with connect(empty_redis, timeout_s=5, max_connections=8) as opened:
        yield opened


@pytest.fixture
async def stream(client: redis.asyncio.Redis) -> WebhookStream:
    """Consumer `first`, its group made."""
    made = WebhookStream(client, consumer="first")
    assert await made.read(count=1, block_s=0.01) == []
    return made


def body(text: str = "Hello?", *, wamid: str = "wamid.1") -> WebhookBody:
    return received(webhook(text_message(text, wamid=wamid))).body


async def grow_idle(client: redis.asyncio.Redis, *, idle_s: float = IDLE_S + 1) -> None:
    """Make all that is pending look as if its consumer had been silent that long; nothing counts as delivered."""
    for entry in await client.xpending_range(STREAM, GROUP, min="-", max="+", count=100):
        await client.xclaim(
            STREAM, GROUP, entry["consumer"], 0, [entry["message_id"]], idle=int(idle_s * 1000), justid=True
        )


async def pending(client: redis.asyncio.Redis) -> int:
    return int((await client.xpending(STREAM, GROUP))["pending"])


@given(bodies=st.lists(bodies_of_any_kind, max_size=5))
def test_an_entry_is_read_exactly_as_it_was_written(bodies: list[WebhookBody]) -> None:
    assert decode("1-1", encode(bodies)) == StreamEntry("1-1", tuple(bodies))


@given(fields=st.dictionaries(st.binary(max_size=8), st.binary(max_size=8)))
def test_another_version_is_recognised_before_anything_of_it_is_read(fields: dict[bytes, bytes]) -> None:
    for version in ({}, {b"v": b"3"}, {b"v": b""}, {b"v": b"1 "}):
        with pytest.raises(UnknownVersionError):
            decode("1-1", {key: value for key, value in fields.items() if key != b"v"} | version)


async def test_redis_gives_back_the_bytes_and_the_microsecond(
    client: redis.asyncio.Redis, stream: WebhookStream
) -> None:
    bodies = [
        WebhookBody(received(b"").body.id, datetime(2026, 11, 22, 9, 0, 0, n, UTC), bytes(range(256)) * n, TRACEPARENT)
        for n in (0, 1, 999_999)[:2]
    ]

    await append(client, bodies)
    ((entry_id, fields),) = await stream.read(count=10, block_s=0.01)

    assert decode(entry_id, fields) == StreamEntry(entry_id, tuple(bodies))


async def test_what_came_before_the_first_recorder_is_read(client: redis.asyncio.Redis) -> None:
    for n in range(3):
        await append(client, [body(wamid=f"wamid.{n}")])
    stream = WebhookStream(client, consumer="first")

    made_the_group = await stream.read(count=10, block_s=0.01)
    entries = await stream.read(count=10, block_s=0.01)

    assert made_the_group == []
    assert len(entries) == 3


async def test_two_recorders_that_start_together_share_the_entries(client: redis.asyncio.Redis) -> None:
    for n in range(10):
        await append(client, [body(wamid=f"wamid.{n}")])
    consumers = [WebhookStream(client, consumer=f"c{n}") for n in range(5)]

    shares: list[list[tuple[str, dict[bytes, bytes]]]] = []
    for _ in range(2):  # whoever finds no group makes it and reads the next time
        shares += await asyncio.gather(*(consumer.read(count=2, block_s=0.01) for consumer in consumers))

    ids = [entry_id for share in shares for entry_id, _ in share]
    assert len(ids) == len(set(ids)) == 10


async def test_after_flushall_the_group_is_made_again(client: redis.asyncio.Redis, stream: WebhookStream) -> None:
    await client.flushall()

    taken_over = await stream.take_over(idle_s=0, count=10)
    await append(client, [body()])
    healed = await stream.read(count=10, block_s=0.01)
    entries = await stream.read(count=10, block_s=0.01)

    assert (taken_over, healed, len(entries)) == ([], [], 1)


async def test_a_dead_recorders_entries_are_taken_over_when_it_was_silent_long_enough(
    client: redis.asyncio.Redis, stream: WebhookStream
) -> None:
    await append(client, [body()])
    ((entry_id, fields),) = await stream.read(count=10, block_s=0.01)
    other = WebhookStream(client, consumer="second")

    await grow_idle(client, idle_s=IDLE_S - 2)
    too_early = await other.take_over(idle_s=IDLE_S, count=10)
    await grow_idle(client, idle_s=IDLE_S)
    in_time = await other.take_over(idle_s=IDLE_S, count=10)
    at_once_again = await stream.take_over(idle_s=IDLE_S, count=10)

    assert too_early == []
    assert in_time == [(entry_id, fields, 2)]
    assert at_once_again == []


async def test_only_one_of_many_takes_an_entry_over(client: redis.asyncio.Redis, stream: WebhookStream) -> None:
    for n in range(20):
        await append(client, [body(wamid=f"wamid.{n}")])
    await stream.read(count=20, block_s=0.01)
    await grow_idle(client)
    others = [WebhookStream(client, consumer=f"c{n}") for n in range(6)]

    taken = await asyncio.gather(*(other.take_over(idle_s=IDLE_S, count=20) for other in others))

    ids = [entry_id for one in taken for entry_id, _, _ in one]
    assert len(ids) == len(set(ids)) == 20


async def test_every_delivery_is_counted(client: redis.asyncio.Redis, stream: WebhookStream) -> None:
    await append(client, [body()])
    await stream.read(count=1, block_s=0.01)

    counts = []
    for _ in range(4):
        await grow_idle(client)
        ((_, _, deliveries),) = await stream.take_over(idle_s=IDLE_S, count=10)
        counts.append(deliveries)

    assert counts == [2, 3, 4, 5]


async def test_what_is_done_is_gone_and_the_rest_stays(client: redis.asyncio.Redis, stream: WebhookStream) -> None:
    for n in range(3):
        await append(client, [body(wamid=f"wamid.{n}")])
    ids = [entry_id for entry_id, _ in await stream.read(count=10, block_s=0.01)]

    await stream.done(ids[:2])
    left = (await client.xlen(STREAM), await pending(client))
    await stream.done(ids)  # again, two of them for the second time

    assert left == (1, 1)
    assert (await client.xlen(STREAM), await pending(client)) == (0, 0)


async def test_a_consumer_leaves_only_with_empty_hands(client: redis.asyncio.Redis, stream: WebhookStream) -> None:
    await append(client, [body()])
    ((entry_id, _),) = await stream.read(count=1, block_s=0.01)

    await stream.leave()
    stayed = [consumer["name"] for consumer in await client.xinfo_consumers(STREAM, GROUP)]
    await stream.done([entry_id])
    await stream.leave()

    assert stayed == [b"first"]
    assert await client.xinfo_consumers(STREAM, GROUP) == []


class Bench:
    """A recorder with everything real around it."""

    def __init__(self, redis_url: str, client: redis.asyncio.Redis, store: PostgresTransport) -> None:
        self.client = client
        self._redis_url = redis_url
        self._webhooks = Webhooks(store)
        self.recorder = self.another("first")

    def another(self, consumer: str, *, batch_deadline_s: float = 5.0) -> Recorder:
        return Recorder(
            stream=WebhookStream(self.client, consumer=consumer),
            webhooks=self._webhooks,
            jobs=Jobs(connect_blocking(self._redis_url, timeout_s=1)),
            clocks=Clocks(
                redis_block_s=0.01,
                poll_every_s=0,
                pending_idle_s=IDLE_S,
                settle_s=0,
                batch_deadline_s=batch_deadline_s,
            ),
            batch_bodies=256,
        )

    async def step(self, recorder: Recorder | None = None) -> None:
        """One turn of the recorder's loop; an error ends the turn, as it does in production."""
        with capture_logs():
            try:
                await (recorder or self.recorder).from_stream()
            except Exception:  # noqa: BLE001  runner.repeat logs it and goes on
                return


@pytest.fixture
async def bench(empty_redis: str, client: redis.asyncio.Redis, world: World, service_store: PostgresTransport) -> Bench:
    made = Bench(empty_redis, client, service_store)
    await made.step()
    return made


async def recorded(admin: psycopg.AsyncConnection) -> list[str]:
    cursor = await admin.execute("select wamid from public.whatsapp_messages order by wamid")
    return [wamid for (wamid,) in await cursor.fetchall()]


async def fail_on(admin: psycopg.AsyncConnection, wamid: str) -> None:
    """Make recording this message fail as a bug of ours would: neither poison by its SQLSTATE, nor "later"."""
    await admin.execute(
        "create function app.fail() returns trigger language plpgsql as"
        " $$ begin raise exception 'a bug' using errcode = 'XX000'; end $$"
    )
    await admin.execute(
        "create trigger fail before insert on public.whatsapp_messages for each row"
        f" when (new.wamid = '{wamid}') execute function app.fail()"
    )


async def test_a_webhook_travels_from_the_stream_to_rows_and_wakes_a_worker(
    bench: Bench, empty_redis: str, admin: psycopg.AsyncConnection
) -> None:
    one, other = body(wamid="wamid.1"), body(wamid="wamid.2")
    await append(bench.client, [one, other])
    await append(bench.client, [body(wamid="wamid.3")])

    await bench.step()

    assert await recorded(admin) == ["wamid.1", "wamid.2", "wamid.3"]
    cursor = await admin.execute(
        "select id, received_at, raw, state, stored from app.webhook_bodies where id = %s", (one.id,)
    )
    assert await cursor.fetchall() == [(one.id, one.received_at, one.raw, "recorded", 1)]
    assert (await bench.client.xlen(STREAM), await pending(bench.client)) == (0, 0)
    assert rq_queue(AnalyseDue.queue, connect_blocking(empty_redis, timeout_s=1)).count == 1


async def test_garbage_is_kept_as_garbage_and_does_not_come_back(bench: Bench, admin: psycopg.AsyncConnection) -> None:
    await append(bench.client, [received(raw).body for raw in (b"", b"\x00\xff", b"[" * 100_000, b'"\\ud800"')])

    await bench.step()

    cursor = await admin.execute("select raw, quarantined from app.webhook_bodies order by length(raw)")
    assert await cursor.fetchall() == [(b"", 1), (b"\x00\xff", 1), (b'"\\ud800"', 1), (b"[" * 100_000, 1)]
    assert await bench.client.xlen(STREAM) == 0


async def test_a_version_we_do_not_know_waits_for_a_recorder_that_does(
    bench: Bench, admin: psycopg.AsyncConnection
) -> None:
    await bench.client.xadd(STREAM, {b"v": b"3", b"something": b"else"})
    await append(bench.client, [body()])

    for _ in range(6):
        await bench.step()
        await grow_idle(bench.client)

    assert await recorded(admin) == ["wamid.1"]
    assert (await bench.client.xlen(STREAM), await pending(bench.client)) == (1, 1)


async def test_a_recorder_that_died_after_reading_loses_nothing(bench: Bench, admin: psycopg.AsyncConnection) -> None:
    await append(bench.client, [body()])
    await WebhookStream(bench.client, consumer="died").read(count=10, block_s=0.01)

    await bench.step()
    before = await recorded(admin)
    await grow_idle(bench.client)
    await bench.step()

    assert before == []
    assert await recorded(admin) == ["wamid.1"]
    assert await pending(bench.client) == 0


async def test_a_recorder_that_died_after_recording_records_nothing_twice(
    bench: Bench, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    one = received(webhook(text_message("Hello?", wamid="wamid.1")))
    await append(bench.client, [one.body])
    await WebhookStream(bench.client, consumer="died").read(count=10, block_s=0.01)
    await Webhooks(service_store).record([one], settle_s=0)

    await grow_idle(bench.client)
    await bench.step()

    assert await recorded(admin) == ["wamid.1"]
    cursor = await admin.execute("select unread_count from public.whatsapp_conversations")
    assert await cursor.fetchall() == [(1,)]
    assert await bench.client.xlen(STREAM) == 0


async def test_many_recorders_record_everything_once(bench: Bench, admin: psycopg.AsyncConnection) -> None:
    for n in range(60):
        await append(bench.client, [body(wamid=f"wamid.{n:02}")])
    recorders = [bench.another(f"c{n}") for n in range(4)]

    for _ in range(3):
        await asyncio.gather(*(bench.step(recorder) for recorder in recorders))

    assert await recorded(admin) == [f"wamid.{n:02}" for n in range(60)]
    assert await bench.client.xlen(STREAM) == 0


async def test_an_entry_that_keeps_failing_is_set_aside_raw_and_its_neighbours_are_recorded(
    bench: Bench, admin: psycopg.AsyncConnection
) -> None:
    await fail_on(admin, "wamid.2")
    poison = body(wamid="wamid.2")
    for one in (body(wamid="wamid.1"), poison, body(wamid="wamid.3")):
        await append(bench.client, [one])

    await bench.step()  # the first delivery
    for _ in range(2):
        await grow_idle(bench.client)
        await bench.step()
    still_tried = await pending(bench.client)
    for _ in range(3):
        await grow_idle(bench.client)
        await bench.step()

    assert still_tried > 0  # three deliveries are no proof of poison
    assert await recorded(admin) == ["wamid.1", "wamid.3"]
    cursor = await admin.execute("select raw, quarantined, stored from app.webhook_bodies where quarantined > 0")
    assert await cursor.fetchall() == [(poison.raw, 1, 0)]
    assert (await bench.client.xlen(STREAM), await pending(bench.client)) == (0, 0)


async def test_a_database_that_is_slow_is_no_reason_to_set_a_message_aside(
    bench: Bench, database: Database, empty_redis: str, admin: psycopg.AsyncConnection
) -> None:
    # However often an entry came back: while something holds a lock, the weather is at fault and not the entry.
    async with postgres_transport(
        database.url("test_service"), service_role="service_role", max_connections=2, timeout_s=0.2
    ) as hurried:
        waiting = Bench(empty_redis, bench.client, hurried)
        await append(bench.client, [body()])
        async with admin.transaction():
            await admin.execute("select from public.workspaces for update")
            for _ in range(5):
                await waiting.step()
                await grow_idle(bench.client)
        await waiting.step()

    assert await recorded(admin) == ["wamid.1"]
    assert (await bench.client.xlen(STREAM), await pending(bench.client)) == (0, 0)


async def test_a_wake_up_that_is_lost_costs_no_row(
    bench: Bench, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await append(bench.client, [body()])
    deaf = Recorder(
        stream=WebhookStream(bench.client, consumer="deaf"),
        webhooks=Webhooks(service_store),
        jobs=Jobs(connect_blocking("redis://127.0.0.1:1/0", timeout_s=0.2)),
        clocks=Clocks(redis_block_s=0.01),
        batch_bodies=256,
    )

    await bench.step(deaf)

    assert await recorded(admin) == ["wamid.1"]
    assert await bench.client.xlen(STREAM) == 0


async def test_what_arrives_behind_an_entry_that_keeps_failing_does_not_wait_for_it(
    bench: Bench, admin: psycopg.AsyncConnection
) -> None:
    await fail_on(admin, "wamid.1")
    await append(bench.client, [body(wamid="wamid.1")])
    await bench.step()

    await append(bench.client, [body(wamid="wamid.2")])
    await bench.step()

    assert await recorded(admin) == ["wamid.2"]
    assert await pending(bench.client) == 1


async def test_a_recorder_goes_on_after_an_entry_was_set_aside(bench: Bench, admin: psycopg.AsyncConnection) -> None:
    await append(bench.client, [body(wamid="wamid.0")])  # recording works: what fails next is the body's fault
    await bench.step()
    await fail_on(admin, "wamid.1")
    await append(bench.client, [body(wamid="wamid.1")])
    await bench.step()
    for _ in range(5):
        await grow_idle(bench.client)
        await bench.step()
    assert await pending(bench.client) == 0  # set aside

    await append(bench.client, [body(wamid="wamid.2")])
    for _ in range(5):
        await bench.step()

    assert await recorded(admin) == ["wamid.0", "wamid.2"]


async def test_while_nothing_at_all_gets_through_nothing_is_set_aside(
    bench: Bench, admin: psycopg.AsyncConnection
) -> None:
    # A recorder deployed before its migration: every body fails, and none is to blame.
    await admin.execute("alter function public.record_webhook_batch(jsonb, integer) rename to not_yet_there")
    await append(bench.client, [body(wamid="wamid.1"), body(wamid="wamid.2")])
    for _ in range(6):
        await bench.step()
        await grow_idle(bench.client)
    assert await pending(bench.client) == 1

    await admin.execute("alter function public.not_yet_there(jsonb, integer) rename to record_webhook_batch")
    await bench.step()
    await grow_idle(bench.client)
    await bench.step()

    assert await recorded(admin) == ["wamid.1", "wamid.2"]
    assert await pending(bench.client) == 0


async def test_what_always_takes_too_long_keeps_nobody_waiting(bench: Bench, admin: psycopg.AsyncConnection) -> None:
    await admin.execute(
        "create function app.dawdle() returns trigger language plpgsql as"
        " $$ begin perform pg_catalog.pg_sleep(3); return new; end $$"
    )
    await admin.execute(
        "create trigger dawdle before insert on public.whatsapp_messages for each row"
        " when (new.wamid = 'wamid.2') execute function app.dawdle()"
    )
    recorder = bench.another("first", batch_deadline_s=0.5)
    await append(bench.client, [body(wamid=f"wamid.{n}") for n in (1, 2, 3)])
    await append(bench.client, [body(wamid="wamid.4")])

    for _ in range(3):
        await bench.step(recorder)
    assert await recorded(admin) == ["wamid.1", "wamid.3", "wamid.4"]
    assert await pending(bench.client) >= 1  # the entry comes back, and with it the one that takes so long

    await admin.execute("drop trigger dawdle on public.whatsapp_messages")
    await grow_idle(bench.client)
    await bench.step(recorder)

    assert await recorded(admin) == ["wamid.1", "wamid.2", "wamid.3", "wamid.4"]
    assert await pending(bench.client) == 0


async def test_neighbours_in_the_same_entry_are_recorded(bench: Bench, admin: psycopg.AsyncConnection) -> None:
    # Group commit puts up to 256 customers' webhooks into one entry: one of them must not take the others along.
    await fail_on(admin, "wamid.2")
    await append(bench.client, [body(wamid=f"wamid.{n}") for n in (1, 2, 3)])

    for _ in range(6):
        await bench.step()
        await grow_idle(bench.client)

    assert await recorded(admin) == ["wamid.1", "wamid.3"]


async def test_stored_bodies_behind_one_that_keeps_failing_are_recorded(
    bench: Bench, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await fail_on(admin, "wamid.2")
    await Webhooks(service_store).store_bodies([body(wamid=f"wamid.{n}") for n in (1, 2, 3)])

    for _ in range(8):
        try:
            await bench.recorder.from_postgres()
        except psycopg.Error:
            await admin.execute("update app.webhook_bodies set next_attempt_at = now()")

    assert await recorded(admin) == ["wamid.1", "wamid.3"]


async def test_deeply_nested_json_is_a_fact_about_the_body_and_not_a_crash(
    bench: Bench, admin: psycopg.AsyncConnection
) -> None:
    for depth in (100, 300, 450, 600, 800, 950, 2000):
        raw = webhook(text_message("Hello?", wamid=f"wamid.{depth}"))
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        raw = raw.replace(b'"type": "text"', b'"type": "text", "x": ' + nested)
        await append(bench.client, [received(raw).body])
        await bench.recorder.from_stream()
