"""Every RQ job there is. A job is a wake-up: it carries nothing that matters, and may be lost, late or doubled."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import redis
import rq
from rq.serializers import JSONSerializer


class Job:
    """A wake-up for the process that works on `queue`."""

    queue: ClassVar[str]
    handler: ClassVar[str]  # dotted, so that the one who asks never imports the one who answers
    timeout_s: ClassVar[int]


class AnalyseDue(Job):
    """Wake a worker: some conversation has something new for Claude to read. Safe to lose, safe to repeat."""

    queue = "ai"
    handler = "services.ai_worker.jobs.analyse_due"
    timeout_s = 30


# Wake-ups beyond this wait behind work that is already known: workers look for more when a slot falls free anyway.
_ENOUGH_WAITING = 64


class Jobs:
    """Enqueues wake-ups."""

    def __init__(self, connection: redis.Redis) -> None:
        self._connection = connection

    async def wake(self, job: type[Job]) -> bool:
        """Enqueue a wake-up unless enough are waiting; say whether one was added. Raises: redis.RedisError."""
        return await asyncio.to_thread(self._wake, job)

    def _wake(self, job: type[Job]) -> bool:
        queue = rq_queue(job.queue, self._connection)
        if queue.count >= _ENOUGH_WAITING:
            return False
        queue.enqueue_call(
            job.handler, timeout=job.timeout_s, result_ttl=0, ttl=600, failure_ttl=86_400, description=job.__name__
        )
        return True


def rq_queue(name: str, connection: redis.Redis) -> rq.Queue:
    """Return the RQ queue of that name; JSON, never pickle."""
    return rq.Queue(name, connection=connection, serializer=JSONSerializer)
