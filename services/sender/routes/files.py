"""Files of the folder by their signed addresses: open to whoever has one, since it is the permission."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from starlette.responses import FileResponse

from shared.storage.file_names import content_disposition
from shared.storage.file_urls import PATH, FileUrls, remaining_s
from shared.storage.folder import FolderStorage
from shared.storage.port import missing_file

router = APIRouter(tags=["media"])

# A file is a stranger's: nothing in it may run, wherever it is opened.
_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "referrer-policy": "no-referrer",
    "x-robots-tag": "noindex",
}


@router.api_route(PATH + "/{key:path}", methods=["GET", "HEAD"], include_in_schema=False)
async def serve_file(key: str, request: Request) -> Response:
    """Serve a file, or a range of it, as an attachment. 404 for an address that is not ours, or too old.

    `app.state.file_urls` and `app.state.file_folder`: None where Supabase serves the files.
    """
    urls: FileUrls | None = request.app.state.file_urls
    folder: FolderStorage | None = request.app.state.file_folder
    if urls is None or folder is None:
        raise missing_file()
    now = datetime.now(UTC)
    grant = urls.read(key, request.query_params, now=now)
    path = folder.path(grant.key)
    if not await asyncio.to_thread(path.is_file):
        raise missing_file()
    headers = _HEADERS | {
        "content-disposition": content_disposition(grant.filename),
        "cache-control": f"private, max-age={remaining_s(grant, now)}",
    }
    return FileResponse(path, media_type=grant.mime_type, headers=headers)
