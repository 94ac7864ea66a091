"""Fetch a customer's file from Meta while Meta has it: seven days for what a webhook named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import BinaryIO
from uuid import UUID

import structlog

from services.sender.chores import Again, Chore, ChoreError, Done, Failed
from services.sender.download import Corrupt, Downloads, Gone, HostRefused, NotFetched
from services.sender.picture import Picture, look
from services.sender.sniff import is_animated, is_mismatch, sniff
from services.sender.spool import Spooled, TooLarge
from services.sender.store_upload import put_thumbnail
from shared.domain.errors import Unavailable
from shared.storage.file_names import essence, served_type, thumbnail_key
from shared.storage.port import Storage
from shared.store.media import FetchedMedia, MediaToFetch, MediaWork
from shared.telemetry import metrics
from shared.whatsapp.errors import Kind

log = structlog.get_logger()

# Then every six hours until Meta's id has run out: a file is not lost to a token that was bad over a weekend.
RETRY_AFTER_S = (5, 30, 120, 600, 1800, 3600, 21_600)
_MOST_CORRUPT = 4  # tries; a digest that does not fit four times will not fit
_WITH_PICTURES = frozenset({"image/jpeg", "image/png", "image/webp"})

_GONE = ChoreError("media_gone", "WhatsApp no longer has this file; ask the customer to send it again.", None)
_EXPIRED = ChoreError(
    "media_expired", "WhatsApp kept the file for 7 days only; ask the customer to send it again.", None
)
_TOO_LARGE = ChoreError("media_too_large", "The file is larger than the 100 MB that WhatsApp carries.", None)
_CORRUPT = ChoreError("media_corrupt", "The file arrives damaged; ask the customer to send it again.", None)
_HOST = ChoreError("media_host_refused", "WhatsApp keeps the file at an address we do not trust yet.", None)
_SLOW = ChoreError("media_too_slow", "The file takes too long to come; it is tried again.", None)
_STORAGE = ChoreError("storage_unavailable", "Our storage cannot take the file at the moment; it is tried again.", None)


@dataclass(frozen=True, slots=True)
class FetchMedia:
    """Executes `media_fetch`; payload {media_id}. Safe to repeat: the key and the row are the same each time."""

    media: MediaWork
    storage: Storage
    downloads: Downloads
    timeout_s: float
    now: Callable[[], datetime]

    async def __call__(self, chore: Chore) -> Done | Again | Failed:
        media_id = UUID(str(chore.payload["media_id"]))
        wanted = await self.media.begin_fetch(chore.workspace_id, media_id)
        if wanted.state != "pending" or wanted.meta_id is None or wanted.storage_key is None:
            return Done()  # fetched before, deleted meanwhile, or erased
        failure = await self._try(chore, media_id, wanted)
        if failure is None:
            return Done()
        return await self._put_off(chore, media_id, *failure)

    async def _try(self, chore: Chore, media_id: UUID, wanted: MediaToFetch) -> tuple[ChoreError, bool] | None:
        """Fetch and store; return what went wrong, and whether it is worth another try."""
        assert wanted.meta_id is not None  # noqa: S101  the caller saw to it
        try:
            async with asyncio.timeout(self.timeout_s):
                async with self.downloads.fetch(
                    wanted.meta_id, phone_number_id=chore.phone_number_id, token=chore.token, sha256=wanted.sha256
                ) as (address, file):
                    said = wanted.mime_type or address.mime_type
                    await self._keep(chore.workspace_id, media_id, wanted, said, file)
        except Gone as error:
            # Or our token may not see it, which Meta says in the same words: so not given up at once.
            gone = ChoreError(_GONE.reason, _GONE.sentence, error.verdict.meta_code)
            return gone, chore.attempt <= len(RETRY_AFTER_S)
        except NotFetched as error:
            rule = error.verdict.rule
            return ChoreError(rule.reason, rule.sentence, error.verdict.meta_code), rule.kind is not Kind.PERMANENT
        except TooLarge:
            return _TOO_LARGE, False
        except Corrupt:
            return _CORRUPT, chore.attempt < _MOST_CORRUPT
        except HostRefused:
            log.error("media.host_refused", media_id=str(media_id), hint="See MEDIA_HOSTS.")
            return _HOST, True
        except TimeoutError:
            return _SLOW, True
        except Unavailable as error:
            return ChoreError(error.code, _STORAGE.sentence, None), True
        return None

    async def _keep(
        self, workspace_id: UUID, media_id: UUID, wanted: MediaToFetch, said: str | None, file: Spooled
    ) -> None:
        key = wanted.storage_key
        assert key is not None  # noqa: S101  the caller saw to it
        looked = await file.read(partial(_look, said=said))
        await self.storage.put(key, file.path, mime_type=served_type(looked.sniffed))
        await put_thumbnail(self.storage, key, looked.picture.thumbnail if looked.picture else None)
        is_wanted = await self.media.fetched(workspace_id, media_id, _facts(looked, said, file, key))
        if not is_wanted:
            # Deleted or erased while it was on its way: what says where it is may be gone too.
            await self.storage.delete([key, thumbnail_key(key)])
        metrics.MEDIA.labels("fetch", "stored" if is_wanted else "unwanted").inc()
        log.info(
            "media.fetched",
            media_id=str(media_id),
            size_bytes=file.size_bytes,
            is_mismatched=looked.is_mismatched,
        )

    async def _put_off(self, chore: Chore, media_id: UUID, error: ChoreError, is_worth_it: bool) -> Again | Failed:
        in_s = RETRY_AFTER_S[min(chore.attempt, len(RETRY_AFTER_S)) - 1]
        if is_worth_it and self.now() + timedelta(seconds=in_s) < chore.expires_at:
            log.warning("media.put_off", media_id=str(media_id), reason=error.reason, attempt=chore.attempt)
            metrics.MEDIA.labels("fetch", "again").inc()
            return Again(in_s, error)
        told = _EXPIRED if is_worth_it else error
        is_gone = is_worth_it or error.reason == _GONE.reason
        await self.media.not_fetched(
            chore.workspace_id, media_id, is_gone=is_gone, reason=told.reason, sentence=told.sentence
        )
        metrics.MEDIA.labels("fetch", "gone" if is_gone else "failed").inc()
        log.warning("media.given_up", media_id=str(media_id), reason=told.reason, attempt=chore.attempt)
        return Failed(told)


@dataclass(frozen=True, slots=True)
class _Looked:
    sniffed: str | None
    is_mismatched: bool
    is_animated: bool
    picture: Picture | None


def _look(file: BinaryIO, *, said: str | None) -> _Looked:
    sniffed = sniff(file)
    has_picture = sniffed is not None and essence(sniffed) in _WITH_PICTURES
    return _Looked(
        sniffed=sniffed,
        is_mismatched=is_mismatch(said, sniffed),
        is_animated=sniffed == "image/webp" and is_animated(file),
        picture=look(file) if has_picture else None,
    )


def _facts(looked: _Looked, said: str | None, file: Spooled, key: str) -> FetchedMedia:
    picture = looked.picture
    return FetchedMedia(
        sniffed_type=looked.sniffed,
        is_mismatched=looked.is_mismatched,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        mime_type=said,
        is_animated=looked.is_animated,
        width=picture.width if picture else None,
        height=picture.height if picture else None,
        thumbnail_key=thumbnail_key(key) if picture and picture.thumbnail else None,
    )
