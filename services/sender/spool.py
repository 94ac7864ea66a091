"""A file on its way in: written piece by piece to this machine, counted and hashed, never whole in memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from shared.domain.errors import Rejected

Result = TypeVar("Result")
_MB = 1024 * 1024
_PREFIX = "parley-incoming-"


class TooLarge(Rejected):
    """More came than may come; what came is gone again."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(
            f"the file is larger than {most_bytes} bytes",
            code="file_too_large",
            hint=f"WhatsApp allows {most_bytes / _MB:.1f} MB for this kind of file.",
        )
        self.most_bytes = most_bytes


@dataclass(frozen=True, slots=True)
class Spooled:
    """A whole file on this machine. sha256: hex."""

    path: Path
    size_bytes: int
    sha256: str

    async def read(self, function: Callable[[BinaryIO], Result]) -> Result:
        """Run something that reads the file, in a thread."""
        return await asyncio.to_thread(self._read, function)

    def _read(self, function: Callable[[BinaryIO], Result]) -> Result:
        with self.path.open("rb") as file:
            return function(file)


@asynccontextmanager
async def spooled(pieces: AsyncIterable[bytes], *, folder: Path, most_bytes: int) -> AsyncIterator[Spooled]:
    """Write pieces to a file that is gone afterwards, unless it was moved. Raises: TooLarge as soon as it is."""
    handle, name = await asyncio.to_thread(tempfile.mkstemp, prefix=_PREFIX, dir=folder)
    path = Path(name)
    try:
        digest, size = hashlib.sha256(), 0
        with os.fdopen(handle, "wb") as file:
            async for piece in pieces:
                size += len(piece)
                if size > most_bytes:
                    raise TooLarge(most_bytes)
                digest.update(piece)
                await asyncio.to_thread(file.write, piece)
        yield Spooled(path, size, digest.hexdigest())
    finally:
        await asyncio.to_thread(path.unlink, missing_ok=True)


def drop_stale(folder: Path, *, older_than_s: float, now_s: float) -> int:
    """Delete what processes that died had under way; return how many. Blocks. Other programs' files stay."""
    dropped = 0
    for path in folder.glob(f"{_PREFIX}*"):
        try:
            if now_s - path.stat().st_mtime > older_than_s:
                path.unlink()
                dropped += 1
        except FileNotFoundError:  # another process was faster
            continue
    return dropped
