"""GET /api/me."""

from __future__ import annotations

from fastapi import APIRouter, Response

from services.api.person import InboxDependency, SignedIn
from services.api.shapes import Me

router = APIRouter(tags=["me"])


@router.get("/api/me", response_model=Me, summary="Who am I, and which workspaces are mine?")
async def read_me(person: SignedIn, inbox: InboxDependency) -> Response:
    """Return the signed-in person and their workspaces with roles."""
    return Response(await inbox.me(as_user=person), media_type="application/json")
