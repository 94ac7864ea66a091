"""Sample files of templates' headers: Meta takes them through its Resumable Upload API and gives a handle for each.

Source: Meta, "Resumable Upload API", read 2026-11-24.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.sender.chores import Again, Chore, ChoreError, Done, Failed, outcome_of
from services.sender.graph import Graph
from services.sender.template_reader import error_of, verdict_of
from shared.domain.errors import NotFound, Unavailable
from shared.storage.file_names import safe_filename
from shared.storage.port import Storage
from shared.store.media import MediaToUpload, MediaWork
from shared.whatsapp.errors import Kind
from shared.whatsapp.wire import Json, mapping, text

OURS = "parley:"
_TYPES = ("application/pdf", "image/jpeg", "image/png", "video/mp4")
_STORAGE_AGAIN_S = 15.0

_GONE = ChoreError("media_gone", "The header's sample file is no longer here; upload it again.")
_TYPE = ChoreError("media_type", "WhatsApp takes PDF, JPEG, PNG and MP4 files as samples of headers; choose another.")
_STORAGE = ChoreError("storage_unavailable", "Our storage cannot be read at the moment; it is tried again.")


class SampleRefused(Exception):
    """A sample cannot be had, or not yet. details: what people read of it."""

    def __init__(self, outcome: Again | Failed, details: Json | None = None) -> None:
        super().__init__(outcome.error.reason)
        self.outcome = outcome
        self.details = details or {
            "code": outcome.error.code,
            "reason": outcome.error.reason,
            "sentence": outcome.error.sentence,
            "details": None,
        }


@dataclass(frozen=True, slots=True)
class TemplateSamples:
    """Replaces our files' ids in components by handles of Meta's; uploading one twice does no harm."""

    graph: Graph
    media: MediaWork
    storage: Storage
    timeout_s: float

    async def fill_in(self, chore: Chore, components: list[Any]) -> list[Any]:
        """Return components as Meta takes them. Raises: SampleRefused."""
        handles: dict[str, str] = {}
        for ours in sorted(_ours_in(components)):
            handles[ours] = await self._upload(chore, UUID(ours.removeprefix(OURS)))
        filled: list[Any] = _replaced(components, handles)
        return filled

    async def _upload(self, chore: Chore, media_id: UUID) -> str:
        file = await self.media.to_upload(chore.workspace_id, media_id, chore.channel_id)
        if file.state != "stored" or file.storage_key is None:
            raise SampleRefused(Failed(_GONE))
        if file.mime_type not in _TYPES:
            raise SampleRefused(Failed(_TYPE))
        try:
            return await self._send(chore, file)
        except NotFound as error:
            raise SampleRefused(Failed(_GONE)) from error
        except Unavailable as error:
            raise SampleRefused(Again(_STORAGE_AGAIN_S, _STORAGE)) from error

    async def _send(self, chore: Chore, file: MediaToUpload) -> str:
        async with self.storage.open(file.storage_key or "") as stored:
            # Our own name for it: the author's is nobody's business but the template's.
            what = {
                "file_name": safe_filename("sample", file.mime_type or ""),
                "file_length": stored.size_bytes,
                "file_type": file.mime_type,
            }
            session = await self._ask("app/uploads", what, "id", chore)
            answer = await self.graph.put_sample(
                session,
                token=chore.token,
                file=stored.pieces,
                size_bytes=stored.size_bytes,
                timeout_s=self.timeout_s,
            )
        return self._given(answer, "h", chore)

    async def _ask(self, path: str, body: Json, key: str, chore: Chore) -> str:
        return self._given(await self.graph.post(path, body, token=chore.token), key, chore)

    def _given(self, answer: Any, key: str, chore: Chore) -> str:
        verdict = verdict_of(answer)
        given = text(mapping(answer.body).get(key))
        if verdict.kind is Kind.ACCEPTED and given:
            return given
        outcome = outcome_of(verdict, attempt=chore.attempt)
        if isinstance(outcome, Done):
            outcome = Again(_STORAGE_AGAIN_S, ChoreError("transient", "WhatsApp gave no handle; it is tried again."))
        raise SampleRefused(outcome, error_of(verdict, answer.body))


def _ours_in(part: Any) -> set[str]:
    """Return the ids of ours anywhere in a part."""
    if isinstance(part, str):
        return {part} if part.startswith(OURS) else set()
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return {found for one in inner for found in _ours_in(one)}


def _replaced(part: Any, handles: dict[str, str]) -> Any:
    if isinstance(part, str):
        return handles.get(part, part)
    if isinstance(part, dict):
        return {key: _replaced(value, handles) for key, value in part.items()}
    return [_replaced(one, handles) for one in part] if isinstance(part, list) else part
