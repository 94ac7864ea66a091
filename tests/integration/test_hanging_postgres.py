"""A PostgreSQL that hangs: kill -9 never shows it, since then every socket closes at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil

from deploy.local.ports import any_free_port
from deploy.local.postgres import Postgres, embedded_postgres
from services.ingest.make_durable import MakeDurable
from shared.domain.errors import Unavailable
from shared.queue.connection import connect
from shared.store.migrate import migrate
from shared.store.postgres import postgres_transport
from shared.store.webhooks import Webhooks
from tests.world import received, text_message, webhook

TIMEOUT_S = 1.0


@contextlib.contextmanager
def stopped(server: Postgres) -> Iterator[None]:
    """Freeze every process of a server; its sockets stay open and silent."""
    postmaster = psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


async def test_a_hanging_database_is_unavailable_soon_and_itself_again_afterwards(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path, port=any_free_port()) as server:
        await asyncio.to_thread(migrate, server.url())
        async with postgres_transport(
            server.url(), service_role="service_role", max_connections=2, timeout_s=TIMEOUT_S
        ) as store:
            await store.call("make_webhook_partitions", {})

            with stopped(server):
                calls = [asyncio.create_task(store.call("make_webhook_partitions", {})) for _ in range(5)]
                async with asyncio.timeout(15):  # a hang would be for ever
                    outcomes = await asyncio.gather(*calls, return_exceptions=True)
                    is_reachable = await store.is_reachable()

            assert [type(outcome) for outcome in outcomes] == [Unavailable] * 5
            assert not is_reachable
            async with asyncio.timeout(30):
                while not await store.is_reachable():
                    await asyncio.sleep(0.1)
            assert '"in_default"' in await store.call("make_webhook_partitions", {})


async def test_with_redis_gone_and_postgres_hanging_every_waiting_webhook_is_told(tmp_path: Path) -> None:
    bodies = [received(webhook(text_message("Hello?", wamid=f"wamid.{n}"))).body for n in range(600)]
    async with embedded_postgres(tmp_path, port=any_free_port()) as server:
        await asyncio.to_thread(migrate, server.url())
        async with (
            postgres_transport(
                server.url(), service_role="parley_ingest", max_connections=2, timeout_s=TIMEOUT_S
            ) as store,
            connect(f"redis://127.0.0.1:{any_free_port()}/0", timeout_s=0.5, max_connections=1) as nobody,
        ):
            durable = MakeDurable(stream=nobody, webhooks=Webhooks(store))
            writer = asyncio.create_task(durable.run())
            with stopped(server):
                async with asyncio.timeout(15):
                    outcomes = await asyncio.gather(*(durable.keep(b.raw) for b in bodies), return_exceptions=True)
            writer.cancel()

    assert {type(outcome) for outcome in outcomes} == {Unavailable}
