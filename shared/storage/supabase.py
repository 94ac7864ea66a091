"""Files in a private bucket of Supabase Storage, over its HTTP API.

Not through supabase-py's client: it reads a whole file into memory in both directions.
Source: Supabase, "Storage API", and what supabase-js and storage3 2.34 ask of it, read 2026-11-24. Tried on
@supabase/lite, whose Storage is experimental; not on a hosted project.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import httpx

from shared.domain.errors import ParleyError, Unavailable
from shared.storage.file_names import served_type
from shared.storage.port import PIECE_BYTES, SignedUrl, StoredFile, checked_key, known_keys, missing_file


class SupabaseStorage:
    """See `Storage`. `url`: the project's. `key`: its secret (or legacy service_role) key."""

    def __init__(self, http: httpx.AsyncClient, *, url: str, key: str, bucket: str) -> None:
        self._http = http
        self._base = f"{url.rstrip('/')}/storage/v1"
        self._headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        self._bucket = bucket

    @property
    def spool_dir(self) -> Path:
        """See `Storage`."""
        return Path(tempfile.gettempdir())

    async def put(self, key: str, file: Path, *, mime_type: str) -> None:
        """See `Storage`. One request, its length known; Storage shows an object once it has all of it."""
        headers = {
            "Content-Type": served_type(mime_type),
            "Content-Length": str((await asyncio.to_thread(os.stat, file)).st_size),
            "Cache-Control": "max-age=300",
            "x-upsert": "true",
        }
        await self._ask("POST", f"object/{self._bucket}/{checked_key(key)}", headers, content=_read(file))

    @asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[StoredFile]:
        """See `Storage`."""
        address = f"{self._base}/object/{self._bucket}/{checked_key(key)}"
        try:
            async with self._http.stream("GET", address, headers=self._headers) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise _refusal(answer)
                size = int(answer.headers.get("content-length", 0))
                yield StoredFile(size, answer.aiter_bytes(PIECE_BYTES))
        except httpx.TransportError as error:
            raise _unreachable() from error

    async def delete(self, keys: Sequence[str]) -> None:
        """See `Storage`."""
        if known := known_keys(keys):
            await self._ask("DELETE", f"object/{self._bucket}", {}, json={"prefixes": known})

    async def signed_url(self, key: str, *, filename: str, mime_type: str, now: datetime, lives_s: int) -> SignedUrl:
        """See `Storage`. The type is the one it was stored with; `download` makes it an attachment of that name."""
        path = f"object/sign/{self._bucket}/{checked_key(key)}"
        answer = await self._ask("POST", path, {}, json={"expiresIn": lives_s})
        body = answer.json()
        # Relative to the Storage API; lite spells the key otherwise, and starts at the project's root.
        signed = str(body.get("signedURL") or body["signedUrl"]).removeprefix("/storage/v1")
        url = f"{self._base}/{signed.lstrip('/')}&download={quote(filename, safe='')}"
        return SignedUrl(url, now + timedelta(seconds=lives_s))

    async def _ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        *,
        json: object = None,
        content: AsyncIterator[bytes] | None = None,
    ) -> httpx.Response:
        try:
            answer = await self._http.request(
                method, f"{self._base}/{path}", headers=self._headers | headers, json=json, content=content
            )
        except httpx.TransportError as error:
            raise _unreachable() from error
        if not answer.is_success:
            raise _refusal(answer)
        return answer


def _unreachable() -> Unavailable:
    return Unavailable("Supabase Storage cannot be reached", code="storage_unavailable")


def _refusal(answer: httpx.Response) -> ParleyError:
    """Translate an error. Storage says 400 with `statusCode` "404" in the body of what it does not have."""
    try:
        body = answer.json()
        status, message = str(body.get("statusCode", answer.status_code)), str(body.get("message"))
    except (ValueError, AttributeError):
        status, message = str(answer.status_code), ""
    is_ours = status in ("401", "403") or message == "Bucket not found"
    if status == "404" and not is_ours:
        return missing_file()
    hint = "Compare STORAGE_SERVICE_KEY and STORAGE_BUCKET with the project's." if is_ours else None
    return Unavailable(f"Supabase Storage answered {status}", code="storage_unavailable", hint=hint)


async def _read(file: Path) -> AsyncIterator[bytes]:
    opened = await asyncio.to_thread(file.open, "rb")
    try:
        while piece := await asyncio.to_thread(opened.read, PIECE_BYTES):
            yield piece
    finally:
        opened.close()
