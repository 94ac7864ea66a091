"""Files people send, and addresses of those they may see."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response

from services.sender.media_shapes import MediaFile, MediaUrl
from services.sender.store_upload import Upload, store_upload
from shared.auth.person import SignedIn
from shared.domain.errors import Unavailable
from shared.storage.file_names import safe_filename, served_type
from shared.storage.port import Storage
from shared.store.media import Uploads
from shared.web.shapes import Problem
from shared.whatsapp.outbound.media import FileKind, most_bytes

router = APIRouter(prefix="/api/whatsapp", tags=["media"])

_MOST_BODY_BYTES = most_bytes("document") + 64 * 1024
# Under the hour after which an unfinished upload's bytes are deleted (delete_files), so that none is deleted under way.
UPLOAD_DEADLINE_S = 900.0

WorkspaceId = Annotated[UUID, Query(description="One of `workspaces[].id` of GET /api/me")]


@dataclass(frozen=True, slots=True)
class MediaDesk:
    """What these routes need; `app.state.media` holds it."""

    uploads: Uploads
    storage: Storage
    url_lives_s: int


def _desk(request: Request) -> MediaDesk:
    desk: MediaDesk = request.app.state.media
    return desk


_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@router.post(
    "/media",
    response_model=MediaFile,
    status_code=201,
    summary="Upload a file to be sent",
    responses={
        403: {"model": Problem, "description": "Viewers only read"},
        409: {"model": Problem, "description": "Another file came under this Idempotency-Key"},
    },
    openapi_extra=_FORM,
    max_body_size=_MOST_BODY_BYTES,
)
async def upload_media(
    request: Request,
    person: SignedIn,
    workspace_id: WorkspaceId,
    kind: Annotated[FileKind, Query(description="As what it will be sent; decides types and sizes")],
    is_voice: Annotated[bool, Query(description="A voice note: ogg with opus")] = False,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Response:
    """Name the answer's `id` in messages. What it is, is told by its bytes; what WhatsApp would refuse is refused."""
    desk = _desk(request)
    length = request.headers.get("content-length", "")
    upload = Upload(
        workspace_id=workspace_id,
        kind=kind,
        is_voice=is_voice,
        content_type=request.headers.get("content-type", ""),
        length=int(length) if length.isascii() and length.isdigit() else None,
        request_id=idempotency_key,
        person=person,
    )
    try:
        async with asyncio.timeout(UPLOAD_DEADLINE_S):
            stored = await store_upload(upload, request.stream(), uploads=desk.uploads, storage=desk.storage)
    except TimeoutError as error:
        raise Unavailable("the upload took too long", code="upload_too_slow", hint="Send the file again.") from error
    return Response(stored, status_code=201, media_type="application/json")


@router.get(
    "/media/{media_id}",
    response_model=MediaUrl,
    summary="Where can a file be had?",
    responses={409: {"model": Problem, "description": "Not there: `media_pending`, `media_failed` or `media_gone`"}},
)
async def media_url(media_id: UUID, request: Request, person: SignedIn, workspace_id: WorkspaceId) -> MediaUrl:
    """Return addresses that need no sign-in and work for minutes: ask again rather than keep them."""
    desk = _desk(request)
    facts = await desk.uploads.read(workspace_id, media_id, as_user=person)
    mime_type = served_type(facts.sniffed_type)
    filename = safe_filename(facts.filename, facts.sniffed_type or mime_type)
    now = datetime.now(UTC)
    signed = await desk.storage.signed_url(
        facts.storage_key, filename=filename, mime_type=mime_type, now=now, lives_s=desk.url_lives_s
    )
    thumbnail = None
    if facts.thumbnail_key is not None:
        thumbnail = await desk.storage.signed_url(
            facts.thumbnail_key, filename="thumbnail.webp", mime_type="image/webp", now=now, lives_s=desk.url_lives_s
        )
    return MediaUrl(
        id=media_id,
        url=signed.url,
        thumbnail_url=thumbnail.url if thumbnail else None,
        filename=filename,
        mime_type=mime_type,
        expires_at=signed.expires_at,
    )
