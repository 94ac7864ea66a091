"""Conversations and their messages."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from services.api.person import InboxDependency, SignedIn
from services.api.shapes import ConversationPage, MessagePage

router = APIRouter(prefix="/api/whatsapp/conversations", tags=["conversations"])

WorkspaceId = Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")]
Limit = Annotated[int, Query(ge=1, le=100, description="Most items of the answer")]
Seq = Annotated[int | None, Query(ge=0, le=2**63 - 1)]


@router.get("", response_model=ConversationPage, summary="A workspace's conversations, newest first")
async def list_conversations(
    workspace_id: WorkspaceId,
    person: SignedIn,
    inbox: InboxDependency,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before")] = None,
) -> Response:
    """Return a page of conversations."""
    page = await inbox.list_conversations(workspace_id, limit=limit, cursor=cursor, as_user=person)
    return Response(page, media_type="application/json")


@router.get(
    "/{conversation_id}/messages", response_model=MessagePage, summary="A conversation's messages with analyses"
)
async def list_messages(
    conversation_id: UUID,
    workspace_id: WorkspaceId,
    person: SignedIn,
    inbox: InboxDependency,
    limit: Limit = 50,
    before: Seq = None,
    after: Seq = None,
) -> Response:
    """Return messages newest first, those `before` a seq, or, for polling, those `after` one, oldest first."""
    page = await inbox.list_messages(
        workspace_id, conversation_id, limit=limit, before=before, after=after, as_user=person
    )
    return Response(page, media_type="application/json")
