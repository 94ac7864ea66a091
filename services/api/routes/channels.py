"""Business phone numbers: connect, pause, resume, let go; their state, and how far behind Meta their intake is."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from services.api.person import ChannelsDependency, InboxDependency, SignedIn
from services.api.shapes import Channel, ChannelList, NewChannel, NewToken, Problem
from shared.auth.seal import Sealed, seal
from shared.domain.errors import Conflict
from shared.domain.ids import new_id

router = APIRouter(prefix="/api/whatsapp/channels", tags=["channels"])

WorkspaceId = Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")]

_MANAGED: dict[int | str, dict[str, Any]] = {
    403: {"model": Problem, "description": "Only owners and admins manage numbers"},
    409: {"model": Problem, "description": "Its state, or another workspace that has the number, forbids it"},
}


@router.get(
    "", response_model=ChannelList, summary="A workspace's numbers, what waits at them, and how far behind each is"
)
async def list_channels(workspace_id: WorkspaceId, person: SignedIn, inbox: InboxDependency) -> Response:
    """Return all numbers of the workspace."""
    return _json(await inbox.list_channels(workspace_id, as_user=person))


@router.get("/{channel_id}", response_model=Channel, summary="How is a number?")
async def read_channel(
    channel_id: UUID, workspace_id: WorkspaceId, person: SignedIn, channels: ChannelsDependency
) -> Response:
    """Return one number."""
    return _json(await channels.health(workspace_id, channel_id, as_user=person))


@router.post(
    "",
    response_model=Channel,
    status_code=202,
    summary="Connect a number, or give one of yours another token",
    responses=_MANAGED,
)
async def connect_channel(
    number: NewChannel, workspace_id: WorkspaceId, person: SignedIn, channels: ChannelsDependency, request: Request
) -> Response:
    """Seal the token and begin: `connecting` until Meta has shown the number with it, `connected` from then on.

    What Meta refuses is said in `last_check`; the number is `disconnected` again. Asking again with the same number is
    how a token is renewed.
    """
    sealed = _sealed(number, request)
    channel = await channels.connect(
        workspace_id,
        new_id=new_id(),
        waba_id=number.waba_id,
        phone_number_id=number.phone_number_id,
        token_sealed=sealed.token_sealed,
        key_id=sealed.key_id,
        as_user=person,
    )
    return _json(channel, status_code=202)


def _sealed(given: NewToken, request: Request) -> Sealed:
    public_key: str | None = request.app.state.token_public_key
    if public_key is None:
        raise Conflict(
            "no key to seal tokens to",
            code="token_key_missing",
            hint="Whoever runs Parley sets WHATSAPP_TOKEN_PUBLIC_KEY of the api: docs/runbooks/token-keys.md.",
        )
    return seal(given.access_token.get_secret_value(), public_key)


@router.post("/{channel_id}/pause", response_model=Channel, summary="Hold what a number sends", responses=_MANAGED)
async def pause_channel(
    channel_id: UUID, workspace_id: WorkspaceId, person: SignedIn, channels: ChannelsDependency
) -> Response:
    """Pause: it goes on receiving; what is queued waits."""
    return _json(await channels.pause(workspace_id, channel_id, as_user=person))


@router.post("/{channel_id}/resume", response_model=Channel, summary="Let a number send again", responses=_MANAGED)
async def resume_channel(
    channel_id: UUID, workspace_id: WorkspaceId, person: SignedIn, channels: ChannelsDependency
) -> Response:
    """End a pause, a pause of marketing, and what Meta's warnings hold: a changed PIN, a ban. Look into it first."""
    return _json(await channels.resume(workspace_id, channel_id, as_user=person))


@router.post(
    "/{channel_id}/disconnect",
    response_model=Channel,
    summary="Let a number go; its token is deleted",
    responses=_MANAGED,
)
async def disconnect_channel(
    channel_id: UUID, workspace_id: WorkspaceId, person: SignedIn, channels: ChannelsDependency
) -> Response:
    """Disconnect: it neither receives nor sends; its conversations stay."""
    return _json(await channels.disconnect(workspace_id, channel_id, as_user=person))


def _json(text: str, *, status_code: int = 200) -> Response:
    return Response(text, status_code=status_code, media_type="application/json")
