"""Take a file from an agent: counted as it comes, looked into when it is whole, stored, and only then written down."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog

from services.sender.inspect_file import Inspected, inspect_file
from services.sender.multipart_file import file_of
from services.sender.spool import Spooled, TooLarge, spooled
from shared.domain.ids import new_id
from shared.domain.person import Person
from shared.storage.file_names import thumbnail_key
from shared.storage.port import Storage
from shared.store.media import StoredUpload, Uploads
from shared.telemetry import metrics
from shared.whatsapp.outbound.media import FileKind, most_bytes

log = structlog.get_logger()

_FORM_BYTES = 16 * 1024  # what surrounds the file in its form


@dataclass(frozen=True, slots=True)
class Upload:
    """What is known before the first byte. length: of the body, if its sender says; request_id: Idempotency-Key."""

    workspace_id: UUID
    kind: FileKind
    is_voice: bool
    content_type: str
    length: int | None
    request_id: str | None
    person: Person

    @property
    def most_bytes(self) -> int:
        return most_bytes(self.kind, is_animated=True)  # whether a sticker moves is seen later


async def store_upload(upload: Upload, body: AsyncIterator[bytes], *, uploads: Uploads, storage: Storage) -> str:
    """Return the stored file's JSON. Raises: TooLarge, Rejected `file_…`, Conflict `idempotency_key_reused`, Forbidden.

    Whatever fails on the way, `begin` has written down where bytes may be: they are deleted later (delete_files).
    """
    if upload.length is not None and upload.length > upload.most_bytes + _FORM_BYTES:
        raise TooLarge(upload.most_bytes)
    media_id = new_id()
    key = await uploads.begin(upload.workspace_id, media_id, as_user=upload.person)
    incoming = await file_of(upload.content_type, body)
    async with spooled(incoming.pieces, folder=storage.spool_dir, most_bytes=upload.most_bytes) as file:
        inspected = await file.read(
            partial(inspect_file, kind=upload.kind, size_bytes=file.size_bytes, is_voice=upload.is_voice)
        )
        await storage.put(key, file.path, mime_type=inspected.mime_type)
    await put_thumbnail(storage, key, inspected.picture.thumbnail if inspected.picture else None)
    stored = await uploads.finish(
        upload.workspace_id,
        media_id,
        _facts(upload, file, inspected, incoming.filename, key),
        request_id=upload.request_id,
        digest=hashlib.sha256(f"{upload.kind} {upload.is_voice} {file.sha256}".encode()).hexdigest(),
        as_user=upload.person,
    )
    metrics.MEDIA.labels("upload", "stored").inc()
    log.info("media.uploaded", media_id=str(media_id), kind=upload.kind, size_bytes=file.size_bytes)
    return stored


async def put_thumbnail(storage: Storage, key: str, thumbnail: bytes | None) -> None:
    """Keep a picture's thumbnail beside it, if there is one."""
    if thumbnail is None:
        return
    async with spooled(_once(thumbnail), folder=storage.spool_dir, most_bytes=len(thumbnail)) as file:
        await storage.put(thumbnail_key(key), file.path, mime_type="image/webp")


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _facts(upload: Upload, file: Spooled, inspected: Inspected, filename: str | None, key: str) -> StoredUpload:
    picture = inspected.picture
    return StoredUpload(
        kind=upload.kind,
        mime_type=inspected.mime_type,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        filename=filename[:255] if filename else None,
        is_voice=upload.is_voice,
        is_animated=inspected.is_animated,
        width=picture.width if picture else None,
        height=picture.height if picture else None,
        thumbnail_key=thumbnail_key(key) if picture and picture.thumbnail else None,
    )
