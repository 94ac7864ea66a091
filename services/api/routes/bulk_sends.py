"""One template to many people: begun, watched, paused, resumed, cancelled by owners and admins."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from services.api.begin_bulk_send import begin_bulk_send
from services.api.person import SignedIn
from services.api.shapes import BulkRecipientPage, BulkResult, BulkSend, BulkSendAsked, BulkSendPage, Problem
from shared.store.bulk import BulkSends
from shared.web.idempotency import IdempotencyKey

router = APIRouter(prefix="/api/whatsapp/bulk-sends", tags=["bulk sends"])

WorkspaceId = Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")]

MOST_BODY_BYTES = 8 * 1024 * 1024  # 10,000 recipients with 800 bytes of values each; nginx allows it here too
_OTHERS: dict[int | str, dict[str, Any]] = {
    403: {"model": Problem, "description": "Only owners and admins send in bulk"}
}
_STATE: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "Its state forbids it; the hint says what to do first"}
}


def bulk_sends_of(request: Request) -> BulkSends:
    """Return the store of this process."""
    bulk_sends: BulkSends = request.app.state.bulk_sends
    return bulk_sends


Store = Annotated[BulkSends, Depends(bulk_sends_of)]


@router.post(
    "",
    response_model=BulkSend,
    status_code=202,
    summary="Send one template to many people",
    responses=_OTHERS | _STATE,
    max_body_size=MOST_BODY_BYTES,
)
async def begin(
    asked: BulkSendAsked, workspace_id: WorkspaceId, person: SignedIn, key: IdempotencyKey, store: Store
) -> Response:
    """Begin: every recipient's values are checked first, and one that does not fit refuses the whole.

    Replies go before it, whatever its size. Whoever wants no marketing, is blocked or cannot be reached gets nothing;
    the recipients' list says so.
    """
    begun = await begin_bulk_send(asked, workspace_id=workspace_id, request_id=key, bulk_sends=store, as_user=person)
    return Response(begun, status_code=202, media_type="application/json")


@router.get("", response_model=BulkSendPage, summary="A workspace's bulk sends, newest first", responses=_OTHERS)
async def list_bulk_sends(
    workspace_id: WorkspaceId,
    person: SignedIn,
    store: Store,
    limit: Annotated[int, Query(ge=1, le=100, description="Most items of the answer")] = 20,
    cursor: Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before")] = None,
) -> Response:
    """Return a page of bulk sends."""
    page = await store.list(workspace_id, limit=limit, cursor=cursor, as_user=person)
    return Response(page, media_type="application/json")


@router.get("/{bulk_id}", response_model=BulkSend, summary="How far is a bulk send?", responses=_OTHERS)
async def read_bulk_send(bulk_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: Store) -> Response:
    """Return a bulk send with its counts."""
    return Response(await store.read(workspace_id, bulk_id, as_user=person), media_type="application/json")


@router.get(
    "/{bulk_id}/recipients",
    response_model=BulkRecipientPage,
    summary="What came of each recipient, in the order they were given",
    responses=_OTHERS,
)
async def list_recipients(
    bulk_id: UUID,
    workspace_id: WorkspaceId,
    person: SignedIn,
    store: Store,
    state: Annotated[BulkResult | None, Query(description="Only these")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most items of the answer")] = 100,
    after: Annotated[int, Query(ge=0, le=10_000, description="`next_cursor` of the page before")] = 0,
) -> Response:
    """Return a page of recipients."""
    page = await store.list_recipients(workspace_id, bulk_id, state=state, limit=limit, after=after, as_user=person)
    return Response(page, media_type="application/json")


@router.post(
    "/{bulk_id}/pause", response_model=BulkSend, summary="Keep back what is not on its way", responses=_OTHERS | _STATE
)
async def pause(bulk_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: Store) -> Response:
    """Pause; what is on its way goes."""
    return Response(await store.pause(workspace_id, bulk_id, as_user=person), media_type="application/json")


@router.post("/{bulk_id}/resume", response_model=BulkSend, summary="Go on with it", responses=_OTHERS | _STATE)
async def resume(bulk_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: Store) -> Response:
    """Go on; if what stopped it still does, it stops again by itself."""
    return Response(await store.resume(workspace_id, bulk_id, as_user=person), media_type="application/json")


@router.post("/{bulk_id}/cancel", response_model=BulkSend, summary="End it for good", responses=_OTHERS | _STATE)
async def cancel(bulk_id: UUID, workspace_id: WorkspaceId, person: SignedIn, store: Store) -> Response:
    """Cancel: what is not on its way never goes."""
    return Response(await store.cancel(workspace_id, bulk_id, as_user=person), media_type="application/json")
