"""Erasing a contact for good, and how far that has come."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from services.api.person import ConversationsDependency, SignedIn
from services.api.shapes import Erasure, Problem

router = APIRouter(prefix="/api/whatsapp", tags=["erasures"])

WorkspaceId = Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")]

_OTHERS: dict[int | str, dict[str, Any]] = {403: {"model": Problem, "description": "Only owners and admins erase"}}


@router.delete(
    "/contacts/{contact_id}",
    response_model=Erasure,
    status_code=202,
    summary="Erase a contact with all that was said, for good",
    responses=_OTHERS,
)
async def erase_contact(
    contact_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: ConversationsDependency
) -> Response:
    """Begin within seconds: rows first, then the raw bodies that name them. Asking again answers with the same."""
    erasure = await store.erase_contact(workspace_id, contact_id, as_user=person)
    return Response(erasure, status_code=202, media_type="application/json")


@router.get("/erasures/{erasure_id}", response_model=Erasure, summary="How far has an erasure come?", responses=_OTHERS)
async def read_erasure(
    erasure_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: ConversationsDependency
) -> Response:
    """Return an erasure's state."""
    erasure = await store.erasure(workspace_id, erasure_id, as_user=person)
    return Response(erasure, media_type="application/json")
