"""What a workspace wants of sending and receiving."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from services.api.person import ChannelsDependency, SignedIn
from services.api.shapes import AiBudget, AiBudgetChange, Problem, WorkspaceSettings, WorkspaceSettingsChange

router = APIRouter(prefix="/api/workspace/settings", tags=["workspace"])

WorkspaceId = Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")]

_MANAGED: dict[int | str, dict[str, Any]] = {
    403: {"model": Problem, "description": "Only owners and admins change settings"}
}


@router.get("", response_model=WorkspaceSettings, summary="A workspace's settings")
async def read_settings(workspace_id: WorkspaceId, person: SignedIn, channels: ChannelsDependency) -> Response:
    """Return them all."""
    return Response(await channels.settings(workspace_id, as_user=person), media_type="application/json")


@router.patch("", response_model=WorkspaceSettings, summary="Change some of a workspace's settings", responses=_MANAGED)
async def change_settings(
    changes: WorkspaceSettingsChange, workspace_id: WorkspaceId, person: SignedIn, channels: ChannelsDependency
) -> Response:
    """Change those that are given; return all."""
    given = changes.model_dump(exclude_none=True)
    return Response(await channels.change_settings(workspace_id, given, as_user=person), media_type="application/json")


@router.get(
    "/ai-budget", response_model=AiBudget, summary="What Claude may cost, and has cost today", responses=_MANAGED
)
async def read_ai_budget(workspace_id: WorkspaceId, person: SignedIn, channels: ChannelsDependency) -> Response:
    """Return it, for the day that it is where the workspace is."""
    return Response(await channels.ai_budget(workspace_id, as_user=person), media_type="application/json")


@router.patch("/ai-budget", response_model=AiBudget, summary="Change what Claude may cost", responses=_MANAGED)
async def change_ai_budget(
    changes: AiBudgetChange, workspace_id: WorkspaceId, person: SignedIn, channels: ChannelsDependency
) -> Response:
    """Change what is given; what was put off for want of money is looked at again at once."""
    given = changes.model_dump(exclude_unset=True)
    return Response(await channels.change_ai_budget(workspace_id, given, as_user=person), media_type="application/json")
