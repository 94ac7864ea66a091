"""Delivering signed bodies to our webhook, and trying again as Meta does until the answer is 200."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from deploy.sandbox.faults import FaultBoard
from deploy.sandbox.logs import log, utc_text
from deploy.sandbox.webhook_body import signature

# Meta: at once, then less and less often, for up to seven days. Compressed, so a test sees several in seconds.
RETRY_AFTER_S = (0.0, 0.2, 0.5, 1.0, 2.0, 4.0, 5.0)
ATTEMPT_TIMEOUT_S = 10.0  # undocumented by Meta; others report 5 to 10 s
MOST_PENDING = 10_000
MOST_KEPT = 10_000
# httpx's pool slows down with connections (measured 2026-11: 240 requests/s at 64, 750 at 4).
CONNECTIONS = 16


class TooManyPending(Exception):
    """As many deliveries wait as the sandbox is willing to hold."""


@dataclass(slots=True)
class Delivery:
    """One copy of one body on its way to our webhook."""

    number: int
    wamid: str | None
    copy: int
    created_at: datetime
    changed_at: datetime
    attempts: int = 0
    first_attempt_at: datetime | None = None
    last_attempt_at: datetime | None = None
    next_attempt_at: datetime | None = None
    delivered_at: datetime | None = None
    last_status: int | None = None  # null: never answered
    last_error: str | None = None  # why there was no answer, by class name
    latency_ms: float | None = None  # of the last answered attempt
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def to_json(self) -> dict[str, object]:
        """Show the record; times as ISO 8601 in UTC."""

        def at(moment: datetime | None) -> str | None:
            return None if moment is None else utc_text(moment)

        return {
            "id": self.number,
            "wamid": self.wamid,
            "copy": self.copy,
            "attempts": self.attempts,
            "created_at": at(self.created_at),
            "changed_at": at(self.changed_at),
            "first_attempt_at": at(self.first_attempt_at),
            "last_attempt_at": at(self.last_attempt_at),
            "next_attempt_at": at(self.next_attempt_at),
            "delivered_at": at(self.delivered_at),
            "last_status": self.last_status,
            "last_error": self.last_error,
            "latency_ms": self.latency_ms,
        }


class Deliveries:
    """All deliveries: those under way as tasks, the newest records for whoever asks."""

    def __init__(
        self,
        *,
        webhook_url: str,
        app_secret: str,
        board: FaultBoard,
        client: httpx.AsyncClient,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._url = webhook_url
        self._app_secret = app_secret
        self._board = board
        self._client = client
        self._chance = chance
        self._records: deque[Delivery] = deque(maxlen=MOST_KEPT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._pending = 0
        self._connections = asyncio.Semaphore(CONNECTIONS)

    @property
    def pending(self) -> int:
        return self._pending

    def since(self, moment: datetime | None) -> list[Delivery]:
        """List what was created or changed at that time or later, oldest first; everything kept when None."""
        return [record for record in self._records if moment is None or record.changed_at >= moment]

    def send(self, raw: bytes, wamid: str | None) -> list[Delivery]:
        """Start delivering a body, in as many copies as the faults ask for; returns at once.

        Raises: TooManyPending.
        """
        copies = self._board.now.webhooks.duplicate
        if self._pending + copies > MOST_PENDING:
            raise TooManyPending(f"{self._pending} deliveries already wait for the webhook to answer 200")
        now = datetime.now(UTC)
        made = [Delivery(self._numbers + copy + 1, wamid, copy, now, now) for copy in range(copies)]
        self._numbers += copies
        self._pending += copies
        self._records.extend(made)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "facebookexternalua",
            "X-Hub-Signature-256": signature(raw, self._app_secret),
        }
        one_by_one = not self._board.now.webhooks.concurrent_copies
        for copy, record in enumerate(made):
            after = made[copy - 1].done if one_by_one and copy else None
            task = asyncio.create_task(self._deliver(record, raw, headers, after))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return made

    async def close(self) -> None:
        """Stop every delivery under way; what was not delivered is forgotten with the process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(
        self, record: Delivery, raw: bytes, headers: dict[str, str], after: asyncio.Event | None
    ) -> None:
        try:
            if after is not None:
                await after.wait()
            if shuffle_ms := self._board.now.webhooks.shuffle_ms:
                await asyncio.sleep(self._chance() * shuffle_ms / 1000)
            while not await self._attempt(record, raw, headers):
                wait_s = RETRY_AFTER_S[min(record.attempts, len(RETRY_AFTER_S)) - 1]
                record.next_attempt_at = datetime.now(UTC) + timedelta(seconds=wait_s)
                await asyncio.sleep(wait_s)
        finally:
            self._pending -= 1
            record.done.set()

    async def _attempt(self, record: Delivery, raw: bytes, headers: dict[str, str]) -> bool:
        """Post once and write down what came of it; True when our webhook answered 200."""
        lost = record.attempts < self._board.now.webhooks.drop_first
        record.attempts += 1
        async with self._connections:
            started = time.monotonic()
            record.last_attempt_at = datetime.now(UTC)
            record.first_attempt_at = record.first_attempt_at or record.last_attempt_at
            record.last_status, record.last_error = None, None
            record.next_attempt_at = None
            if lost:
                record.last_error = "lost on the way (fault)"
            else:
                try:
                    answer = await self._client.post(self._url, content=raw, headers=headers)
                    record.last_status = answer.status_code
                    record.latency_ms = round((time.monotonic() - started) * 1000, 1)
                except httpx.HTTPError as error:
                    record.last_error = type(error).__name__
        record.changed_at = datetime.now(UTC)
        told: dict[str, Any] = {"wamid": record.wamid, "delivery": record.number, "attempt": record.attempts}
        if record.last_status == 200:
            record.delivered_at = record.changed_at
            log("webhook.delivered", **told, status=200, duration_ms=record.latency_ms)
            return True
        log("webhook.refused", "warning", **told, status=record.last_status, error=record.last_error)
        return False
