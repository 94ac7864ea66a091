"""The `dispatcher` process: rows of the outbox in, calls to Meta out, what came of them back. Wiring and loops only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from services.sender.chores import Chores
from services.sender.delete_files import delete_files
from services.sender.dispatch_messages import Sender
from services.sender.executors import SLOW, executors
from services.sender.expand_bulk_sends import expand_bulk_sends
from services.sender.graph import open_graph
from services.sender.leases import Leases
from services.sender.pacing import Pacing
from services.sender.seal import TokenOpener
from services.sender.settings import DispatcherSettings
from services.sender.tend import Tender
from shared.domain.errors import Unavailable
from shared.queue.bell import OutboxBell
from shared.queue.connection import connect
from shared.queue.runner import repeat
from shared.queue.streams import WebhookStream
from shared.settings.clocks import Clocks
from shared.storage.open_storage import open_storage
from shared.store.bulk import BulkWork
from shared.store.channels import ChannelWork
from shared.store.choose import open_store
from shared.store.media import MediaWork
from shared.store.outbox import Outbox
from shared.store.templates import TemplateWork
from shared.telemetry import metrics
from shared.web.health import Health
from shared.web.serve import serving_internal, stop_signal

log = structlog.get_logger()

_SWEEP_EVERY_S = 60.0  # files that are to go, go within minutes
_SCHEDULE_EVERY_S = 60.0  # looks whether an hour is over; a number just connected has its templates read within it
_QUICK_CHORES, _SLOW_CHORES = 16, 8  # at once

Steps = dict[str, Callable[[], Awaitable[float]]]


async def main(settings: DispatcherSettings) -> None:
    """Send until SIGTERM or SIGINT."""
    await run(settings, stop=stop_signal())


async def run(settings: DispatcherSettings, *, stop: asyncio.Event) -> None:
    """Send until told to stop; then claim nothing more, let calls end, record what came of them."""
    clocks = replace(Clocks(), doubt_grace_s=settings.doubt_grace_s)
    async with (
        connect(
            settings.redis.url.get_secret_value(), timeout_s=clocks.redis_append_timeout_s, max_connections=2
        ) as queue,
        connect(settings.cache_url, timeout_s=clocks.redis_append_timeout_s, max_connections=8) as cache,
        open_store(settings.database, settings.supabase.rest(), service_role="service_role") as store,
        open_graph(
            settings.whatsapp.graph_url, clocks=clocks, connections=settings.slots + _QUICK_CHORES + _SLOW_CHORES
        ) as graph,
        open_storage(settings.storage, supabase_url=settings.supabase.url) as storage,
    ):
        outbox = Outbox(store)
        leases = Leases(outbox, clocks)
        tokens = TokenOpener([key.get_secret_value() for key in settings.whatsapp.token_keys])
        tender = Tender(
            outbox=outbox,
            stream=WebhookStream(queue, consumer="dispatcher"),  # only ever looks
            clocks=clocks,
            look_again=lambda: sender.look_again(),
        )
        sender = Sender(
            outbox=outbox,
            graph=graph,
            pacing=Pacing(cache),
            tokens=tokens,
            leases=leases,
            clocks=clocks,
            slots=settings.slots,
            ripens=tender.ripens,
            followed=lambda: look_again(),
        )
        known = executors(graph=graph, store=store, storage=storage, settings=settings, released=sender.look_again)
        chores = [
            Chores(
                outbox=outbox,
                executors={kind: done_by for kind, done_by in known.items() if (kind in SLOW) is is_slow},
                tokens=tokens,
                leases=leases,
                clocks=clocks,
                slots=_SLOW_CHORES if is_slow else _QUICK_CHORES,
                deadline_s=clocks.chore_deadline_s,
            )
            for is_slow in (False, True)
        ]
        metrics.SENDS_IN_FLIGHT.set_function(lambda: sender.in_flight)

        def look_again() -> None:
            sender.look_again()
            for one in chores:
                one.look_again()

        bell = OutboxBell(cache)

        async def hear() -> float:
            async for _ in bell.listen():
                look_again()
            return 0

        async def expand() -> float:
            return await expand_bulk_sends(bulk=BulkWork(store), tell=look_again)

        async def sweep() -> float:
            await delete_files(media=MediaWork(store), storage=storage, now_s=time.time())
            await ChannelWork(store).schedule_checks()  # daily, each number
            await ChannelWork(store).schedule_blocks()
            return _SWEEP_EVERY_S

        async def schedule_template_syncs() -> float:
            await TemplateWork(store).schedule_syncs()
            return _SCHEDULE_EVERY_S

        health = Health({"postgres": store.is_reachable})
        async with serving_internal(health, settings.http):
            log.info("process.started", slots=settings.slots, kinds=sorted(known))
            # The first bring work in and end first; the second carry it to its end.
            beginning: Steps = {
                "send_due": sender.send_due,
                "do_chores": chores[0].do_due,
                "do_slow_chores": chores[1].do_due,
                "tend": tender.tend,
                "expand": expand,
                "sweep": sweep,
                "schedule_template_syncs": schedule_template_syncs,
            }
            ending: Steps = {
                "record": sender.results.record,
                "renew": leases.renew,
                "watch": tender.watch,
                "hear": hear,
            }
            first = [asyncio.create_task(repeat(name, step, stop=stop)) for name, step in beginning.items()]
            second = [asyncio.create_task(repeat(name, step)) for name, step in ending.items()]
            await stop.wait()
            log.info("process.stopping")
            health.stopping = True
            look_again()
            await asyncio.wait(first, timeout=clocks.redis_read_timeout_s)
            await asyncio.gather(
                sender.drain(clocks.send_timeout_s), *(one.drain(clocks.send_timeout_s) for one in chores)
            )
            for task in (*first, *second):
                task.cancel()
            await asyncio.gather(*first, *second, return_exceptions=True)
            await _record_the_last(sender, clocks)


async def _record_the_last(sender: Sender, clocks: Clocks) -> None:
    """Record results once more where the database was out; what cannot be recorded is in doubt, and settled later."""
    try:
        async with asyncio.timeout(clocks.flush_s):
            await sender.results.flush()
    except (Unavailable, TimeoutError) as error:
        log.error("results.lost", messages=sender.results.waiting, error=type(error).__name__)
