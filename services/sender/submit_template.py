"""Hand a template's draft to Meta: create it there, or edit the one that is there.

Where the outcome is unknown (a lost answer, a dispatcher that died) the template is read back first: a second creation
would be refused as existing, a second edit as one too many in a day.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.sender.chores import Again, Chore, ChoreError, Done, Failed, outcome_of
from services.sender.graph import Answer, Graph
from services.sender.template_reader import Page, ReadRefused, TemplateReader, error_of, verdict_of
from services.sender.template_samples import SampleRefused, TemplateSamples
from services.sender.unpause_template import UnpauseTemplate
from shared.store.templates import TemplateWork, ToSubmit
from shared.whatsapp.errors import Kind, Verdict
from shared.whatsapp.outbound.part import given
from shared.whatsapp.templates.same import is_same
from shared.whatsapp.wire import Json

_READ_BACK_S = 5.0  # Meta may still be at work on what it did not answer


@dataclass(frozen=True, slots=True)
class SubmitTemplate:
    """Executor of `template_submit`; payload: {template_id}, and `unpause` where that is all that is asked."""

    graph: Graph
    templates: TemplateWork
    samples: TemplateSamples
    now: Callable[[], datetime]

    async def __call__(self, chore: Chore) -> Done | Again | Failed:
        """Create or edit, and write down what Meta made of it."""
        if chore.payload.get("unpause"):
            return await UnpauseTemplate(self.graph, self.templates)(chore)
        template_id = UUID(chore.payload["template_id"])
        asked = await self.templates.to_submit(chore.workspace_id, template_id)
        if asked is None:
            return Done()
        submission = _Submission(self, chore, template_id, asked)
        if chore.attempt > 1 and await submission.was_done_before():
            return Done()
        return await submission.submit()


class _Submission:
    def __init__(self, by: SubmitTemplate, chore: Chore, template_id: UUID, asked: ToSubmit) -> None:
        self._by = by
        self._chore = chore
        self._template_id = template_id
        self._asked = asked
        self._at = by.now()
        self._reader = TemplateReader(by.graph, token=chore.token, now=by.now)

    async def submit(self) -> Done | Again | Failed:
        try:
            components = await self._by.samples.fill_in(self._chore, self._asked.components)
        except SampleRefused as refused:
            return await self._settle_failure(refused.outcome, refused.details)
        answer = await self._call(components)
        verdict = verdict_of(answer, is_repeatable=False)
        if verdict.kind is Kind.ACCEPTED:
            await self._accepted(answer.body, components)
            return Done()
        is_unclear = verdict.kind is Kind.IN_DOUBT or verdict.rule.reason == "template_exists"
        if is_unclear and await self.was_done_before():
            return Done()
        return await self._refused(verdict, answer.body)

    async def _call(self, components: list[object]) -> Answer:
        asked = self._asked
        ttl = given(message_send_ttl_seconds=asked.ttl_s)
        if asked.meta_id is None:
            body = {
                "name": asked.name,
                "language": asked.language,
                "category": asked.category,
                **given(parameter_format=asked.parameter_format),
                "components": components,
                **ttl,
            }
            return await self._by.graph.post(f"{asked.waba_id}/message_templates", body, token=self._chore.token)
        # The category of an approved one is fixed, and naming it is an attempt to change it.
        category = {} if asked.status == "approved" else {"category": asked.category}
        return await self._by.graph.post(
            asked.meta_id, {"components": components, **category, **ttl}, token=self._chore.token
        )

    async def was_done_before(self) -> bool:
        """Read the template back; say, and write down, whether Meta has the draft. Not readable: no."""
        try:
            page = await self._read()
        except ReadRefused:
            return False
        if page is None:
            return False
        found = page.templates[0]
        if not is_same(found, {"components": self._asked.components, "category": self._asked.category}):
            if self._asked.meta_id is None:  # somebody else's, of that name: now we know it
                await self._by.templates.merge(
                    self._chore.workspace_id, self._asked.waba_id, page.templates, at=page.at
                )
            return False
        if self._asked.meta_id is not None and str(found.get("status", "")).lower() == self._asked.status == "rejected":
            return False  # an edit that changes nothing Meta shows: only its review tells
        await self._accepted(found, None)
        await self._by.templates.merge(self._chore.workspace_id, self._asked.waba_id, page.templates, at=page.at)
        return True

    async def _read(self) -> Page | None:
        asked = self._asked
        if asked.meta_id is not None:
            return await self._reader.one(asked.meta_id)
        return await self._reader.find(asked.waba_id, asked.name, asked.language)

    async def _accepted(self, body: object, components: list[object] | None) -> None:
        answer: Json = dict(body) if isinstance(body, dict) else {}
        await self._by.templates.finish_submit(
            self._chore.workspace_id,
            self._template_id,
            self._asked,
            at=self._at,
            answer={name: answer[name] for name in ("id", "status", "category") if name in answer}
            | given(components=components or answer.get("components")),
            error=None,
        )

    async def _refused(self, verdict: Verdict, body: object) -> Again | Failed:
        error = ChoreError(verdict.rule.reason, verdict.rule.sentence, verdict.meta_code)
        if verdict.kind is Kind.CHANNEL:
            outcome: Again | Failed = Failed(error)  # people see why, and submit again once it is mended
        elif verdict.kind is Kind.IN_DOUBT and self._chore.attempt <= len(verdict.retry.after_s):
            outcome = Again(_READ_BACK_S * self._chore.attempt, error)
        else:
            told = outcome_of(verdict, attempt=self._chore.attempt)
            outcome = Failed(error) if isinstance(told, Done) else told
        return await self._settle_failure(outcome, error_of(verdict, body))

    async def _settle_failure(self, outcome: Again | Failed, details: Json) -> Again | Failed:
        """Write a failure down, so that people can edit again; a retry keeps the draft on its way."""
        if isinstance(outcome, Failed):
            await self._by.templates.finish_submit(
                self._chore.workspace_id, self._template_id, self._asked, at=self._at, answer=None, error=details
            )
        return outcome
