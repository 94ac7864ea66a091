"""What people say about analyses and suggestions: as themselves, and for the evaluation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.domain.person import Person
from shared.store.port import Store

_PAGE = 200  # corrections with their conversations, some hundred kilobytes


class Corrections:
    """The functions of migration *_corrections for people; answers are JSON text that goes straight through.

    Asking for what is already so succeeds, so each may be called again after a lost answer.
    Raises: NotFound, Forbidden (a viewer; for `acceptance` all but owners and admins), Conflict, Rejected.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def correct(
        self, workspace_id: UUID, message_id: UUID, *, new_id: UUID, fields: Mapping[str, object], as_user: Person
    ) -> str:
        """Set fields of a message's analysis, in place of what Claude said; return the message."""
        args = _message(workspace_id, message_id) | {"p_id": str(new_id), "p_fields": dict(fields)}
        return await self._store.call("correct_analysis", args, as_user=as_user)

    async def undo(self, workspace_id: UUID, message_id: UUID, *, correction_id: UUID | None, as_user: Person) -> str:
        """Take a correction back, the latest if none is named; return the message."""
        args = _message(workspace_id, message_id)
        args["p_correction_id"] = str(correction_id) if correction_id else None
        return await self._store.call("undo_correction", args, as_user=as_user)

    async def rate_suggestion(self, workspace_id: UUID, message_id: UUID, *, outcome: str, as_user: Person) -> str:
        """Say what became of a suggestion: used, edited or ignored; return the message."""
        args = _message(workspace_id, message_id) | {"p_outcome": outcome}
        return await self._store.call("rate_suggestion", args, as_user=as_user)

    async def set_transcript(self, workspace_id: UUID, message_id: UUID, *, transcript: str, as_user: Person) -> str:
        """Write down what a voice note says; return the message."""
        args = _message(workspace_id, message_id) | {"p_transcript": transcript}
        return await self._store.call("set_transcript", args, as_user=as_user)

    async def acceptance(
        self, workspace_id: UUID, *, made_from: datetime, made_before: datetime, as_user: Person
    ) -> str:
        """How often suggestions made then were accepted, by intent and prompt version."""
        args: dict[str, object] = {
            "p_workspace_id": str(workspace_id),
            "p_from": made_from.isoformat(),
            "p_to": made_before.isoformat(),
        }
        return await self._store.call("suggestion_acceptance", args, as_user=as_user)


async def every_correction(store: Store, workspace_id: UUID) -> AsyncIterator[dict[str, Any]]:
    """Yield what people corrected, oldest message first, as `list_corrections` shapes it. Needs `service_role`."""
    after: str | None = None
    while True:
        args: dict[str, object] = {"p_workspace_id": str(workspace_id), "p_after": after, "p_limit": _PAGE}
        items = json.loads(await store.call("list_corrections", args))["items"]
        for item in items:
            yield item
        if len(items) < _PAGE:
            return
        after = items[-1]["message_id"]


async def close_suggestions(store: Store, *, after_hours: int) -> int:
    """Count suggestions nobody used in that time as ignored; return how many (at most 1,000 at once)."""
    return int(json.loads(await store.call("close_suggestions", {"p_hours": after_hours}))["closed"])


def _message(workspace_id: UUID, message_id: UUID) -> dict[str, object]:
    return {"p_workspace_id": str(workspace_id), "p_message_id": str(message_id)}
