"""Begin a bulk send: fill in the template for each recipient, refuse all that does not fit at once, write it down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID

from services.api.shapes import BulkRecipientAsked, BulkSendAsked
from shared.domain.errors import Rejected
from shared.domain.ids import new_id
from shared.domain.person import Person
from shared.store.bulk import BulkSends
from shared.web.idempotency import digest_of
from shared.whatsapp.outbound import Phone, Problem
from shared.whatsapp.templates import TemplateDefinition, fill
from shared.whatsapp.templates.stored import says, stored_definition
from shared.whatsapp.wire import Json

_MOST_PROBLEMS = 100  # who made one mistake ten thousand times has seen enough


async def begin_bulk_send(
    asked: BulkSendAsked, *, workspace_id: UUID, request_id: str, bulk_sends: BulkSends, as_user: Person
) -> str:
    """Write a bulk send down and return it, as JSON. Raises: Rejected with what is to mend; as `BulkSends`."""
    row = json.loads(await bulk_sends.template(workspace_id, asked.template_id, as_user=as_user))
    definition = stored_definition(row)
    if definition is None:
        raise Rejected(
            "the template's text is not known",
            code="template_not_known",
            hint="Synchronise the templates first: this one is known by its name only.",
        )
    # 10,000 recipients are a second of work, during which others want answers.
    recipients, digest = await asyncio.to_thread(_prepared, definition, asked)
    bulk: Json = {
        "id": str(new_id()),
        "channel_id": str(asked.channel_id),
        "template_id": str(asked.template_id),
        "name": asked.name,
        "recipients": recipients,
    }
    return await bulk_sends.begin(workspace_id, bulk, request_id=request_id, digest=digest, as_user=as_user)


def _prepared(definition: TemplateDefinition, asked: BulkSendAsked) -> tuple[list[Json], str]:
    recipients: list[Json] = []
    problems: list[Problem] = []
    for index, recipient in enumerate(asked.recipients):
        found = _whom(recipient)
        template, misfits = fill(definition, recipient.values)
        found += [Problem(f"values.{misfit.field}", misfit.code, misfit.message) for misfit in misfits]
        problems += [_of(index, problem) for problem in found]
        if len(problems) >= _MOST_PROBLEMS:
            break
        recipients.append(_named(recipient) | {"content": says(definition, template), "payload": template.graph()})
    if problems:
        raise _not_valid(problems)
    return recipients, digest_of("bulk", asked.model_dump(mode="json"))


def _whom(recipient: BulkRecipientAsked) -> list[Problem]:
    if (recipient.contact_id is None) == (recipient.wa_id is None):
        return [Problem("", "recipient", "Name either a contact_id or a phone number (wa_id).")]
    if recipient.wa_id is not None and Phone(number=recipient.wa_id).digits() is None:
        return [Problem("wa_id", "bad_format", "A phone number is its country code and 5 to 20 digits in all.")]
    return []


def _named(recipient: BulkRecipientAsked) -> Json:
    if recipient.wa_id is None:
        return {"contact_id": str(recipient.contact_id)}
    return {"wa_id": Phone(number=recipient.wa_id).digits()}


def _of(index: int, problem: Problem) -> Problem:
    place = f"recipients[{index}]"
    return Problem(f"{place}.{problem.field}" if problem.field else place, problem.code, problem.message)


def _not_valid(problems: Sequence[Problem]) -> Rejected:
    shown = problems[:_MOST_PROBLEMS]
    hint = f"{shown[0].field}: {shown[0].message}"
    more = {"problems": [asdict(problem) for problem in shown]}
    return Rejected("the bulk send cannot go so", code="not_valid", hint=hint, more=more)
