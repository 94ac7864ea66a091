"""Files in a folder of this machine, or one that several share; addresses signed by us.

Where sender or dispatcher run in several copies, or on several machines, the folder must be one volume that all of them
mount (ReadWriteMany under Kubernetes): what one of them stores, another serves and sends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from shared.domain.errors import Unavailable
from shared.storage.file_urls import FileUrls
from shared.storage.port import PIECE_BYTES, SignedUrl, StoredFile, checked_key, known_keys, missing_file

Result = TypeVar("Result")


class FolderStorage:
    """See `Storage`. `urls`: None in a process that gives out no addresses (the dispatcher)."""

    def __init__(self, folder: Path, urls: FileUrls | None) -> None:
        self._folder = folder
        self._urls = urls

    @property
    def spool_dir(self) -> Path:
        """See `Storage`. In the same volume, so that a file is put in its place by renaming it."""
        spool = self._folder / ".incoming"
        spool.mkdir(parents=True, exist_ok=True)
        return spool

    def path(self, key: str) -> Path:
        """Return where a file is, or would be. Raises: NotFound for a key that is none of ours."""
        return self._folder / checked_key(key)

    async def put(self, key: str, file: Path, *, mime_type: str) -> None:
        """See `Storage`. On disk before this returns."""
        await _in_thread(_move, file, self.path(key))

    @asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[StoredFile]:
        """See `Storage`."""
        file = await _in_thread(_open, self.path(key))
        try:
            yield StoredFile(os.fstat(file.fileno()).st_size, _pieces(file))
        finally:
            file.close()

    async def delete(self, keys: Sequence[str]) -> None:
        """See `Storage`."""
        for key in known_keys(keys):
            await _in_thread(lambda path: path.unlink(missing_ok=True), self.path(key))

    async def signed_url(self, key: str, *, filename: str, mime_type: str, now: datetime, lives_s: int) -> SignedUrl:
        """See `Storage`."""
        if self._urls is None:
            raise RuntimeError("this process gives out no addresses")
        return self._urls.sign(checked_key(key), filename=filename, mime_type=mime_type, now=now, lives_s=lives_s)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _move(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(file, to)
    folder = os.open(to.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or a power cut takes the name back
    finally:
        os.close(folder)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await _in_thread(file.read, PIECE_BYTES):
        yield piece


async def _in_thread(function: Callable[..., Result], *args: object) -> Result:
    try:
        return await asyncio.to_thread(function, *args)
    except FileNotFoundError as error:
        raise missing_file() from error
    except OSError as error:
        raise Unavailable("the folder of files cannot be used", code="storage_unavailable") from error
