"""Run a step again and again: the one place where a worker's errors end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import RedisError

from shared.domain.errors import ParleyError, Unavailable

log = structlog.get_logger()

# Reads as: at once it may be a hiccup, after that wait, but never so long that recovery goes unnoticed.
_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
_SAY_EVERY = 30


async def repeat(name: str, step: Callable[[], Awaitable[float]], *, stop: asyncio.Event | None = None) -> None:
    """Run `step` until cancelled or `stop` is set; it returns the seconds to pause (0: go on at once).

    After an error it pauses a little longer each time, up to 2 s, and never gives up: rows are the truth, and they
    wait. "Later" is a warning, anything else a bug and an error.
    """
    stop = stop or asyncio.Event()
    failures = 0
    while not stop.is_set():
        try:
            pause_s = await step()
        except (Unavailable, RedisError, TimeoutError, ConnectionError) as error:
            code = error.code if isinstance(error, ParleyError) else type(error).__name__
            if failures % _SAY_EVERY == 0:  # once, then now and then: an outage is not a flood of lines
                log.warning("step.postponed", step=name, error_code=code, failures=failures + 1)
        except Exception:
            log.exception("step.failed", step=name, failures=failures + 1)
        else:
            failures = 0
            await wait(stop, pause_s)
            continue
        await wait(stop, _PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
        failures += 1


async def wait(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for `event` at most `timeout_s`; say whether it is set."""
    if timeout_s <= 0:
        await asyncio.sleep(0)
        return event.is_set()
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
