"""Files: the rows that say where each is, what it is and what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from shared.domain.person import Person
from shared.store.port import Store


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """A file somebody sent us, in storage now. sha256: hex; width and height in pixels, of an image."""

    kind: str
    mime_type: str
    sha256: str
    size_bytes: int
    filename: str | None
    is_voice: bool = False
    is_animated: bool = False
    width: int | None = None
    height: int | None = None
    thumbnail_key: str | None = None


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What an address of a file is made of."""

    storage_key: str
    thumbnail_key: str | None
    filename: str | None
    mime_type: str | None
    sniffed_type: str | None


@dataclass(frozen=True, slots=True)
class MediaToFetch:
    """A file of a customer that Meta keeps for us. state None: erased. sha256: hex, as the webhook told."""

    state: Literal["pending", "stored", "failed", "gone"] | None
    meta_id: str | None
    kind: str | None
    mime_type: str | None
    sha256: str | None
    storage_key: str | None


@dataclass(frozen=True, slots=True)
class FetchedMedia:
    """A customer's file, in storage now."""

    sniffed_type: str | None
    is_mismatched: bool
    size_bytes: int
    sha256: str
    mime_type: str | None = None
    is_animated: bool = False
    width: int | None = None
    height: int | None = None
    thumbnail_key: str | None = None


@dataclass(frozen=True, slots=True)
class MediaToUpload:
    """A file of ours that Meta is to have. meta_id: it has it, for another day at least, until expires_at."""

    state: Literal["pending", "stored", "failed", "gone"] | None
    kind: str | None = None
    mime_type: str | None = None
    size_bytes: int | None = None
    storage_key: str | None = None
    meta_id: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FileToDelete:
    """A file that is to go from storage. source: whose row says so; id: that row's."""

    workspace_id: UUID
    source: Literal["media", "erasure", "upload"]
    id: UUID
    key: str


class Uploads:
    """What a signed-in person does with files. Raises: NotFound, Forbidden (a viewer), Conflict."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(self, workspace_id: UUID, media_id: UUID, *, as_user: Person) -> str:
        """Say that a file is about to come in; return the key it is to be kept under."""
        args = _media(workspace_id, media_id, name="p_id")
        answer = json.loads(await self._store.call("begin_upload", args, as_user=as_user))
        return str(answer["storage_key"])

    async def finish(
        self,
        workspace_id: UUID,
        media_id: UUID,
        upload: StoredUpload,
        *,
        request_id: str | None,
        digest: str,
        as_user: Person,
    ) -> str:
        """Write a stored file down; return its JSON, or that of the same file stored earlier under the same key.

        digest: hex, of all that must be the same under one Idempotency-Key. Raises: Conflict `idempotency_key_reused`.
        """
        args = _media(workspace_id, media_id, name="p_id") | {
            "p_file": asdict(upload),
            "p_request_id": request_id,
            "p_digest": digest,
        }
        return await self._store.call("store_upload", args, as_user=as_user)

    async def read(self, workspace_id: UUID, media_id: UUID, *, as_user: Person) -> MediaFacts:
        """Return where a file is. Raises: Conflict `media_pending`, `media_failed`, `media_gone`."""
        row = json.loads(await self._store.call("read_media", _media(workspace_id, media_id), as_user=as_user))
        return MediaFacts(**{name: row[name] for name in MediaFacts.__slots__})


class MediaWork:
    """What the dispatcher does with files."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin_fetch(self, workspace_id: UUID, media_id: UUID) -> MediaToFetch:
        """Return what to fetch, its key written down."""
        return MediaToFetch(**json.loads(await self._store.call("begin_media_fetch", _media(workspace_id, media_id))))

    async def fetched(self, workspace_id: UUID, media_id: UUID, media: FetchedMedia) -> bool:
        """Write down that a file is in storage. False: nobody wants it any more, so it is to be deleted again."""
        return await self._finish(workspace_id, media_id, {"state": "stored"} | asdict(media)) == "stored"

    async def not_fetched(
        self, workspace_id: UUID, media_id: UUID, *, is_gone: bool, reason: str, sentence: str
    ) -> None:
        """Write down that there will be no file, and why."""
        problem = {"reason": reason, "sentence": sentence}
        await self._finish(workspace_id, media_id, {"state": "gone" if is_gone else "failed", "problem": problem})

    async def _finish(self, workspace_id: UUID, media_id: UUID, result: dict[str, Any]) -> str | None:
        args = _media(workspace_id, media_id) | {"p_result": result}
        state: str | None = json.loads(await self._store.call("finish_media_fetch", args))["state"]
        return state

    async def to_upload(self, workspace_id: UUID, media_id: UUID, channel_id: UUID) -> MediaToUpload:
        """Return a file that Meta is to have."""
        args = _media(workspace_id, media_id) | {"p_channel_id": str(channel_id)}
        row = json.loads(await self._store.call("media_to_upload", args))
        expires_at = row.pop("expires_at", None)
        return MediaToUpload(**row, expires_at=datetime.fromisoformat(expires_at) if expires_at else None)

    async def uploaded(
        self, workspace_id: UUID, media_id: UUID, channel_id: UUID, *, meta_id: str, lives_days: int
    ) -> None:
        """Keep under which id Meta knows a file."""
        args = _media(workspace_id, media_id) | {
            "p_channel_id": str(channel_id),
            "p_meta_id": meta_id,
            "p_lives_days": lives_days,
        }
        await self._store.call("record_media_upload", args)

    async def release_waiters(self, workspace_id: UUID, channel_id: UUID, media_id: UUID) -> None:
        """Let the messages go that waited for Meta to have a file."""
        await self._store.call(
            "release_media_waiters", _media(workspace_id, media_id) | {"p_channel_id": str(channel_id)}
        )

    async def fail_waiters(
        self, workspace_id: UUID, channel_id: UUID, media_id: UUID, error: Mapping[str, object]
    ) -> None:
        """Fail the messages that waited for a file. error: {code, reason, title, sentence}."""
        args = _media(workspace_id, media_id) | {"p_channel_id": str(channel_id), "p_error": dict(error)}
        await self._store.call("fail_media_waiters", args)

    async def to_delete(self, *, limit: int, upload_minutes: int, keep_days: int) -> list[FileToDelete]:
        """Return files that are to go from storage. Deleting one twice does no harm, so nothing is claimed.

        upload_minutes: an upload that took longer is given up. keep_days: for how long Idempotency-Keys count.
        """
        args: dict[str, object] = {"p_limit": limit, "p_upload_minutes": upload_minutes, "p_keep_days": keep_days}
        rows = json.loads(await self._store.call("files_to_delete", args))
        return [FileToDelete(UUID(row["workspace_id"]), row["source"], UUID(row["id"]), row["key"]) for row in rows]

    async def deleted(self, files: Sequence[FileToDelete]) -> None:
        """Write down that files are gone."""
        rows = [
            {"workspace_id": str(file.workspace_id), "source": file.source, "id": str(file.id), "key": file.key}
            for file in files
        ]
        await self._store.call("files_deleted", {"p_files": rows})


def _media(workspace_id: UUID, media_id: UUID, name: str = "p_media_id") -> dict[str, object]:
    return {"p_workspace_id": str(workspace_id), name: str(media_id)}
