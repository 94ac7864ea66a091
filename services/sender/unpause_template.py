"""Have Meta let a paused template be sent again."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.sender.chores import Again, Chore, Done, Failed, outcome_of
from services.sender.graph import Graph
from services.sender.template_reader import error_of, verdict_of
from shared.store.templates import TemplateWork
from shared.whatsapp.errors import Kind


@dataclass(frozen=True, slots=True)
class UnpauseTemplate:
    """Executor of `template_submit` with `unpause` in its payload: {template_id, unpause}. Repeatable."""

    graph: Graph
    templates: TemplateWork

    async def __call__(self, chore: Chore) -> Done | Again | Failed:
        template_id = UUID(str(chore.payload["template_id"]))
        asked = await self.templates.to_unpause(chore.workspace_id, template_id)
        if asked is None:
            return Done()
        answer = await self.graph.post(f"{asked.meta_id}/unpause", {}, token=chore.token)
        verdict = verdict_of(answer)
        outcome = outcome_of(verdict, attempt=chore.attempt)
        if verdict.kind is Kind.CHANNEL and isinstance(outcome, Again):
            outcome = Failed(outcome.error)  # people see why, and ask again once it is mended
        if isinstance(outcome, Again):
            return outcome
        error = None if isinstance(outcome, Done) else error_of(verdict, answer.body)
        await self.templates.finish_unpause(chore.workspace_id, template_id, asked, error=error)
        return outcome
