"""The `ai_worker` process: RQ in the main thread, one event loop beside it where the analyses run."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import suppress
from functools import partial
from types import FrameType

import redis
import rq
import structlog
import uvloop
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer

from services.ai_worker import jobs
from services.ai_worker.analyst import Analyst
from services.ai_worker.claude import Claude, connect
from services.ai_worker.settings import Settings
from shared.domain.errors import Unavailable
from shared.queue.connection import connect_blocking
from shared.queue.jobs import AnalyseDue, rq_queue
from shared.queue.runner import repeat
from shared.settings.clocks import Clocks
from shared.storage.open_storage import open_storage_if_any
from shared.store.analysis import AnalysisWork
from shared.store.choose import open_store
from shared.store.corrections import close_suggestions
from shared.store.port import Store
from shared.web.health import Health
from shared.web.serve import serving_internal

log = structlog.get_logger()

SUGGESTION_LIVES_H = 72  # nobody answers with one that is older; a weekend fits


class _WakeUps(rq.SimpleWorker):
    """RQ's worker without its own ideas about signals; retries Redis every few seconds, not every minute."""

    max_connection_wait_time = 5.0
    # By default RQ blocks for 45 s and lets a reply take 55: a Redis that hangs would hold up shutdown that long.
    dequeue_timeout = 2
    connection_timeout = 5

    def _install_signal_handlers(self) -> None:
        """Signals are `run`'s: it has the loop to drain too."""


class _Loop:
    """The event loop's thread."""

    def __init__(self, settings: Settings, clocks: Clocks) -> None:
        self._settings = settings
        self._clocks = clocks
        self._started = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._analyst: Analyst
        self.failed = False
        self.is_stopping = False
        self.thread = threading.Thread(target=self._run, name="loop")

    def start(self) -> None:
        """Start the thread; return once it takes work, or has failed."""
        self.thread.start()
        self._started.wait()

    def wake(self) -> None:
        """Claim and start what is due; called from the main thread, by a job. The rows wait if it cannot."""
        if self.is_stopping:
            return
        claiming = asyncio.run_coroutine_threadsafe(self._analyst.wake(), self._loop)
        try:
            claiming.result(timeout=AnalyseDue.timeout_s - 5)
        except TimeoutError:
            claiming.cancel()  # every slot is taken: whoever falls free claims again anyway
        except Unavailable as error:
            log.warning("wake_up.lost", error_code=error.code)

    def stop(self) -> None:
        """Begin to drain; safe from a signal handler, and more than once. Join the thread to wait for the end."""
        self.is_stopping = True
        if self._started.is_set():
            with suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._main())
        except Exception:
            self.failed = True
            log.exception("loop.failed")
        finally:
            self._started.set()
            if not self.is_stopping:
                os.kill(os.getpid(), signal.SIGTERM)  # a worker without its loop is deaf: end the process

    async def _main(self) -> None:
        settings, clocks = self._settings, self._clocks
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        client = connect(
            api_key=settings.anthropic.api_key.get_secret_value(),
            base_url=settings.anthropic.base_url,
            timeout_s=clocks.claude_timeout_s,
        )
        async with (
            client,
            open_store(settings.database, settings.supabase.rest(), service_role="service_role") as store,
            open_storage_if_any(settings.storage, supabase_url=settings.supabase.url) as storage,
        ):
            self._analyst = Analyst(
                claude=Claude(client, model=settings.anthropic.models(), timeout_s=clocks.claude_timeout_s),
                rows=AnalysisWork(store),
                clocks=clocks,
                slots=settings.slots,
                storage=storage,
            )
            health = Health({"postgres": store.is_reachable})
            async with serving_internal(health, settings.http):
                self._started.set()
                loops = [
                    asyncio.create_task(repeat("poll", self._analyst.poll)),
                    asyncio.create_task(repeat("renew", self._analyst.renew)),
                    asyncio.create_task(repeat("watch", self._analyst.watch)),
                    asyncio.create_task(repeat("close_suggestions", partial(_close_suggestions, store))),
                ]
                if self.is_stopping:  # told so before there was anybody to tell
                    self._stop.set()
                await self._stop.wait()
                health.stopping = True
                self._analyst.stop_claiming()  # renewal goes on while we drain
                await self._analyst.drain(clocks.drain_s)
                for loop in loops:
                    loop.cancel()
                await asyncio.gather(*loops, return_exceptions=True)


async def _close_suggestions(store: Store) -> float:
    """Count old suggestions as ignored; every worker does, since it costs one index probe."""
    closed = await close_suggestions(store, after_hours=SUGGESTION_LIVES_H)
    return 1.0 if closed else 600.0


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then drain."""
    clocks = Clocks()
    stopping = threading.Event()
    worker: _WakeUps | None = None

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopping.set()
        loop.stop()  # drains at once, whatever the main thread is at
        if worker is not None:
            # Raises out of a blocking read; a job at hand is finished first.
            worker.request_stop(number, frame)  # type: ignore[no-untyped-call]

    loop = _Loop(settings, clocks)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    loop.start()
    jobs.wake = loop.wake
    log.info("process.started", slots=settings.slots, model=settings.anthropic.model)
    connection = connect_blocking(settings.redis.url.get_secret_value(), timeout_s=clocks.redis_read_timeout_s)
    is_redis_out = False
    with suppress(StopRequested):  # the signal's way out of a blocking read
        while not stopping.is_set() and not loop.failed:
            try:
                worker = _WakeUps(
                    [rq_queue(AnalyseDue.queue, connection)],
                    connection=connection,
                    serializer=JSONSerializer,
                    worker_ttl=60,
                )
                if stopping.is_set():
                    break  # the signal came while RQ connected, and found no worker to stop
                is_redis_out = False
                worker.work(logging_level="WARNING")
            except redis.RedisError as error:
                # Without Redis there are no wake-ups; the loop polls, so work goes on.
                if not is_redis_out:
                    log.warning("redis.out", error=type(error).__name__)
                is_redis_out = True
            worker = None
            stopping.wait(1.0)
    log.info("process.stopping")
    loop.stop()
    loop.thread.join()
    if loop.failed:
        raise SystemExit(1)
