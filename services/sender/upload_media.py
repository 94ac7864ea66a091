"""Give Meta a file of ours, so that messages can name it: Meta keeps it 30 days, for one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import structlog

from services.sender.chores import Again, Chore, ChoreError, Done, Failed
from services.sender.graph import Graph
from shared.domain.errors import NotFound, Unavailable
from shared.storage.file_names import safe_filename
from shared.storage.port import Storage
from shared.store.media import MediaToUpload, MediaWork
from shared.telemetry import metrics
from shared.whatsapp.errors import Kind, Verdict, classify
from shared.whatsapp.wire import mapping

log = structlog.get_logger()

LIVES_DAYS = 29  # of Meta's 30: a message that waits for its turn must not find it gone
_RETRY_AFTER_S = (2, 5, 15, 60, 300, 900)

_ERASED = ChoreError("media_gone", "The file was deleted before it could be sent; attach it again.", None)
_LOST = ChoreError("media_lost", "We no longer have the file; attach it again.", None)
_STORAGE = ChoreError("storage_unavailable", "Our storage cannot be read at the moment; it is tried again.", None)


@dataclass(frozen=True, slots=True)
class UploadMedia:
    """Executes `media_upload`; payload {media_id, channel_id}. Repeating it costs Meta a copy and us nothing."""

    media: MediaWork
    storage: Storage
    graph: Graph
    timeout_s: float
    released: Callable[[], None]  # told when messages may go, so that they need not be polled for

    async def __call__(self, chore: Chore) -> Done | Again | Failed:
        media_id = UUID(str(chore.payload["media_id"]))
        file = await self.media.to_upload(chore.workspace_id, media_id, chore.channel_id)
        if file.meta_id is not None:
            await self._release(chore, media_id)
            return Done()
        if file.state != "stored" or file.storage_key is None:
            return await self._fail(chore, media_id, _ERASED)
        try:
            verdict, meta_id = await self._send(chore, file)
        except NotFound:
            log.error("media.lost", media_id=str(media_id))
            return await self._fail(chore, media_id, _LOST)
        except Unavailable as error:
            return self._again(chore, ChoreError(error.code, _STORAGE.sentence, None)) or await self._fail(
                chore, media_id, _STORAGE
            )
        if meta_id is not None:
            await self.media.uploaded(
                chore.workspace_id, media_id, chore.channel_id, meta_id=meta_id, lives_days=LIVES_DAYS
            )
            await self._release(chore, media_id)
            metrics.MEDIA.labels("send", "stored").inc()
            log.info("media.sent", media_id=str(media_id), size_bytes=file.size_bytes)
            return Done()
        refused = ChoreError(verdict.rule.reason, verdict.rule.sentence, verdict.meta_code)
        is_final = verdict.kind in (Kind.PERMANENT, Kind.NEEDS_TEMPLATE)
        again = None if is_final else self._again(chore, refused)
        return again or await self._fail(chore, media_id, refused)

    async def _send(self, chore: Chore, file: MediaToUpload) -> tuple[Verdict, str | None]:
        assert file.storage_key is not None  # noqa: S101  the caller saw to it
        mime_type = file.mime_type or "application/octet-stream"
        async with self.storage.open(file.storage_key) as stored:
            answer = await self.graph.upload(
                f"{chore.phone_number_id}/media",
                token=chore.token,
                file=stored.pieces,
                mime_type=mime_type,
                # Not the sender's: a document's name travels in its message.
                filename=safe_filename("file", mime_type),
                fields={"messaging_product": "whatsapp", "type": mime_type},
                size_bytes=stored.size_bytes,
                timeout_s=self.timeout_s,
            )
        verdict = classify(answer.status, answer.body, answer.failure, is_repeatable=True)
        meta_id = mapping(answer.body).get("id") if verdict.kind is Kind.ACCEPTED else None
        if verdict.kind is Kind.ACCEPTED and not isinstance(meta_id, str):
            return classify(None, is_repeatable=True), None
        return verdict, meta_id

    async def _release(self, chore: Chore, media_id: UUID) -> None:
        await self.media.release_waiters(chore.workspace_id, chore.channel_id, media_id)
        self.released()

    async def _fail(self, chore: Chore, media_id: UUID, error: ChoreError) -> Failed:
        told = {"code": error.code, "reason": error.reason, "title": None, "sentence": error.sentence}
        await self.media.fail_waiters(chore.workspace_id, chore.channel_id, media_id, told)
        metrics.MEDIA.labels("send", "failed").inc()
        log.warning("media.not_sent", media_id=str(media_id), reason=error.reason, meta_code=error.code)
        return Failed(error)

    def _again(self, chore: Chore, error: ChoreError) -> Again | None:
        if chore.attempt > len(_RETRY_AFTER_S):
            return None
        metrics.MEDIA.labels("send", "again").inc()
        return Again(_RETRY_AFTER_S[chore.attempt - 1], error)
