"""Contacts as Claude and people have come to see them: why, tags, stage, tasks, proposals, undoing."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from services.api.contact_shapes import (
    AiLists,
    AiListsChange,
    Changes,
    Contact,
    ContactTask,
    ContactTaskPage,
    Proposal,
    ProposalPage,
    ProposalState,
    StageChange,
    TagsChange,
    TaskChange,
    TaskState,
    Undone,
)
from services.api.person import SignedIn
from services.api.shapes import Problem
from shared.domain.ids import new_id
from shared.store.contacts import Contacts

router = APIRouter(prefix="/api/whatsapp/contacts", tags=["contacts"])
tasks = APIRouter(prefix="/api/tasks", tags=["tasks"])
proposals = APIRouter(prefix="/api/proposals", tags=["proposals"])
ai = APIRouter(prefix="/api/workspace", tags=["workspace"])

WorkspaceId = Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")]
Limit = Annotated[int, Query(ge=1, le=100, description="Most items of the answer")]
Cursor = Annotated[UUID | None, Query(description="`next_cursor` of the page before")]

_JSON = "application/json"
_VIEWERS: dict[int | str, dict[str, Any]] = {403: {"model": Problem, "description": "Viewers only read"}}
_MANAGED: dict[int | str, dict[str, Any]] = {403: {"model": Problem, "description": "Only owners and admins"}}
_STATE: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "Its state forbids it"}}


def contacts_of(request: Request) -> Contacts:
    """Return the store of this process."""
    contacts: Contacts = request.app.state.contacts
    return contacts


Store = Annotated[Contacts, Depends(contacts_of)]


@router.get("/{contact_id}", response_model=Contact, summary="A contact, and why it is seen so")
async def read_contact(contact_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: Store) -> Response:
    """Return score with its breakdown and history, tags, stage, tasks, proposals, and what Claude changed."""
    return Response(await store.read(workspace_id, contact_id, as_user=person), media_type=_JSON)


@router.patch("/{contact_id}/tags", response_model=Contact, summary="Set and remove tags", responses=_VIEWERS)
async def change_tags(
    contact_id: UUID, change: TagsChange, workspace_id: WorkspaceId, person: SignedIn, store: Store
) -> Response:
    """Change them; what a person set or removed, Claude leaves so."""
    changed = await store.change_tags(workspace_id, contact_id, added=change.add, removed=change.remove, as_user=person)
    return Response(changed, media_type=_JSON)


@router.put("/{contact_id}/stage", response_model=Contact, summary="Set the lifecycle stage", responses=_VIEWERS)
async def change_stage(
    contact_id: UUID, change: StageChange, workspace_id: WorkspaceId, person: SignedIn, store: Store
) -> Response:
    """Set it; from then on Claude only proposes others."""
    changed = await store.change_stage(workspace_id, contact_id, stage=change.stage, as_user=person)
    return Response(changed, media_type=_JSON)


@tasks.get("", response_model=ContactTaskPage, summary="A workspace's tasks, newest first")
async def list_tasks(
    workspace_id: WorkspaceId,
    person: SignedIn,
    store: Store,
    state: Annotated[TaskState | None, Query(description="Without it: all")] = None,
    assigned_to: Annotated[UUID | None, Query(description="Only those of this member")] = None,
    contact_id: Annotated[UUID | None, Query(description="Only those for this contact")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Return a page of tasks."""
    page = await store.list_tasks(
        workspace_id,
        state=state,
        assigned_to=assigned_to,
        contact_id=contact_id,
        limit=limit,
        cursor=cursor,
        as_user=person,
    )
    return Response(page, media_type=_JSON)


@tasks.patch(
    "/{task_id}",
    response_model=ContactTask,
    summary="Do, dismiss, reopen or assign a task",
    responses=_VIEWERS | _STATE,
)
async def change_task(
    task_id: UUID, change: TaskChange, workspace_id: WorkspaceId, person: SignedIn, store: Store
) -> Response:
    """Change what is given."""
    changes = change.model_dump(mode="json", exclude_unset=True)
    return Response(await store.change_task(workspace_id, task_id, changes=changes, as_user=person), media_type=_JSON)


@proposals.get("", response_model=ProposalPage, summary="What Claude proposes, newest first")
async def list_proposals(
    workspace_id: WorkspaceId,
    person: SignedIn,
    store: Store,
    state: Annotated[ProposalState | None, Query(description="Without it: all")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Return a page of proposals: tags, stages and tasks on no list of the workspace, or against a person's choice."""
    page = await store.list_proposals(workspace_id, state=state, limit=limit, cursor=cursor, as_user=person)
    return Response(page, media_type=_JSON)


@proposals.post(
    "/{proposal_id}/accept", response_model=Proposal, summary="Do what Claude proposes", responses=_VIEWERS | _STATE
)
async def accept(proposal_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: Store) -> Response:
    """Do it, as the person; a tag or stage joins the workspace's list."""
    decided = await store.decide_proposal(workspace_id, proposal_id, accept=True, new_id=new_id(), as_user=person)
    return Response(decided, media_type=_JSON)


@proposals.post(
    "/{proposal_id}/reject", response_model=Proposal, summary="Refuse what Claude proposes", responses=_VIEWERS | _STATE
)
async def reject(proposal_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: Store) -> Response:
    """Refuse it; it is not proposed for this contact again."""
    decided = await store.decide_proposal(workspace_id, proposal_id, accept=False, new_id=new_id(), as_user=person)
    return Response(decided, media_type=_JSON)


@ai.post("/ai-changes/undo", response_model=Undone, summary="Undo what Claude changed", responses=_VIEWERS)
async def undo(asked: Changes, workspace_id: WorkspaceId, person: SignedIn, store: Store) -> Response:
    """Undo all of them, in one transaction; Claude does not do again what a person undid."""
    undone = await store.undo_ai_changes(workspace_id, asked.changes, as_user=person)
    return Response(undone, media_type=_JSON)


@ai.get("/ai-lists", response_model=AiLists, summary="What Claude may set by itself")
async def read_lists(workspace_id: WorkspaceId, person: SignedIn, store: Store) -> Response:
    """Return the lists, those of the settings or the usual ones, and how scores are made."""
    return Response(await store.ai_lists(workspace_id, as_user=person), media_type=_JSON)


@ai.patch("/ai-lists", response_model=AiLists, summary="Change what Claude may set by itself", responses=_MANAGED)
async def change_lists(change: AiListsChange, workspace_id: WorkspaceId, person: SignedIn, store: Store) -> Response:
    """Put whole lists in place; what contacts have already stays."""
    changes = change.model_dump(mode="json", exclude_none=True)
    return Response(await store.change_ai_lists(workspace_id, changes, as_user=person), media_type=_JSON)
