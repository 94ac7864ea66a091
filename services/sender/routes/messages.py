"""What is said: sent, taken back, sent again; and that somebody types."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from services.sender.send_message import retry_message, send_message
from services.sender.shapes import Empty, Message, Resolve, Send, SendProblem, Typing
from shared.auth.person import SignedIn
from shared.queue.bell import OutboxBell
from shared.store.sending import Sending
from shared.web.idempotency import IdempotencyKey
from shared.web.shapes import Problem

router = APIRouter(prefix="/api/whatsapp", tags=["sending"])

WorkspaceId = Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    403: {"model": Problem, "description": "Viewers only read"},
    409: {"model": Problem, "description": "Its state forbids it; the hint says what to do first"},
}
_NOT_SENT: dict[int | str, dict[str, Any]] = {
    422: {"model": SendProblem, "description": "WhatsApp would not take it; `problems` says each thing to mend"}
}


def sending_of(request: Request) -> Sending:
    """Return the store of this process."""
    sending: Sending = request.app.state.sending
    return sending


def bell_of(request: Request) -> OutboxBell:
    """Return the bell of this process."""
    bell: OutboxBell = request.app.state.bell
    return bell


SendingDependency = Annotated[Sending, Depends(sending_of)]
BellDependency = Annotated[OutboxBell, Depends(bell_of)]


@router.post(
    "/send",
    response_model=Message,
    status_code=202,
    summary="Send a message, now or later",
    responses=_REFUSALS | _NOT_SENT,
)
async def send(
    asked: Send,
    workspace_id: WorkspaceId,
    person: SignedIn,
    key: IdempotencyKey,
    sending: SendingDependency,
    bell: BellDependency,
) -> Response:
    """Take a message: it is queued when this answers, and goes out within a second. Watch its `status`."""
    queued = await send_message(
        asked, workspace_id=workspace_id, request_id=key, sending=sending, bell=bell, as_user=person
    )
    return Response(queued, status_code=202, media_type="application/json")


@router.post(
    "/messages/{message_id}/cancel",
    response_model=Message,
    summary="Take back a message that is not on its way yet",
    responses=_REFUSALS,
)
async def cancel(message_id: UUID, workspace_id: WorkspaceId, person: SignedIn, sending: SendingDependency) -> Response:
    """Cancel; asking again is fine."""
    cancelled = await sending.cancel(workspace_id, message_id, as_user=person)
    return Response(cancelled, media_type="application/json")


@router.post(
    "/messages/{message_id}/retry",
    response_model=Message,
    status_code=202,
    summary="Send a failed message again",
    responses=_REFUSALS | _NOT_SENT,
)
async def retry(
    message_id: UUID,
    workspace_id: WorkspaceId,
    person: SignedIn,
    key: IdempotencyKey,
    sending: SendingDependency,
    bell: BellDependency,
) -> Response:
    """Queue a new message that says the same and names the failed one in `retry_of`."""
    queued = await retry_message(
        message_id, workspace_id=workspace_id, request_id=key, sending=sending, bell=bell, as_user=person
    )
    return Response(queued, status_code=202, media_type="application/json")


@router.post(
    "/messages/{message_id}/resolve",
    response_model=Message,
    summary="Decide about a message of which nobody knows whether it was sent",
    responses=_REFUSALS,
)
async def resolve(
    message_id: UUID,
    decided: Resolve,
    workspace_id: WorkspaceId,
    person: SignedIn,
    sending: SendingDependency,
    bell: BellDependency,
) -> Response:
    """Send it again, at the risk that the customer gets it twice, or leave it failed."""
    resolved = await sending.resolve_doubt(workspace_id, message_id, send_again=decided.send_again, as_user=person)
    await bell.ring()
    return Response(resolved, media_type="application/json")


@router.post(
    "/typing", response_model=Empty, status_code=202, summary="Show the customer that you type", responses=_REFUSALS
)
async def type_(
    typing: Typing, workspace_id: WorkspaceId, person: SignedIn, sending: SendingDependency, bell: BellDependency
) -> Response:
    """Show it for 25 s or until something is sent; their messages are marked as read with it (WhatsApp's rule)."""
    queued = await sending.start_typing(workspace_id, typing.conversation_id, as_user=person)
    await bell.ring()
    return Response(queued, status_code=202, media_type="application/json")
