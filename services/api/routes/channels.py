"""Business phone numbers: their state, and how far behind Meta their intake is."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from services.api.person import InboxDependency, SignedIn
from services.api.shapes import ChannelList

router = APIRouter(prefix="/api/whatsapp/channels", tags=["channels"])


@router.get("", response_model=ChannelList, summary="A workspace's numbers, and how far behind each is")
async def list_channels(
    workspace_id: Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")],
    person: SignedIn,
    inbox: InboxDependency,
) -> Response:
    """Return all numbers of the workspace."""
    return Response(await inbox.list_channels(workspace_id, as_user=person), media_type="application/json")
