"""Delete a template at Meta, in its language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.sender.chores import Again, Chore, Done, Failed, outcome_of
from services.sender.graph import Graph
from services.sender.template_reader import ReadRefused, TemplateReader, error_of, verdict_of
from shared.store.templates import TemplateWork
from shared.whatsapp.errors import Kind


@dataclass(frozen=True, slots=True)
class DeleteTemplate:
    """Executor of `template_delete`; payload: {template_id}. Repeatable: what is gone already is done."""

    graph: Graph
    templates: TemplateWork
    now: Callable[[], datetime]

    async def __call__(self, chore: Chore) -> Done | Again | Failed:
        template_id = UUID(str(chore.payload["template_id"]))
        asked = await self.templates.to_delete(chore.workspace_id, template_id)
        if asked is None:
            return Done()
        at = self.now()
        answer = await self.graph.delete(
            f"{asked.waba_id}/message_templates",
            token=chore.token,
            params={"hsm_id": asked.meta_id, "name": asked.name},
        )
        verdict = verdict_of(answer)
        outcome = outcome_of(verdict, attempt=chore.attempt)
        if verdict.kind is Kind.CHANNEL and isinstance(outcome, Again):
            outcome = Failed(outcome.error)  # people see why, and ask again once it is mended
        if isinstance(outcome, Failed) and await self._is_gone(chore, asked.meta_id):
            outcome = Done()
        if isinstance(outcome, Again):
            return outcome
        error = None if isinstance(outcome, Done) else error_of(verdict, answer.body)
        await self.templates.finish_delete(chore.workspace_id, template_id, asked, at=at, error=error)
        return outcome

    async def _is_gone(self, chore: Chore, meta_id: str) -> bool:
        """Tell whether Meta has it no longer: the answer to a first attempt may have been lost."""
        try:
            return await TemplateReader(self.graph, token=chore.token, now=self.now).one(meta_id) is None
        except ReadRefused:
            return False
