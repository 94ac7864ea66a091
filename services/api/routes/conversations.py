"""Conversations and their messages; what is done to a contact and so to all of theirs."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from services.api.person import ChannelsDependency, ConversationsDependency, InboxDependency, SignedIn
from services.api.shapes import ContactState, ConversationPage, ConversationState, MessagePage, Problem, Seen

router = APIRouter(prefix="/api/whatsapp/conversations", tags=["conversations"])
contacts = APIRouter(prefix="/api/whatsapp/contacts", tags=["conversations"])

WorkspaceId = Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")]
Limit = Annotated[int, Query(ge=1, le=100, description="Most items of the answer")]
Seq = Annotated[int | None, Query(ge=-(2**63), le=2**63 - 1)]  # history is numbered downwards from 0

_VIEWERS: dict[int | str, dict[str, Any]] = {403: {"model": Problem, "description": "Viewers only read"}}
_STATE: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "Its state forbids it; the hint says what to do first"}
}


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


@router.post(
    "/{conversation_id}/archive",
    response_model=ConversationState,
    summary="Archive an open conversation",
    responses=_VIEWERS | _STATE,
)
async def archive_conversation(
    conversation_id: UUID, seen: Seen, workspace_id: WorkspaceId, person: SignedIn, store: ConversationsDependency
) -> Response:
    """Archive, unless a message arrived that they have not seen (409 `new_message`)."""
    changed = await store.archive(workspace_id, conversation_id, seen_seq=seen.seen_seq, as_user=person)
    return Response(changed, media_type="application/json")


@router.post(
    "/{conversation_id}/reopen",
    response_model=ConversationState,
    summary="Reopen an archived conversation",
    responses=_VIEWERS | _STATE,
)
async def reopen_conversation(
    conversation_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: ConversationsDependency
) -> Response:
    """Reopen; blocked ones open by unblocking their contact."""
    changed = await store.reopen(workspace_id, conversation_id, as_user=person)
    return Response(changed, media_type="application/json")


@router.post(
    "/{conversation_id}/read",
    response_model=ConversationState,
    summary="Mark a conversation read as far as it was seen",
    responses=_VIEWERS,
)
async def mark_conversation_read(
    conversation_id: UUID, seen: Seen, workspace_id: WorkspaceId, person: SignedIn, store: ConversationsDependency
) -> Response:
    """Mark messages up to `seen_seq` read; never takes back."""
    changed = await store.mark_read(workspace_id, conversation_id, seen_seq=seen.seen_seq, as_user=person)
    return Response(changed, media_type="application/json")


@router.delete(
    "/{conversation_id}",
    response_model=ConversationState,
    summary="Delete an archived or blocked conversation, for good",
    responses=_VIEWERS | _STATE,
)
async def delete_conversation(
    conversation_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: ConversationsDependency
) -> Response:
    """Delete with all that was said in it; what the contact writes later opens a new one."""
    changed = await store.delete(workspace_id, conversation_id, as_user=person)
    return Response(changed, media_type="application/json")


@contacts.get("/{contact_id}/block", response_model=ContactState, summary="Is a contact blocked, here and at WhatsApp?")
async def read_block(
    contact_id: UUID, workspace_id: WorkspaceId, person: SignedIn, channels: ChannelsDependency
) -> Response:
    """Return the contact as blocking does."""
    found = await channels.contact_blocks(workspace_id, contact_id, as_user=person)
    return Response(found, media_type="application/json")


@contacts.post(
    "/{contact_id}/block",
    response_model=ContactState,
    summary="Block a contact and all their conversations",
    responses=_VIEWERS,
)
async def block_contact(
    contact_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: ConversationsDependency
) -> Response:
    """Block: what they send from now on is not shown, counted or analysed; WhatsApp is asked to block them, too.

    `meta_blocks` says how far that is; WhatsApp blocks only people who wrote within 24 hours.
    """
    changed = await store.block_contact(workspace_id, contact_id, as_user=person)
    return Response(changed, media_type="application/json")


@contacts.post(
    "/{contact_id}/unblock",
    response_model=ContactState,
    summary="Unblock a contact; their conversations are open again",
    responses=_VIEWERS,
)
async def unblock_contact(
    contact_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: ConversationsDependency
) -> Response:
    """Unblock; what they sent meanwhile stays out of sight."""
    changed = await store.unblock_contact(workspace_id, contact_id, as_user=person)
    return Response(changed, media_type="application/json")
