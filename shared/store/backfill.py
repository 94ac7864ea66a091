"""What a backfill does at the database: the functions of migration *_backfill."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from shared.store.port import Store


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages: a workspace's since a time; with `version` also those another prompt version analysed."""

    workspace_id: UUID
    since: datetime
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """How much that is. `waiting`: conversations workers still have; `batched`: requests on their way.

    `output_tokens`: of an analysed message so far, None if there was none; `history_bytes`: at most.
    """

    ai_enabled: bool
    budget_usd: Decimal | None
    budget_used: Decimal
    messages: int
    conversations: int
    calls: int
    bytes: int
    history_bytes: int
    waiting: int
    batched: int
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class Fed:
    """What was given to the workers. `until`: when there is money again, None while there is."""

    conversations: int
    waiting: int
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that has not ended. `remote_id` None: whether it was sent is not known."""

    id: UUID
    remote_id: str | None
    requests: int


class Backfill:
    """A workspace's backfill."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def scope(self, wanted: Wanted, *, most_messages: int) -> Scope | None:
        """Return how much is wanted now; None for a workspace that is not there."""
        found = json.loads(
            await self._store.call("backfill_scope", _wanted_json(wanted) | {"p_max_messages": most_messages}),
            parse_float=Decimal,
        )
        if not found:
            return None
        budget = found["budget_usd"]
        return Scope(**(found | {"budget_usd": None if budget is None else Decimal(budget)}))

    async def feed(self, wanted: Wanted, *, most_waiting: int) -> Fed:
        """Give workers more, so that `most_waiting` conversations wait."""
        found = json.loads(await self._store.call("backfill_feed", _wanted_json(wanted) | {"p_most": most_waiting}))
        return Fed(found["fed"], found["waiting"], _time(found["until"]))

    async def make_batch(
        self,
        wanted: Wanted,
        *,
        batch_id: UUID,
        most_requests: int,
        most_messages: int,
        prices: Mapping[str, object],
    ) -> tuple[list[dict[str, Any]], datetime | None]:
        """Reserve and keep the requests of a batch; return their contexts, and when there is money for more."""
        text = await self._store.call(
            "backfill_make_batch",
            _wanted_json(wanted)
            | {
                "p_batch_id": str(batch_id),
                "p_most": most_requests,
                "p_max_messages": most_messages,
                "p_prices": dict(prices),
            },
        )
        made = json.loads(text)
        return made["requests"], _time(made["until"])

    async def note_sent(self, workspace_id: UUID, batch_id: UUID, remote_id: str) -> None:
        """Note that Anthropic has a batch, and as what."""
        await self._store.call(
            "backfill_note_sent",
            {"p_workspace_id": str(workspace_id), "p_batch_id": str(batch_id), "p_remote_id": remote_id},
        )

    async def batches(self, workspace_id: UUID) -> list[Batch]:
        """Return the batches that have not ended, oldest first."""
        found = json.loads(await self._store.call("backfill_batches", {"p_workspace_id": str(workspace_id)}))
        return [Batch(UUID(b["id"]), b["remote_id"], b["requests"]) for b in found]

    async def requests(
        self, workspace_id: UUID, batch_id: UUID, attempt_ids: Sequence[int]
    ) -> dict[int, dict[str, Any]]:
        """Return what requests were made from, by attempt; without those whose texts are gone."""
        found = json.loads(
            await self._store.call(
                "backfill_requests",
                {
                    "p_workspace_id": str(workspace_id),
                    "p_batch_id": str(batch_id),
                    "p_attempt_ids": list(attempt_ids),
                },
            )
        )
        return {context["attempt_id"]: context for context in found}

    async def finish(
        self,
        workspace_id: UUID,
        *,
        attempt: dict[str, object],
        results: Sequence[dict[str, object]],
        given_up: str | None,
    ) -> None:
        """Store what came of one request; a second time changes nothing."""
        await self._store.call(
            "backfill_finish",
            {
                "p_workspace_id": str(workspace_id),
                "p_attempt": attempt,
                "p_results": list(results),
                "p_given_up": given_up,
            },
        )

    async def end_batch(self, workspace_id: UUID, batch_id: UUID) -> int:
        """End a batch; return how many of its requests are lost, their messages wanted again."""
        text = await self._store.call(
            "backfill_end_batch", {"p_workspace_id": str(workspace_id), "p_batch_id": str(batch_id)}
        )
        return int(json.loads(text)["lost"])


def _wanted_json(wanted: Wanted) -> dict[str, object]:
    return {
        "p_workspace_id": str(wanted.workspace_id),
        "p_since": wanted.since.isoformat(),
        "p_version": wanted.version,
    }


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
