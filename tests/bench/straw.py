"""The pipeline one would write first, to compare with: one RQ job per webhook, which carries the body.

`python -m tests.bench.straw PORT`: verify, enqueue (synced to disk, as ours), 200.
`python -m tests.bench.straw worker`: one `SimpleWorker`, which forks nothing, with its event loop and its database
connection kept from job to job; each job parses and records its body with our own function, one body a call.
Settings as for ours: REDIS_URL, DATABASE_URL, WHATSAPP_APP_SECRETS. It is not made slow: plain ASGI, JSON, no results.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
from typing import Any

import redis
import rq
import uvicorn
from rq.serializers import JSONSerializer

from shared.store.postgres import postgres_transport
from shared.store.webhooks import Webhooks
from shared.whatsapp.signature import matching_secret
from tests.world import received

QUEUE = "straw"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Verify one webhook, enqueue a job for it, answer."""
    chunks = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = b"".join(chunks)
    signature = dict(scope["headers"]).get(b"x-hub-signature-256")
    is_ours = matching_secret(body, signature, [os.environ["WHATSAPP_APP_SECRETS"].encode()]) is not None
    if is_ours:
        await asyncio.to_thread(_enqueue, body)
    status = 200 if is_ours else 401
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@functools.cache
def _queue() -> rq.Queue:
    connection = redis.Redis.from_url(os.environ["REDIS_URL"])
    return rq.Queue(QUEUE, connection=connection, serializer=JSONSerializer)


def _enqueue(body: bytes) -> None:
    _queue().enqueue_call("tests.bench.straw.record", args=(body.decode(),), timeout=30, result_ttl=0)


def record(body: str) -> None:
    """The job: record one webhook."""
    loop, webhooks, _ = _store()
    loop.run_until_complete(webhooks.record([received(body.encode())], settle_s=1))


@functools.cache
def _store() -> tuple[asyncio.AbstractEventLoop, Webhooks, contextlib.AsyncExitStack]:
    """Return what jobs share. Whoever drops the stack closes the pool: it is kept, and ends with the process."""
    loop, stack = asyncio.new_event_loop(), contextlib.AsyncExitStack()
    opening = postgres_transport(os.environ["DATABASE_URL"], service_role="service_role", max_connections=1)
    return loop, Webhooks(loop.run_until_complete(stack.enter_async_context(opening))), stack


def _work() -> None:
    queue = _queue()
    rq.SimpleWorker([queue], connection=queue.connection, serializer=JSONSerializer).work(logging_level="WARNING")


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        _work()
    else:
        uvicorn.run(
            app,
            port=int(sys.argv[1]),
            log_config=None,
            access_log=False,
            lifespan="off",
            interface="asgi3",
            loop="uvloop",
        )
