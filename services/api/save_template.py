"""Take a template somebody wrote: check all of it as Meta would, then keep it as a draft."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any
from uuid import UUID

from services.api.template_shapes import NewTemplate, PreviewRequest
from shared.domain.errors import Rejected
from shared.domain.ids import new_id
from shared.domain.person import Person
from shared.store.templates import Templates
from shared.web.idempotency import digest_of
from shared.whatsapp.problems import Problem
from shared.whatsapp.templates import (
    Preview,
    TemplateDefinition,
    check,
    fill,
    preview,
    to_graph,
)
from shared.whatsapp.templates.stored import stored_definition
from shared.whatsapp.wire import Json


async def create_template(
    asked: NewTemplate, *, workspace_id: UUID, request_id: str, templates: Templates, as_user: Person
) -> str:
    """Keep a new draft and return it, as JSON. Raises: Rejected with all that is to mend; as `Templates`."""
    _refuse(check(asked.definition))
    written = _written(asked.definition)
    return await templates.create(
        workspace_id,
        {"id": str(new_id()), "waba_id": asked.waba_id, "name": asked.definition.name} | written,
        request_id=request_id,
        digest=digest_of("create_template", [asked.waba_id, asked.definition.name, written]),
        as_user=as_user,
    )


async def edit_template(
    definition: TemplateDefinition,
    *,
    workspace_id: UUID,
    template_id: UUID,
    version: int,
    templates: Templates,
    as_user: Person,
) -> str:
    """Keep another draft. Raises: Rejected with all that is to mend; as `Templates`."""
    kept = json.loads(await templates.read(workspace_id, template_id, as_user=as_user))
    _refuse([*_renamed(definition, kept), *check(definition)])
    return await templates.edit(workspace_id, template_id, _written(definition), version=version, as_user=as_user)


async def preview_template(
    asked: PreviewRequest, *, workspace_id: UUID, templates: Templates, as_user: Person
) -> tuple[Preview, list[Problem]]:
    """Return how a template will look with these values, or with its samples, and why they cannot be sent."""
    definition = await _definition(asked, workspace_id, templates, as_user)
    if asked.values is None:
        return preview(definition), check(definition) if asked.definition else []
    filled, problems = fill(definition, asked.values)
    return preview(definition, filled), problems


async def _definition(
    asked: PreviewRequest, workspace_id: UUID, templates: Templates, as_user: Person
) -> TemplateDefinition:
    if (asked.definition is None) == (asked.template_id is None):
        raise Rejected(
            "neither or both", code="not_valid", hint="Send either a definition or the template_id of a saved one."
        )
    if asked.template_id is None:
        assert asked.definition is not None  # noqa: S101  as just checked
        return asked.definition
    kept = json.loads(await templates.read(workspace_id, asked.template_id, as_user=as_user))
    definition = stored_definition(kept | (kept["draft"] or {}))
    if definition is None:
        raise Rejected(
            "the template is known by name only", code="template_unknown", hint="Synchronise the templates first."
        )
    return definition


def _written(definition: TemplateDefinition) -> Json:
    """Return a definition as `create_template` and `edit_template` of the database take it."""
    graph = to_graph(definition)
    return {
        "language": definition.language,
        "category": definition.category,
        "components": graph["components"],
        "parameter_format": definition.parameter_format,
        "ttl_s": definition.ttl_s,
    }


def _renamed(definition: TemplateDefinition, kept: dict[str, Any]) -> Iterable[Problem]:
    if definition.name != kept["template_name"]:
        yield Problem("name", "fixed", "A template keeps its name; create another one.")
    if definition.language != kept["language"]:
        yield Problem("language", "fixed", "A template keeps its language; create one of the same name in the other.")


def _refuse(problems: list[Problem]) -> None:
    if problems:
        each = [asdict(one) | {"field": f"definition.{one.field}".rstrip(".")} for one in problems]
        raise Rejected(
            "WhatsApp would not take the template", code="not_valid", hint=problems[0].message, more={"problems": each}
        )
