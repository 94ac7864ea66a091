"""Read an account's templates from Meta: all of them, or those it has just told about; then what it counts of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from services.sender.chores import Again, Chore, Done, Failed, outcome_of
from services.sender.graph import Graph
from services.sender.read_template_analytics import ReadTemplateAnalytics
from services.sender.template_reader import ReadRefused, TemplateReader, error_of
from shared.store.templates import TemplateWork
from shared.whatsapp.errors import Kind
from shared.whatsapp.wire import elements, identifier

log = structlog.get_logger()

_MOST_READINGS = 2  # of the whole list: a cursor that went bad is begun anew, once


@dataclass(frozen=True, slots=True)
class SyncTemplates:
    """Executor of `template_sync`; payload: {only: [Meta's ids]}, or nothing for all of the number's account."""

    graph: Graph
    templates: TemplateWork
    analytics: ReadTemplateAnalytics
    now: Callable[[], datetime]

    async def __call__(self, chore: Chore) -> Done | Again | Failed:
        waba_id = chore.waba_id
        reader = TemplateReader(self.graph, token=chore.token, now=self.now)
        only = [one for one in map(identifier, elements(chore.payload.get("only"))) if one]
        read_at: datetime | None = None
        try:
            if only:
                await self._check(chore, waba_id, reader, only)
            else:
                read_at = await self._read_all(chore, waba_id, reader)
        except ReadRefused as refused:
            error = error_of(refused.verdict)
            await self.templates.finish_sync(chore.workspace_id, waba_id, read_at=None, calls=reader.calls, error=error)
            outcome = outcome_of(refused.verdict, attempt=chore.attempt)
            if refused.verdict.kind is Kind.CHANNEL and isinstance(outcome, Again):
                return Failed(outcome.error)  # the next hour's tries again
            return outcome
        due = await self.templates.finish_sync(
            chore.workspace_id, waba_id, read_at=read_at, calls=reader.calls, error=None
        )
        log.info("templates.synced", calls=reader.calls, is_whole=read_at is not None)
        if due is not None:
            await self.analytics.read(chore, waba_id, due)
        return Done()

    async def _read_all(self, chore: Chore, waba_id: str, reader: TemplateReader) -> datetime:
        """Merge every template; return as of when all are known. Raises: ReadRefused."""
        for reading in range(1, _MOST_READINGS + 1):
            began_at = self.now()
            try:
                seen = await self._read_list(chore, waba_id, reader)
                break
            except ReadRefused as refused:
                if refused.verdict.rule.reason != "invalid_cursor" or reading == _MOST_READINGS:
                    raise
        # A list that changes while it is paged through may miss one, so each is asked for before it counts as gone.
        unseen = await self.templates.unseen(chore.workspace_id, waba_id, seen, at=began_at)
        await self._check(chore, waba_id, reader, unseen)
        return began_at

    async def _read_list(self, chore: Chore, waba_id: str, reader: TemplateReader) -> list[str]:
        seen: list[str] = []
        async for page in reader.pages(waba_id):
            await self.templates.merge(chore.workspace_id, waba_id, page.templates, at=page.at)
            seen += [meta_id for one in page.templates if (meta_id := identifier(one.get("id")))]
        return seen

    async def _check(self, chore: Chore, waba_id: str, reader: TemplateReader, meta_ids: list[str]) -> None:
        """Merge templates one by one, or mark them deleted where Meta has none."""
        for meta_id in meta_ids:
            at = self.now()
            page = await reader.one(meta_id)
            if page is None:
                await self.templates.forget(chore.workspace_id, waba_id, [meta_id], at=at)
            else:
                await self.templates.merge(chore.workspace_id, waba_id, page.templates, at=page.at)
