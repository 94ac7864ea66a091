"""What Meta told about a workspace's accounts, numbers, templates and groups."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from services.api.person import SignedIn
from services.api.shapes import AccountEventPage, Severity
from shared.store.account_events import AccountEvents

router = APIRouter(prefix="/api/whatsapp/account-events", tags=["account events"])


def account_events_of(request: Request) -> AccountEvents:
    """Return the store of this process."""
    account_events: AccountEvents = request.app.state.account_events
    return account_events


@router.get("", response_model=AccountEventPage, summary="What Meta told about a workspace's accounts, newest first")
async def list_account_events(
    workspace_id: Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")],
    person: SignedIn,
    account_events: Annotated[AccountEvents, Depends(account_events_of)],
    limit: Annotated[int, Query(ge=1, le=100, description="Most items of the answer")] = 50,
    cursor: Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before")] = None,
    severity: Annotated[Severity | None, Query(description="Only these")] = None,
) -> Response:
    """Return a page of account events."""
    page = await account_events.list_account_events(
        workspace_id, limit=limit, cursor=cursor, severity=severity, as_user=person
    )
    return Response(page, media_type="application/json")
