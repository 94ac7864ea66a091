"""Message templates: written, submitted for Meta's review, read, previewed, counted."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from services.api.person import SignedIn
from services.api.save_template import create_template, edit_template, preview_template
from services.api.template_shapes import (
    AccountOfTemplates,
    AnalyticsRequested,
    EditedTemplate,
    MessageTemplate,
    MessageTemplatePage,
    NewTemplate,
    PreviewRequest,
    SeenVersion,
    SyncRequested,
    TemplateAnalytics,
    TemplatePreview,
    TemplateStatus,
)
from shared.store.templates import Templates
from shared.web.idempotency import IdempotencyKey
from shared.web.shapes import Problem, ToMend

router = APIRouter(prefix="/api/whatsapp/templates", tags=["templates"])

WorkspaceId = Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")]
_JSON = "application/json"
_WRITES: dict[int | str, dict[str, Any]] = {
    403: {"model": Problem, "description": "Only owners and admins change templates"},
    409: {"model": Problem, "description": "Somebody changed it meanwhile, or its state forbids it; see the hint"},
}
_VIEWERS: dict[int | str, dict[str, Any]] = {403: {"model": Problem, "description": "Viewers only read"}}


def templates_of(request: Request) -> Templates:
    """Return the store of this process."""
    templates: Templates = request.app.state.templates
    return templates


TemplatesDependency = Annotated[Templates, Depends(templates_of)]


@router.get("", response_model=MessageTemplatePage, summary="A workspace's templates, newest first")
async def list_templates(
    workspace_id: WorkspaceId,
    person: SignedIn,
    templates: TemplatesDependency,
    limit: Annotated[int, Query(ge=1, le=100, description="Most items of the answer")] = 50,
    cursor: Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before")] = None,
    status: Annotated[TemplateStatus | None, Query(description="Only these; deleted ones only if asked for")] = None,
    category: Annotated[str | None, Query(max_length=64)] = None,
    language: Annotated[str | None, Query(max_length=35)] = None,
    waba_id: Annotated[str | None, Query(max_length=64)] = None,
    q: Annotated[str | None, Query(max_length=100, description="Part of the name or the body")] = None,
) -> Response:
    """Return a page of templates, and how far each account's are read."""
    filters = {"status": status, "category": category, "language": language, "waba_id": waba_id, "q": q}
    page = await templates.list_templates(workspace_id, limit=limit, cursor=cursor, filters=filters, as_user=person)
    return Response(page, media_type=_JSON)


@router.post("", response_model=MessageTemplate, status_code=201, summary="Write a template", responses=_WRITES)
async def create(
    asked: NewTemplate, workspace_id: WorkspaceId, person: SignedIn, key: IdempotencyKey, templates: TemplatesDependency
) -> Response:
    """Keep a draft, checked as Meta does; `submit` hands it to Meta. A header's file is named `parley:<media id>`."""
    made = await create_template(asked, workspace_id=workspace_id, request_id=key, templates=templates, as_user=person)
    return Response(made, status_code=201, media_type=_JSON)


@router.post(
    "/sync",
    response_model=SyncRequested,
    status_code=202,
    summary="Read all templates from Meta now",
    responses=_VIEWERS,
)
async def sync(workspace_id: WorkspaceId, person: SignedIn, templates: TemplatesDependency) -> Response:
    """Ask for it; `accounts[].synced_at` of the list says when it is done."""
    return Response(await templates.request_sync(workspace_id, as_user=person), status_code=202, media_type=_JSON)


@router.post("/preview", response_model=TemplatePreview, summary="How a template will look")
async def preview(
    asked: PreviewRequest, workspace_id: WorkspaceId, person: SignedIn, templates: TemplatesDependency
) -> TemplatePreview:
    """Show it with values, or with its samples; an unsaved definition is checked as Meta does."""
    shown, problems = await preview_template(asked, workspace_id=workspace_id, templates=templates, as_user=person)
    return TemplatePreview(preview=shown, problems=[ToMend(**asdict(one)) for one in problems])


@router.post(
    "/analytics/enable",
    response_model=AnalyticsRequested,
    status_code=202,
    summary="Have Meta count for an account's templates, for good",
    responses=_WRITES,
)
async def enable_analytics(
    asked: AccountOfTemplates, workspace_id: WorkspaceId, person: SignedIn, templates: TemplatesDependency
) -> Response:
    """Ask for it; Meta does not take it back."""
    answer = await templates.enable_analytics(workspace_id, asked.waba_id, as_user=person)
    return Response(answer, status_code=202, media_type=_JSON)


@router.get("/{template_id}", response_model=MessageTemplate, summary="A template")
async def read(
    template_id: UUID, workspace_id: WorkspaceId, person: SignedIn, templates: TemplatesDependency
) -> Response:
    """Return one."""
    return Response(await templates.read(workspace_id, template_id, as_user=person), media_type=_JSON)


@router.put("/{template_id}", response_model=MessageTemplate, summary="Edit a template", responses=_WRITES)
async def edit(
    template_id: UUID,
    asked: EditedTemplate,
    workspace_id: WorkspaceId,
    person: SignedIn,
    templates: TemplatesDependency,
) -> Response:
    """Keep another draft; what is approved is sent as it is until Meta accepts the edit. Null gives the draft up."""
    if asked.definition is None:
        kept = await templates.edit(workspace_id, template_id, None, version=asked.version, as_user=person)
    else:
        kept = await edit_template(
            asked.definition,
            workspace_id=workspace_id,
            template_id=template_id,
            version=asked.version,
            templates=templates,
            as_user=person,
        )
    return Response(kept, media_type=_JSON)


@router.post(
    "/{template_id}/submit",
    response_model=MessageTemplate,
    status_code=202,
    summary="Hand a draft to Meta for review",
    responses=_WRITES,
)
async def submit(
    template_id: UUID,
    seen: SeenVersion,
    workspace_id: WorkspaceId,
    person: SignedIn,
    templates: TemplatesDependency,
) -> Response:
    """Queue it; `busy`, then `submitted_at` or `draft_error`, say how it goes."""
    kept = await templates.submit(workspace_id, template_id, version=seen.version, as_user=person)
    return Response(kept, status_code=202, media_type=_JSON)


@router.post(
    "/{template_id}/unpause",
    response_model=MessageTemplate,
    status_code=202,
    summary="Have Meta let a paused template be sent again",
    responses=_WRITES,
)
async def unpause(
    template_id: UUID,
    seen: SeenVersion,
    workspace_id: WorkspaceId,
    person: SignedIn,
    templates: TemplatesDependency,
) -> Response:
    """Queue it; a pause for sending too fast ends only so, one for low quality also by itself."""
    kept = await templates.unpause(workspace_id, template_id, version=seen.version, as_user=person)
    return Response(kept, status_code=202, media_type=_JSON)


@router.delete(
    "/{template_id}",
    response_model=MessageTemplate,
    status_code=202,
    summary="Delete a template in its language",
    responses=_WRITES,
)
async def delete(
    template_id: UUID,
    workspace_id: WorkspaceId,
    version: Annotated[int, Query(ge=1, description="`version` of what they saw")],
    person: SignedIn,
    templates: TemplatesDependency,
) -> Response:
    """Delete at once what Meta does not know; else there, which also blocks an approved one's name for 30 days."""
    kept = await templates.delete(workspace_id, template_id, version=version, as_user=person)
    return Response(kept, status_code=202, media_type=_JSON)


@router.get("/{template_id}/analytics", response_model=TemplateAnalytics, summary="What was sent of a template, by day")
async def analytics(
    template_id: UUID,
    workspace_id: WorkspaceId,
    person: SignedIn,
    templates: TemplatesDependency,
    first: Annotated[date | None, Query(description="UTC; by default 30 days before `last`")] = None,
    last: Annotated[date | None, Query(description="UTC; by default today")] = None,
) -> Response:
    """Return our count and Meta's, day by day."""
    until = last or datetime.now(UTC).date()
    since = first or until - timedelta(days=30)
    found = await templates.analytics(workspace_id, template_id, first=since, last=until, as_user=person)
    return Response(found, media_type=_JSON)
