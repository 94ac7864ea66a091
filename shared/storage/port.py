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

from shared.domain.errors import NotFound

PIECE_BYTES = 256 * 1024
_KEY = re.compile(r"[0-9a-f-]{36}/\d{4}/\d{2}/[0-9a-f-]{36}(?:-thumbnail)?")


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
