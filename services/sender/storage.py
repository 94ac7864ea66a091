"""Where files are kept: one port, two places behind it.

A key is ours (`<workspace>/<year>/<month>/<id>`, made in the database), never a name that anybody chose.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from services.sender.sniff import ACTIVE, essence
from shared.domain.errors import NotFound

PIECE_BYTES = 256 * 1024
_KEY = re.compile(r"[0-9a-f-]{36}/\d{4}/\d{2}/[0-9a-f-]{36}(?:-thumbnail)?")
_UNSAFE_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff/\\:*?"<>|]+')
_MOST_NAME = 120


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """An address that is its own permission, until `expires_at`."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file being read: `pieces` may be iterated once."""

    size_bytes: int
    pieces: AsyncIterator[bytes]


class Storage(Protocol):
    """A place for files.

    Raises: Unavailable when it cannot be had now; NotFound `file_not_found` where there is no such file.
    """

    @property
    def spool_dir(self) -> Path:
        """A folder on this machine for files on their way in."""
        ...

    async def put(self, key: str, file: Path, *, mime_type: str) -> None:
        """Keep a file under a key, whole or not at all; again replaces it. `file` may be gone afterwards."""
        ...

    def open(self, key: str) -> AbstractAsyncContextManager[StoredFile]:
        """Open a file to be read in pieces."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete files; what is not there is fine."""
        ...

    async def signed_url(self, key: str, *, filename: str, mime_type: str, now: datetime, lives_s: int) -> SignedUrl:
        """Return an address at which a file is served as an attachment. `filename`: as `safe_filename` made it."""
        ...


def checked_key(key: str) -> str:
    """Return a key that is one of ours. Raises: NotFound."""
    if not _KEY.fullmatch(key):
        raise missing_file()
    return key


def known_keys(keys: Sequence[str]) -> list[str]:
    """Return those that are ours: under no other is anything kept, so there is nothing to delete."""
    return [key for key in keys if _KEY.fullmatch(key)]


def missing_file() -> NotFound:
    return NotFound("no such file", code="file_not_found", hint="It was deleted, or its address is not whole.")


def thumbnail_key(key: str) -> str:
    return f"{key}-thumbnail"


def safe_filename(filename: str | None, mime_type: str) -> str:
    """Return a name that no system takes for a path or for a program.

    filename: as whoever sent it named it. mime_type: as sniffed; where the name's ending is another type's, or missing,
    the right one is added, so that `invoice.pdf.exe` is not run.
    """
    name = _UNSAFE_IN_NAMES.sub("_", filename or "").strip(" ._")
    stem, dot, ending = name.rpartition(".")
    right = _ENDINGS.get(essence(mime_type), ())
    if right and ending.lower() not in right:
        stem, ending = name, right[0]
    elif essence(mime_type) in ACTIVE:
        stem, ending = name, "txt"
    elif not dot:
        stem, ending = name, "bin"
    return f"{stem.rstrip(' .')[: _MOST_NAME - len(ending)] or 'file'}.{ending}"


def content_disposition(filename: str) -> str:
    """Return the header that makes a browser save a file. Source: RFC 6266, 5; RFC 8187."""
    plain = "".join(char if " " <= char < "\x7f" and char not in '"\\%' else "_" for char in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def served_type(mime_type: str | None) -> str:
    """Return the type a file is served as: none that a browser would run."""
    return mime_type if mime_type is not None and essence(mime_type) in _ENDINGS else "application/octet-stream"


_ENDINGS: dict[str, tuple[str, ...]] = {
    "image/jpeg": ("jpg", "jpeg"),
    "image/png": ("png",),
    "image/webp": ("webp",),
    "image/gif": ("gif",),
    "audio/aac": ("aac",),
    "audio/amr": ("amr",),
    "audio/mpeg": ("mp3",),
    "audio/mp4": ("m4a", "mp4"),
    "audio/ogg": ("ogg", "opus", "oga"),
    "video/mp4": ("mp4", "m4v"),
    "video/3gpp": ("3gp",),
    "text/plain": ("txt", "csv", "log", "md", "json", "vcf", "ics"),
    "application/pdf": ("pdf",),
    "application/msword": ("doc",),
    "application/vnd.ms-excel": ("xls",),
    "application/vnd.ms-powerpoint": ("ppt",),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ("docx",),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ("xlsx",),
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ("pptx",),
    "application/zip": ("zip",),
}
