"""A backfill by message batches: make, send, wait, store. Whatever ends this, the next run goes on from the rows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from anthropic.types import Message

from services.ai_worker.analyse_conversation import MOST_MESSAGES, attempt_json, question_of, results_json
from services.ai_worker.claude import Answer, Claude, read_reply
from services.ai_worker.message_analysis import Question
from services.ai_worker.pricing import BATCH_SHARE
from services.ai_worker.prompt import Ask, Task, Tier
from services.ai_worker.redaction import NotRedacted
from services.ai_worker.retries import WEATHER, Outcome
from shared.domain.ids import new_id
from shared.queue.runner import wait
from shared.store.backfill import Backfill, Batch, Wanted

log = structlog.get_logger()

MOST_REQUESTS = 500  # of a batch: their results are read, and their reservations held, together
_PAGE = 100


class Batches:
    """A workspace's batches, one after the other."""

    def __init__(self, *, backfill: Backfill, claude: Claude, wanted: Wanted, look_every_s: float) -> None:
        self._backfill = backfill
        self._claude = claude
        self._wanted = wanted
        self._look_every_s = look_every_s
        self._done = 0

    async def run(self, tell: Callable[[int], None]) -> tuple[int, datetime | None]:
        """Go on with what is open, then batch what is wanted; return the messages left, and when there is money again.

        Raises: Unavailable, when the database or Claude cannot be had; run again.
        """
        workspace_id = self._wanted.workspace_id
        for batch in await self._backfill.batches(workspace_id):
            await self._carry(batch, tell)
        while True:
            done_before = self._done
            batch_id = new_id()
            contexts, until = await self._backfill.make_batch(
                self._wanted,
                batch_id=batch_id,
                most_requests=MOST_REQUESTS,
                most_messages=MOST_MESSAGES,
                prices=self._claude.prices(Task.MESSAGES, share_of_price=BATCH_SHARE),
            )
            if contexts:
                remote_id = await self._send(contexts)
                if remote_id is not None:
                    await self._backfill.note_sent(workspace_id, batch_id, remote_id)
                await self._carry(Batch(batch_id, remote_id, len(contexts)), tell)
            else:
                await self._backfill.end_batch(workspace_id, batch_id)
            scope = await self._backfill.scope(self._wanted, most_messages=MOST_MESSAGES)
            left = scope.messages if scope else 0
            if not left or until or self._done == done_before:
                return left, until

    async def _send(self, contexts: list[dict[str, Any]]) -> str | None:
        """Send what may leave; give up what may not. None: nothing was sent."""
        asks = {}
        for context in contexts:
            ask, question = self._ask(context)
            try:
                asks[_name(context["attempt_id"], ask.version)] = self._claude.parts_of(ask)
            except NotRedacted:
                answer = read_reply(self._claude.read_result(ask, Outcome.NOT_REDACTED), question)
                await self._finish(context["attempt_id"], answer, given_up=Outcome.NOT_REDACTED)
        remote_id = await self._claude.send_batch(asks) if asks else None
        log.info("batch.sent", requests=len(asks), request_id=remote_id)
        return remote_id

    async def _carry(self, batch: Batch, tell: Callable[[int], None]) -> None:
        """Wait for a batch, store its results, end it. One that may never have been sent counts as lost."""
        workspace_id = self._wanted.workspace_id
        if batch.remote_id is not None:
            while not await self._claude.has_ended(batch.remote_id):
                await wait(asyncio.Event(), self._look_every_s)
            page: dict[int, tuple[str, Message | Outcome]] = {}
            async for name, result in self._claude.batch_results(batch.remote_id):
                attempt_id, _, version = name.partition("_")
                page[int(attempt_id)] = (version, result)
                if len(page) == _PAGE:
                    await self._store(batch, page)
                    page.clear()
                    tell(self._done)
            await self._store(batch, page)
            tell(self._done)
        lost = await self._backfill.end_batch(workspace_id, batch.id)
        log.info("batch.ended", requests=batch.requests, lost=lost, request_id=batch.remote_id)

    async def _store(self, batch: Batch, page: dict[int, tuple[str, Message | Outcome]]) -> None:
        workspace_id = self._wanted.workspace_id
        contexts = await self._backfill.requests(workspace_id, batch.id, list(page))
        for attempt_id, (version, result) in page.items():
            context = contexts.get(attempt_id)
            # Without: what it was about is gone, or it was stored before; what it cost is counted, if it was not.
            answer = self._answer(context, version, result) if context else self._forgotten(version, result)
            is_final = answer.outcome is not Outcome.OK and answer.outcome not in WEATHER
            await self._finish(attempt_id, answer, given_up=answer.outcome if is_final and context else None)

    async def _finish(self, attempt_id: int, answer: Answer, *, given_up: str | None) -> None:
        await self._backfill.finish(
            self._wanted.workspace_id,
            attempt=attempt_json(attempt_id, answer),
            results=results_json(answer),
            given_up=given_up,
        )
        self._done += len(answer.accepted)

    def _answer(self, context: dict[str, Any], version: str, result: Message | Outcome) -> Answer:
        ask, question = self._ask(context)
        if version != _plain(ask.version):
            # Another version of this program made it: what its placeholders stand for is not known for sure.
            return self._forgotten(version, result)
        return read_reply(self._claude.read_result(ask, result), question)

    def _forgotten(self, version: str, result: Message | Outcome) -> Answer:
        usage, cost = self._claude.price_of(result)
        return Answer(Outcome.TIMEOUT, [], self._claude.model_of(Task.MESSAGES), version, usage, cost, 0, None)

    def _ask(self, context: dict[str, Any]) -> tuple[Ask, Question]:
        # As it was when the batch was made: an open window may have closed since, but the texts must be the same.
        question = question_of(context, now=datetime.fromisoformat(context["made_at"]).astimezone(UTC))
        return self._claude.about_messages(question, tier=Tier(context["tier"])), question


def _name(attempt_id: int, version: str) -> str:
    return f"{attempt_id}_{_plain(version)}"[:64]


def _plain(version: str) -> str:
    """A version as a request's name may hold it."""
    return re.sub(r"[^a-zA-Z0-9-]", "-", version)[:40]
