"""The `ingest` process: wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from services.ingest.accept_webhook import WebhookEndpoint
from services.ingest.make_durable import MakeDurable
from services.ingest.settings import IngestSettings
from shared.queue.connection import connect
from shared.queue.runner import repeat
from shared.settings.clocks import Clocks
from shared.store.choose import open_store
from shared.store.webhooks import Webhooks
from shared.web.health import Health
from shared.web.serve import serve_until_stopped

_CHECK_REDIS_EVERY_S = 1.0  # how soon Redis is used again, and how long the stream may grow unseen


async def main(settings: IngestSettings) -> None:
    """Accept webhooks until told to stop."""
    clocks = Clocks()
    stream = connect(settings.redis.url.get_secret_value(), timeout_s=clocks.redis_append_timeout_s, max_connections=4)
    async with (
        stream,
        open_store(settings.database, settings.supabase.rest(), service_role="parley_ingest") as store,
    ):
        durable = MakeDurable(
            stream=stream, webhooks=Webhooks(store), max_backlog_bytes=settings.whatsapp.max_backlog_bytes
        )

        async def check_redis() -> float:
            await durable.check_redis()
            return _CHECK_REDIS_EVERY_S

        health = Health({"redis": durable.check_redis, "postgres": store.is_reachable}, any_of=True)
        endpoint = WebhookEndpoint(
            health.app,
            durable=durable,
            app_secrets=[secret.get_secret_value().encode() for secret in settings.whatsapp.app_secrets],
            verify_token=settings.whatsapp.verify_token.get_secret_value().encode(),
            max_body_bytes=settings.whatsapp.max_body_bytes,
        )
        await durable.check_redis()  # before the first body comes
        # In one group: if the writer ends, the process does, rather than leave every caller waiting.
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(durable.run()), group.create_task(repeat("check_redis", check_redis))]
            await serve_until_stopped(
                endpoint,
                http=settings.http,
                health=health,
                clocks=clocks,
                receive_within_s=settings.whatsapp.body_deadline_s,
            )
            await end(beside)


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel them until they are gone: on Python 3.11 `asyncio.wait_for`, in redis-py, may swallow a cancellation."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=1.0)
