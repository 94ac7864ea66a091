"""The webhook endpoint over HTTP while its servers fail: what got 200 is kept, once; the rest was told to come back.

Each test has a Redis of its own to break, and checks on it as often as it can, where the process does once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import psycopg
import pytest
import redis.asyncio
from prometheus_client import REGISTRY

from deploy.local.ports import HOST, any_free_port
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis, prepare_redis
from deploy.local.supervisor import Backoff, Supervisor
from services.ingest.accept_webhook import PATH, WebhookEndpoint
from services.ingest.make_durable import MakeDurable
from services.ingest.web import end
from shared.queue.connection import connect
from shared.queue.runner import repeat
from shared.queue.streams import STREAM, decode
from shared.store.postgres import PostgresTransport, postgres_transport
from shared.store.webhooks import Webhooks
from shared.web.health import Health
from shared.web.serve import serving

SECRET = b"secret-of-this-test"
APPEND_TIMEOUT_S = 0.3
Kept = dict[bytes, set[UUID]]


class OwnRedis:
    """A Redis this test may break; it is kept up, as any orchestrator would."""

    def __init__(self, server: Redis) -> None:
        self._server = server
        self._supervisor = Supervisor(backoff=Backoff(first_s=0.1))
        self.url = server.url()
        self.client = redis.asyncio.Redis.from_url(self.url)

    async def start(self) -> None:
        self._supervisor.start(self._server.spec())
        await self._server.wait_until_ready()

    async def stop(self) -> None:
        await self.client.aclose()
        await self._supervisor.stop()

    def signal(self, number: signal.Signals) -> None:
        for pid in self._supervisor.pids().values():
            os.kill(pid, number)

    async def bodies(self) -> Kept:
        await self._server.wait_until_ready()
        kept: Kept = {}
        for entry_id, fields in await self.client.xrange(STREAM):
            for body in decode(entry_id.decode(), fields).bodies:
                kept.setdefault(body.raw, set()).add(body.id)
        return kept


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[OwnRedis]:
    own = OwnRedis(prepare_redis(tmp_path, port=any_free_port()))
    await own.start()
    yield own
    await own.stop()


class Meta:
    """Posts signed bodies, many at a time, and remembers which got 200."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.acknowledged: set[bytes] = set()
        self.refused: list[httpx.Response] = []

    async def post(self, *bodies: bytes) -> None:
        await asyncio.gather(*(self._post(body) for body in bodies))

    async def _post(self, body: bytes) -> None:
        signature = f"sha256={hmac.digest(SECRET, body, hashlib.sha256).hex()}"
        answer = await self._http.post(PATH, content=body, headers={"X-Hub-Signature-256": signature})
        if answer.status_code == 200:
            self.acknowledged.add(body)
        else:
            self.refused.append(answer)


@contextlib.asynccontextmanager
async def meta(
    redis_url: str, store: PostgresTransport, *, max_backlog_bytes: int = 128 * 1024 * 1024
) -> AsyncIterator[Meta]:
    """Run the endpoint on these servers, and Meta beside it."""
    port = any_free_port()
    async with connect(redis_url, timeout_s=APPEND_TIMEOUT_S, max_connections=4) as stream:
        durable = MakeDurable(stream=stream, webhooks=Webhooks(store), max_backlog_bytes=max_backlog_bytes)

        async def check_redis() -> float:
            await durable.check_redis()
            return 0.02

        await durable.check_redis()
        endpoint = WebhookEndpoint(
            Health({}).app, durable=durable, app_secrets=[SECRET], verify_token=b"token", max_body_bytes=4 * 1024 * 1024
        )
        async with (
            serving(endpoint, host=HOST, port=port, drain_s=1),
            httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=20, trust_env=False) as http,
        ):
            beside = [asyncio.create_task(durable.run()), asyncio.create_task(repeat("check_redis", check_redis))]
            yield Meta(http)
            assert not any(task.done() for task in beside)  # whatever happened, they go on
            await end(beside)


async def in_postgres(admin: psycopg.AsyncConnection) -> Kept:
    kept: Kept = {}
    cursor = await admin.execute("select raw, id from app.webhook_bodies where state = 'new'")
    for raw, body_id in await cursor.fetchall():
        kept.setdefault(raw, set()).add(body_id)
    return kept


def together(*places: Kept) -> Kept:
    return {raw: set().union(*(place.get(raw, set()) for place in places)) for place in places for raw in place}


def must_hold(kept: Kept, acknowledged: set[bytes]) -> None:
    """Nothing acknowledged is lost; what is in both places is one body, recorded once because it has one id."""
    assert acknowledged <= kept.keys()
    assert {raw: ids for raw, ids in kept.items() if len(ids) > 1} == {}


def numbered(name: str, count: int, *, size_bytes: int = 0) -> list[bytes]:
    return [(f"{name} {number} ".encode()).ljust(size_bytes, b".") for number in range(count)]


async def until_redis_is_used(sender: Meta, own: OwnRedis, *, within_s: float = 15) -> None:
    """Post until one arrives in Redis."""
    async with asyncio.timeout(within_s):
        for number in range(10_000):
            probe = b"probe %d" % number
            await sender.post(probe)
            if probe in await own.bodies():
                return
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], object], *, within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


def bodies_kept() -> float:
    return sum(REGISTRY.get_sample_value("webhook_bodies_total", {"where": w}) or 0 for w in ("redis", "postgres"))


async def test_a_redis_killed_under_load_loses_nothing_it_acknowledged(
    own_redis: OwnRedis, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    async with meta(own_redis.url, ingest_store) as sender:
        posting = asyncio.create_task(sender.post(*numbered("load", 400)))
        await until(lambda: len(sender.acknowledged) > 100)
        own_redis.signal(signal.SIGKILL)
        await posting
        await until_redis_is_used(sender, own_redis)

    assert sender.refused == []
    assert set(numbered("load", 400)) <= sender.acknowledged
    must_hold(together(await own_redis.bodies(), await in_postgres(admin)), sender.acknowledged)


async def test_while_redis_hangs_bodies_go_to_postgres_and_afterwards_to_redis_again(
    own_redis: OwnRedis, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    async with meta(own_redis.url, ingest_store) as sender:
        await sender.post(*numbered("before", 20))
        own_redis.signal(signal.SIGSTOP)
        await sender.post(*numbered("hung", 40))
        stored = await in_postgres(admin)
        own_redis.signal(signal.SIGCONT)
        await until_redis_is_used(sender, own_redis)

    assert sender.refused == []
    assert set(numbered("hung", 40)) <= stored.keys()
    # The append that hung was carried out in the end: those bodies are in both places, under the same ids.
    must_hold(together(await own_redis.bodies(), await in_postgres(admin)), sender.acknowledged)


async def test_while_redis_is_out_of_memory_bodies_go_to_postgres_until_there_is_room(
    own_redis: OwnRedis, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    used = (await own_redis.client.info("memory"))["used_memory"]
    await own_redis.client.config_set("maxmemory", used + 1_000_000)

    async with meta(own_redis.url, ingest_store) as sender:
        for number in range(8):
            await sender.post(*numbered(f"flood {number}", 10, size_bytes=50_000))
        kept = together(await own_redis.bodies(), stored := await in_postgres(admin))
        await own_redis.client.delete(STREAM)  # as if a recorder had caught up
        await until_redis_is_used(sender, own_redis)

    assert sender.refused == []
    assert 0 < len(stored) < 80
    must_hold(kept, {body for body in sender.acknowledged if body.startswith(b"flood")})
    assert (await own_redis.client.info("stats"))["evicted_keys"] == 0


async def test_while_the_backlog_is_too_long_bodies_go_to_postgres_until_recorders_caught_up(
    own_redis: OwnRedis, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    async with meta(own_redis.url, ingest_store, max_backlog_bytes=200_000) as sender:
        for number in range(20):
            await sender.post(*numbered(f"flood {number}", 10, size_bytes=5_000))
            await asyncio.sleep(0.05)  # a check on Redis or two: what comes between them is not seen
        kept = together(waiting := await own_redis.bodies(), stored := await in_postgres(admin))
        backlog_bytes = await own_redis.client.memory_usage(STREAM)
        await own_redis.client.delete(STREAM)
        await until_redis_is_used(sender, own_redis)

    assert sender.refused == []
    assert backlog_bytes < 2 * 200_000
    assert len(waiting) >= 30
    assert len(stored) >= 80
    must_hold(kept, {body for body in sender.acknowledged if body.startswith(b"flood")})


async def test_while_postgres_is_down_redis_carries_on_alone(own_redis: OwnRedis) -> None:
    async with nothing_there() as store, meta(own_redis.url, store) as sender:
        await sender.post(*numbered("alone", 50))

    assert sender.refused == []
    must_hold(await own_redis.bodies(), set(numbered("alone", 50)))


async def test_while_both_are_down_meta_is_told_to_come_back_and_nothing_counts_as_kept(own_redis: OwnRedis) -> None:
    async with nothing_there() as store, meta(own_redis.url, store) as sender:
        before = bodies_kept()
        await own_redis.stop()
        await sender.post(*numbered("down", 50))
        counted = bodies_kept() - before
        refused = list(sender.refused)
        await own_redis.start()
        await until_redis_is_used(sender, own_redis)

    assert counted == 0
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in refused] == [(503, "5")] * 50
    assert {answer.json()["code"] for answer in refused} == {"database_unavailable"}
    kept = await own_redis.bodies()
    assert not any(raw.startswith(b"down") for raw in kept)
    must_hold(kept, sender.acknowledged)


@contextlib.asynccontextmanager
async def nothing_there() -> AsyncIterator[PostgresTransport]:
    """A PostgreSQL that is down."""
    nowhere = f"postgresql://nobody@{HOST}:{any_free_port()}/none"
    async with postgres_transport(nowhere, service_role="parley_ingest", max_connections=1, timeout_s=0.2) as store:
        yield store


async def test_a_postgres_that_says_its_disk_is_full_means_later(
    own_redis: OwnRedis, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await admin.execute(
        "create function app.full_disk() returns trigger language plpgsql as "
        "$$ begin raise exception 'could not extend file' using errcode = '53100'; end $$"
    )
    await admin.execute(
        "create trigger full_disk before insert on app.webhook_bodies for each row execute function app.full_disk()"
    )

    async with meta(own_redis.url, ingest_store) as sender:
        await own_redis.stop()
        await sender.post(*numbered("full", 20))
        refused = list(sender.refused)
        await admin.execute("drop trigger full_disk on app.webhook_bodies")
        await sender.post(*numbered("room", 20))
        await own_redis.start()

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "database_unavailable")}
    assert len(refused) == 20
    assert set(await in_postgres(admin)) == sender.acknowledged == set(numbered("room", 20))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB, where we may mount one."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs to mount a small file system, which root may")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


async def test_while_redis_has_no_disk_left_bodies_go_to_postgres_until_there_is_some(
    tiny_disk: Path, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    # Under appendfsync always Redis 6 ends itself when it cannot write, rather than acknowledge; then starts, reads
    # what is whole, and ends again, for as long as the disk is full.
    filler = tiny_disk / "filler"
    filler.write_bytes(b"\0" * 14 * 1024 * 1024)
    own_redis = OwnRedis(prepare_redis(tiny_disk, port=any_free_port()))
    await own_redis.start()

    async with meta(own_redis.url, ingest_store) as sender:
        for number in range(10):
            await sender.post(*numbered(f"flood {number}", 10, size_bytes=50_000))
        stored = await in_postgres(admin)
        filler.unlink()
        await until_redis_is_used(sender, own_redis)
        kept = together(await own_redis.bodies(), await in_postgres(admin))
    await own_redis.stop()

    assert sender.refused == []
    assert 0 < len(stored) < 100
    must_hold(kept, sender.acknowledged)


async def test_while_postgres_has_no_disk_left_either_meta_is_told_to_come_back(
    tiny_disk: Path,
    postgres_server: Postgres,
    own_redis: OwnRedis,
    ingest_store: PostgresTransport,
    admin: psycopg.AsyncConnection,
) -> None:
    space = f"tiny_{os.getpid()}"
    async with tablespace(admin, postgres_server, tiny_disk, space):
        async with meta(own_redis.url, ingest_store) as sender:
            await own_redis.stop()
            # Random bytes: what can be compressed would fit.
            for _ in range(12):
                await sender.post(*(os.urandom(400_000) for _ in range(4)))
            refused, stored = list(sender.refused), await in_postgres(admin)
            await own_redis.start()
            await until_redis_is_used(sender, own_redis)

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "database_unavailable")}
    assert 0 < len(stored) < 48
    must_hold(together(await own_redis.bodies(), stored), sender.acknowledged)


@contextlib.asynccontextmanager
async def tablespace(admin: psycopg.AsyncConnection, server: Postgres, place: Path, name: str) -> AsyncIterator[None]:
    """Keep the webhook bodies there."""
    for folder in (place, *place.parents[: len(place.parents) - 2]):
        folder.chmod(folder.stat().st_mode | 0o011)  # PostgreSQL's account must step through
    data = place / "data"
    data.mkdir()
    if server.account:
        os.chown(data, server.account.uid, server.account.gid)
    await admin.execute(f"create tablespace {name} location '{data}'")  # type: ignore[call-overload]
    cursor = await admin.execute(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'app.webhook_bodies'::regclass"
    )
    partitions = [partition for (partition,) in await cursor.fetchall()]
    for partition in partitions:
        await admin.execute(f"alter table {partition} set tablespace {name}")  # type: ignore[call-overload]
    try:
        yield
    finally:
        for partition in partitions:
            await admin.execute(f"alter table {partition} set tablespace pg_default")  # type: ignore[call-overload]
        await admin.execute(f"drop tablespace {name}")  # type: ignore[call-overload]
