"""Redis clients with our own limits: the library retries commands, which repeats an append whose reply was lost."""

from __future__ import annotations

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry


def connect(url: str, *, timeout_s: float, max_connections: int) -> redis.asyncio.Redis:
    """Return an asyncio client; nothing is sent yet. `timeout_s` bounds connecting and each reply."""
    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=max_connections,
        retry=AsyncRetry(NoBackoff(), 0),
        health_check_interval=0,
        socket_keepalive=True,
    )


def connect_blocking(url: str, *, timeout_s: float) -> redis.Redis:
    """Return a blocking client, for RQ, which knows no other."""
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        socket_keepalive=True,
    )
