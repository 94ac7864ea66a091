"""Pictures for Claude, from where the sender keeps files: few and small, since each is held in memory for a call."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import structlog

from shared.domain.errors import ParleyError
from shared.storage.file_names import essence
from shared.storage.port import Storage

log = structlog.get_logger()

# What the Messages API reads. Source: Anthropic, "Vision", November 2026; 5 MB in base64 are 3.75 MB.
MediaType = Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
MOST_PICTURES = 5  # of one call; app.open_analysis_attempt() reserves for as many
MOST_BYTES = 3_500_000  # of all of a call's: WhatsApp makes photos about 200 kB, and takes up to 5 MB
MOST_TOKENS = 5_000  # of one; larger ones are scaled down before they are read
_AT_ONCE = 4  # calls with pictures: 4 × 3.5 MB, with base64 and the request's JSON about 50 MB < the worker's 384
_TIMEOUT_S = 5.0  # to be read, in all; a picture that takes longer is not waited for


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as the Messages API takes it. `data`: base64."""

    ref: str
    media_type: MediaType
    data: str = field(repr=False)


class Pictures:
    """`storage`: None where this process was given none; then nothing is shown."""

    def __init__(self, storage: Storage | None) -> None:
        self._storage = storage
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    @asynccontextmanager
    async def of(self, new_messages: Sequence[dict[str, Any]]) -> AsyncIterator[tuple[Picture, ...]]:
        """Yield the pictures of new messages, as the claim names them, for the time of a call.

        What cannot be had now is left out: the message is then read by its caption.
        """
        wanted = [(f"m{n}", m["file"]) for n, m in enumerate(new_messages, 1) if m.get("file")]
        if not wanted or self._storage is None:
            yield ()
            return
        async with self._at_once:
            yield await self._read(self._storage, wanted)

    async def _read(self, storage: Storage, wanted: Sequence[tuple[str, dict[str, Any]]]) -> tuple[Picture, ...]:
        read: list[Picture] = []
        left = MOST_BYTES
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                for ref, file in wanted[:MOST_PICTURES]:
                    media_type = essence(file["mime_type"] or "")
                    if media_type not in _TYPES:
                        continue
                    async with storage.open(file["storage_key"]) as stored:
                        if not 0 < stored.size_bytes <= left:
                            continue
                        content = b"".join([piece async for piece in stored.pieces])
                    left -= len(content)
                    data = base64.b64encode(content).decode("ascii")
                    read.append(Picture(ref, cast("MediaType", media_type), data))
        except (ParleyError, TimeoutError) as error:
            log.warning("picture.missed", error_code=error.code if isinstance(error, ParleyError) else "timeout")
        return tuple(read)
