"""Durable before the 200: in Redis while it fsyncs, else in Postgres, else Meta is told to come back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import RFC_4122, uuid4

import psycopg
import pytest
import redis.asyncio
from structlog.testing import capture_logs

from deploy.local.ports import HOST, any_free_port
from deploy.local.redis import Redis, prepare_redis
from deploy.local.supervisor import Backoff, Supervisor
from services.ingest import make_durable
from services.ingest.make_durable import MakeDurable
from shared.domain.errors import Unavailable
from shared.queue.connection import connect
from shared.queue.streams import STREAM, StreamEntry, decode, fields_of
from shared.store.postgres import PostgresTransport, postgres_transport
from shared.store.webhooks import ReceivedBody, Webhooks
from shared.telemetry.trace import trace_id
from shared.whatsapp.events import WebhookBody
from shared.whatsapp.parse import parse_webhook
from tests.world import World, text_message, webhook

APPEND_TIMEOUT_S = 0.3
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class OwnRedis:
    """A Redis this test may stop, start and misconfigure."""

    def __init__(self, server: Redis, supervisor: Supervisor) -> None:
        self._server = server
        self._supervisor = supervisor
        self.url = server.url()
        self.port = server.port
        self.client = redis.asyncio.Redis.from_url(self.url)

    async def start(self) -> None:
        self._supervisor.start(self._server.spec())
        await self._server.wait_until_ready()

    async def stop(self) -> None:
        await self.client.aclose()
        await self._supervisor.stop()


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[OwnRedis]:
    own = OwnRedis(prepare_redis(tmp_path, port=any_free_port()), Supervisor(backoff=Backoff(first_s=0.1)))
    await own.start()
    yield own
    await own.stop()


class Freezer:
    """A way to Redis that can freeze: connections stay open, new ones are accepted, nothing is ever answered."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.thawed = asyncio.Event()
        self.thawed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(HOST, self._to)
        for source, target in ((reader, up_writer), (up_reader, writer)):
            task = asyncio.create_task(self._pass(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(65536):
                await self.thawed.wait()
                target.write(piece)
                await target.drain()
        target.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, HOST, 0)
        yield f"{HOST}:{server.sockets[0].getsockname()[1]}"
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def durable_at(
    redis_url: str, store: PostgresTransport, *, runs: bool = True, max_backlog_bytes: int = 128 * 1024 * 1024
) -> AsyncIterator[MakeDurable]:
    """MakeDurable with its writer beside it, Redis already asked."""
    async with connect(redis_url, timeout_s=APPEND_TIMEOUT_S, max_connections=4) as stream:
        durable = MakeDurable(stream=stream, webhooks=Webhooks(store), max_backlog_bytes=max_backlog_bytes)
        await durable.check_redis()
        writer = asyncio.create_task(durable.run()) if runs else None
        yield durable
        if writer is not None:
            assert not writer.done()  # whatever happened, it goes on
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)


async def entries(client: redis.asyncio.Redis) -> list[StreamEntry]:
    return [decode(entry_id.decode(), fields) for entry_id, fields in await client.xrange(STREAM)]


async def in_postgres(admin: psycopg.AsyncConnection) -> set[bytes]:
    cursor = await admin.execute("select raw from app.webhook_bodies where state = 'new'")
    return {raw for (raw,) in await cursor.fetchall()}


async def let_others_run() -> None:
    """Give every task that can go on a few turns of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


async def rewritten(client: redis.asyncio.Redis) -> None:
    """Wait until Redis has written its first append-only file: before, it neither promises anything nor stops."""
    async with asyncio.timeout(10):
        while (await client.info("persistence"))["aof_rewrite_in_progress"]:
            await asyncio.sleep(0.02)


async def test_bodies_that_wait_together_share_an_append(
    empty_redis: str, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    started_at = datetime.now(UTC)

    async with durable_at(empty_redis, ingest_store) as durable:
        await asyncio.gather(*(durable.keep(b"%d" % n, TRACE if n % 2 else None) for n in range(1000)))

    async with redis.asyncio.Redis.from_url(empty_redis) as client:
        kept = await entries(client)
    bodies = [one for entry in kept for one in entry.bodies]
    assert len(kept) <= 8
    assert [one.raw for one in bodies] == [b"%d" % n for n in range(1000)]
    assert len({one.id for one in bodies}) == 1000
    assert {(one.id.version, one.id.variant) for one in bodies} == {(7, RFC_4122)}
    assert all(started_at <= one.received_at <= datetime.now(UTC) for one in bodies)
    assert [one.traceparent == TRACE for one in bodies] == [n % 2 == 1 for n in range(1000)]
    assert len({trace_id(one.traceparent) for one in bodies}) == 501  # one begun for each that came without
    assert await in_postgres(admin) == set()


async def test_large_bodies_do_not_make_one_huge_append(empty_redis: str, ingest_store: PostgresTransport) -> None:
    async with durable_at(empty_redis, ingest_store) as durable:
        await asyncio.gather(*(durable.keep(b"x" * 3_000_000) for _ in range(5)))

    async with redis.asyncio.Redis.from_url(empty_redis) as client:
        assert sorted(len(entry.bodies) for entry in await entries(client)) == [1, 2, 2]


async def test_until_redis_has_said_that_it_syncs_postgres_comes_first(
    empty_redis: str, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    async with connect(empty_redis, timeout_s=APPEND_TIMEOUT_S, max_connections=2) as stream:
        durable = MakeDurable(stream=stream, webhooks=Webhooks(ingest_store))
        writer = asyncio.create_task(durable.run())
        await durable.keep(b"early", TRACE)
        await durable.check_redis()
        await durable.keep(b"later")
        writer.cancel()
        kept = await entries(stream)

    assert await in_postgres(admin) == {b"early"}
    cursor = await admin.execute("select traceparent, uuid_extract_version(id) from app.webhook_bodies")
    assert await cursor.fetchall() == [(TRACE, 7)]
    assert [one.raw for entry in kept for one in entry.bodies] == [b"later"]


@pytest.mark.parametrize(
    ("name", "value", "durable_value"),
    [("appendfsync", "everysec", "always"), ("appendfsync", "no", "always"), ("appendonly", "no", "yes")],
)
async def test_a_redis_that_may_lose_what_it_acknowledged_is_not_trusted(
    own_redis: OwnRedis,
    ingest_store: PostgresTransport,
    admin: psycopg.AsyncConnection,
    name: str,
    value: str,
    durable_value: str,
) -> None:
    async with durable_at(own_redis.url, ingest_store) as durable:
        await own_redis.client.config_set(name, value)
        noticed = not await durable.check_redis()
        await durable.keep(b"while it may lose")
        in_redis = await own_redis.client.xlen(STREAM)
        await own_redis.client.config_set(name, durable_value)
        await rewritten(own_redis.client)
        trusted_again = await durable.check_redis()
        await durable.keep(b"while it may not")

    assert noticed
    assert await in_postgres(admin) == {b"while it may lose"}
    assert in_redis == 0
    assert trusted_again
    assert [one.raw for entry in await entries(own_redis.client) for one in entry.bodies] == [b"while it may not"]


async def test_a_redis_that_refuses_to_say_is_not_trusted(
    own_redis: OwnRedis, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await own_redis.client.execute_command("ACL", "SETUSER", "managed", "on", ">pw", "~*", "+@all", "-config")

    async with durable_at(f"redis://managed:pw@{HOST}:{own_redis.port}/0", ingest_store) as durable:
        await durable.keep(b"kept")

    assert await in_postgres(admin) == {b"kept"}
    assert await own_redis.client.xlen(STREAM) == 0


async def test_while_redis_is_down_postgres_takes_over_and_then_hands_back(
    own_redis: OwnRedis, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    with capture_logs():
        async with durable_at(own_redis.url, ingest_store) as durable:
            await durable.keep(b"before")
            await own_redis.stop()
            await asyncio.gather(*(durable.keep(b"down %d" % n) for n in range(20)))
            await durable.check_redis()
            await durable.keep(b"still down")
            await own_redis.start()
            await durable.check_redis()
            await durable.keep(b"back")

    assert await in_postgres(admin) == {b"still down", *(b"down %d" % n for n in range(20))}
    assert [one.raw for entry in await entries(own_redis.client) for one in entry.bodies] == [b"before", b"back"]


async def test_a_hung_redis_costs_its_timeout_once_and_not_per_body(
    empty_redis: str, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    credentials, _, address = empty_redis.rpartition("@")
    freezer = Freezer(int(address.partition(":")[2].partition("/")[0]))

    with capture_logs() as logs:
        async with (
            freezer.running() as through,
            durable_at(f"{credentials}@{through}/0", ingest_store) as durable,
        ):
            await durable.keep(b"before")
            freezer.thawed.clear()
            started = time.monotonic()
            for n in range(30):
                await durable.keep(b"hung %d" % n)
            took_s = time.monotonic() - started
            freezer.thawed.set()
            await durable.check_redis()
            await durable.keep(b"back")

    assert await in_postgres(admin) == {b"hung %d" % n for n in range(30)}
    assert [line["event"] for line in logs].count("redis.append_failed") == 1
    assert APPEND_TIMEOUT_S <= took_s < 2 * APPEND_TIMEOUT_S + 30 * 0.05
    async with redis.asyncio.Redis.from_url(empty_redis) as client:
        in_redis = {one.raw for entry in await entries(client) for one in entry.bodies}
    assert {b"before", b"back"} <= in_redis <= {b"before", b"hung 0", b"back"}


async def test_a_redis_that_hangs_from_the_start_is_not_trusted(
    ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    silent = await asyncio.start_server(lambda *_: None, HOST, 0)

    with capture_logs():
        async with durable_at(f"redis://{HOST}:{silent.sockets[0].getsockname()[1]}/0", ingest_store) as durable:
            await durable.keep(b"kept")
    silent.close()

    assert await in_postgres(admin) == {b"kept"}


async def test_a_full_redis_evicts_nothing_and_postgres_takes_over(
    own_redis: OwnRedis, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    with capture_logs():
        async with durable_at(own_redis.url, ingest_store) as durable:
            await durable.keep(b"before")
            await own_redis.client.config_set("maxmemory", "1")
            await asyncio.gather(*(durable.keep(b"full %d" % n) for n in range(10)))
            await own_redis.client.config_set("maxmemory", "256mb")
            await durable.check_redis()
            await durable.keep(b"room again")

    assert await in_postgres(admin) == {b"full %d" % n for n in range(10)}
    assert [one.raw for entry in await entries(own_redis.client) for one in entry.bodies] == [b"before", b"room again"]


async def test_a_replica_that_takes_no_writes_is_left_alone(
    own_redis: OwnRedis, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    with capture_logs():
        async with durable_at(own_redis.url, ingest_store) as durable:
            await own_redis.client.execute_command("REPLICAOF", HOST, str(any_free_port()))
            await durable.keep(b"kept")

    assert await in_postgres(admin) == {b"kept"}


async def test_with_both_down_every_caller_is_told_and_later_ones_are_served(own_redis: OwnRedis) -> None:
    nowhere = f"postgresql://nobody@{HOST}:{any_free_port()}/none"
    with capture_logs():
        async with (
            postgres_transport(nowhere, service_role="parley_ingest", max_connections=1, timeout_s=0.2) as store,
            durable_at(own_redis.url, store) as durable,
        ):
            await own_redis.stop()
            outcomes = await asyncio.gather(*(durable.keep(b"{}") for _ in range(20)), return_exceptions=True)
            await own_redis.start()
            await durable.check_redis()
            await durable.keep(b"back")

    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 20
    assert [one.raw for entry in await entries(own_redis.client) for one in entry.bodies] == [b"back"]


async def test_a_caller_that_goes_away_does_not_disturb_its_group(
    empty_redis: str, ingest_store: PostgresTransport
) -> None:
    async with durable_at(empty_redis, ingest_store, runs=False) as durable:
        callers = [asyncio.ensure_future(durable.keep(b"%d" % n)) for n in range(50)]
        await let_others_run()
        for gone in (callers[0], callers[25], callers[49]):
            gone.cancel()
        await let_others_run()
        writer = asyncio.create_task(durable.run())
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        await durable.keep(b"next")
        writer.cancel()

    assert {n: outcome for n, outcome in enumerate(outcomes) if outcome is not None}.keys() == {0, 25, 49}
    async with redis.asyncio.Redis.from_url(empty_redis) as client:
        kept = {one.raw for entry in await entries(client) for one in entry.bodies}
    assert kept >= {b"%d" % n for n in range(50) if n not in (0, 25, 49)} | {b"next"}


async def test_more_than_we_keep_up_with_is_refused_at_once(empty_redis: str, ingest_store: PostgresTransport) -> None:
    most = make_durable._MOST_WAITING

    async with durable_at(empty_redis, ingest_store, runs=False) as durable:
        callers = [asyncio.ensure_future(durable.keep(b"{}")) for _ in range(most)]
        await let_others_run()
        with pytest.raises(Unavailable) as caught:
            await asyncio.wait_for(durable.keep(b"{}"), 0.1)
        writer = asyncio.create_task(durable.run())
        await asyncio.gather(*callers)
        await durable.keep(b"{}")  # there is room again
        writer.cancel()

    assert caught.value.code == "overloaded"
    async with redis.asyncio.Redis.from_url(empty_redis) as client:
        assert sum(len(entry.bodies) for entry in await entries(client)) == most + 1


async def test_more_bytes_than_memory_should_hold_are_refused_at_once(empty_redis, ingest_store) -> None:
    async with durable_at(empty_redis, ingest_store, runs=False) as durable:
        waiting = [durable.keep(b"x" * 4 * 1024 * 1024) for _ in range(16)]
        with pytest.raises(Unavailable) as caught:
            await durable.keep(b"{}")
        writer = asyncio.create_task(durable.run())
        await asyncio.gather(*waiting)
        await durable.keep(b"{}")  # there is room again
        writer.cancel()

    assert (caught.value.code, caught.value.retry_after_s) == ("overloaded", 1)


def test_an_entry_of_the_version_before_is_still_read() -> None:
    # It may have waited in the stream while we were deployed.
    first, second = uuid4(), uuid4()
    written = {
        b"v": b"1",
        b"n": b"2",
        b"id.0": first.bytes,
        b"at.0": b"1764072000123456",
        b"body.0": b"{}",
        b"trace.0": TRACE.encode(),
        b"id.1": second.bytes,
        b"at.1": b"1764072000123457",
        b"body.1": b"",
        b"trace.1": b"",
    }

    assert decode("1-1", written) == StreamEntry(
        "1-1",
        (
            WebhookBody(first, datetime(2025, 11, 25, 12, 0, 0, 123456, UTC), b"{}", TRACE),
            WebhookBody(second, datetime(2025, 11, 25, 12, 0, 0, 123457, UTC), b"", ""),
        ),
    )


@pytest.mark.parametrize("damage", [{b"ids": b"\0" * 15}, {b"at": b"\0" * 16}, {b"n": b"2"}, {b"n": b"x"}])
def test_a_damaged_entry_is_not_read_as_something_else(damage: dict[bytes, bytes]) -> None:
    whole = fields_of(ids=uuid4().bytes, received_us=[1], raws=[b"{}"], traceparents=[None])

    assert len(decode("1-1", whole).bodies) == 1
    with pytest.raises(ValueError):
        decode("1-1", whole | damage)


async def test_stopping_the_writer_promises_nothing_to_those_in_its_hands(
    empty_redis: str, ingest_store: PostgresTransport
) -> None:
    credentials, _, address = empty_redis.rpartition("@")
    freezer = Freezer(int(address.partition(":")[2].partition("/")[0]))

    async with (
        freezer.running() as through,
        durable_at(f"{credentials}@{through}/0", ingest_store, runs=False) as durable,
    ):
        freezer.thawed.clear()
        writer = asyncio.create_task(durable.run())
        callers = [asyncio.ensure_future(durable.keep(b"{}")) for _ in range(10)]
        await let_others_run()
        writer.cancel()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        freezer.thawed.set()

    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 10
    assert writer.cancelled()


async def test_a_body_kept_in_both_places_is_recorded_once(
    world: World,
    empty_redis: str,
    ingest_store: PostgresTransport,
    service_store: PostgresTransport,
    admin: psycopg.AsyncConnection,
) -> None:
    # Redis carried the append out and its answer was lost: Postgres got the body too.
    async with durable_at(empty_redis, ingest_store) as durable:
        await durable.keep(webhook(text_message("Hello?", wamid="wamid.1")))
    async with redis.asyncio.Redis.from_url(empty_redis) as client:
        (entry,) = await entries(client)
    (one,) = entry.bodies
    await Webhooks(ingest_store).store_bodies([one])
    webhooks = Webhooks(service_store)

    drained = [claimed for claimed, _ in await webhooks.claim_bodies(limit=10, hold_s=30)]
    for again, is_stored in ((entry.bodies[0], False), (drained[0], True)):
        parsed = parse_webhook(again.raw, now=again.received_at)
        await webhooks.record([ReceivedBody(again, parsed, is_stored)], settle_s=0)

    assert [(body.id, body.received_at, body.raw) for body in drained] == [(one.id, one.received_at, one.raw)]
    cursor = await admin.execute("select raw, state, items, stored, duplicate from app.webhook_bodies")
    assert await cursor.fetchall() == [(one.raw, "recorded", 1, 1, 0)]
    cursor = await admin.execute("select wamid from public.whatsapp_messages")
    assert await cursor.fetchall() == [("wamid.1",)]


async def test_a_redis_that_does_not_fsync_during_rewrites_is_not_trusted(own_redis, ingest_store) -> None:
    async with durable_at(own_redis.url, ingest_store) as durable:
        await own_redis.client.config_set("no-appendfsync-on-rewrite", "yes")

        assert not await durable.check_redis()


async def test_a_redis_that_was_out_is_trusted_only_after_it_was_asked_again(own_redis, ingest_store, admin) -> None:
    # It may be another one: a failover, a container started without its configuration.
    with capture_logs():
        async with durable_at(own_redis.url, ingest_store) as durable:
            await own_redis.stop()
            await durable.keep(b"down")
            await own_redis.start()
            await own_redis.client.config_set("appendfsync", "everysec")
            await durable.check_redis()
            await durable.keep(b"back, but it does not fsync")

    assert await in_postgres(admin) == {b"down", b"back, but it does not fsync"}


async def test_stopping_the_writer_leaves_no_caller_waiting_for_ever(empty_redis, ingest_store) -> None:
    async with durable_at(empty_redis, ingest_store, runs=False) as durable:
        writer = asyncio.create_task(durable.run())
        callers = [asyncio.ensure_future(durable.keep(b"{}")) for _ in range(1000)]
        await let_others_run()
        writer.cancel()
        async with asyncio.timeout(3):
            outcomes = await asyncio.gather(*callers, return_exceptions=True)

    assert {type(o) for o in outcomes} <= {Unavailable, type(None)}
