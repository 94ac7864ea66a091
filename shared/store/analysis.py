"""Work rows for Claude: claim, renew, finish, release."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from shared.store.port import Store


@dataclass(frozen=True, slots=True)
class Lease:
    """A claimed conversation; whoever holds the token may record."""

    workspace_id: UUID
    conversation_id: UUID
    token: UUID


@dataclass(frozen=True, slots=True)
class Work:
    """One attempt at a conversation: the row of the attempt is committed, the call is not made yet.

    `context`: {tier, reserved_usd, settings, window_expires_at, new_messages: [{message_id, content, content_version,
    sent_at, attempt}], history: [{direction, content}]}, as `app.open_analysis_attempt` builds it.
    """

    lease: Lease
    attempt_id: int
    context: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Claimed:
    """What was claimed, and when the next row falls due (None: none waits)."""

    work: list[Work]
    next_due_in_s: float | None


class AnalysisWork:
    """The functions of migration *_analysis_work."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def claim_due(
        self,
        *,
        limit: int,
        lease_s: float,
        most_messages: int,
        most_attempts: int,
        prices: Mapping[str, object] | None = None,
    ) -> Claimed:
        """Claim conversations that are due, taking turns among workspaces, and reserve what each may cost.

        `prices`: as `app.open_analysis_attempt` takes them; None reserves nothing.
        """
        text = await self._store.call(
            "claim_conversation_work",
            {
                "p_limit": limit,
                "p_lease_ms": int(lease_s * 1000),
                "p_max_messages": most_messages,
                "p_max_attempts": most_attempts,
                "p_prices": dict(prices) if prices else None,
            },
        )
        answer = json.loads(text)
        due_in_ms = answer["next_due_in_ms"]
        return Claimed(
            work=[_work(row) for row in answer["claimed"]],
            next_due_in_s=None if due_in_ms is None else due_in_ms / 1000,
        )

    async def finish(
        self,
        lease: Lease,
        *,
        attempt: dict[str, object],
        results: Sequence[dict[str, object]],
        failed: dict[str, object] | None,
        most_messages: int,
        prices: Mapping[str, object] | None = None,
    ) -> Work | None:
        """Record an attempt; return what arrived meanwhile, or None when there is nothing, or the lease was lost.

        The shapes of `attempt`, `results` and `failed` are those of `finish_conversation_analysis`.
        """
        text = await self._store.call(
            "finish_conversation_analysis",
            {
                "p_workspace_id": str(lease.workspace_id),
                "p_conversation_id": str(lease.conversation_id),
                "p_lease_token": str(lease.token),
                "p_attempt": attempt,
                "p_results": list(results),
                "p_failed": failed,
                "p_max_messages": most_messages,
                "p_prices": dict(prices) if prices else None,
            },
        )
        following = json.loads(text).get("next")
        return _work(following) if following else None

    async def finish_contact(
        self,
        lease: Lease,
        *,
        attempt: dict[str, object],
        analysis: dict[str, object] | None,
        retry_in_s: float | None,
        most_messages: int,
        prices: Mapping[str, object] | None = None,
    ) -> Work | None:
        """Record an attempt at a whole conversation; return what arrived meanwhile, as `finish` does.

        The shapes are those of `finish_contact_analysis`. Without an analysis: when to try again, None never.
        """
        text = await self._store.call(
            "finish_contact_analysis",
            {
                "p_workspace_id": str(lease.workspace_id),
                "p_conversation_id": str(lease.conversation_id),
                "p_lease_token": str(lease.token),
                "p_attempt": attempt,
                "p_analysis": analysis,
                "p_retry_in_ms": None if retry_in_s is None else int(retry_in_s * 1000),
                "p_max_messages": most_messages,
                "p_prices": dict(prices) if prices else None,
            },
        )
        following = json.loads(text).get("next")
        return _work(following) if following else None

    async def renew(self, leases: Sequence[Lease], *, lease_s: float) -> set[UUID]:
        """Extend leases, all in one call; return the tokens that are no longer ours."""
        text = await self._store.call(
            "renew_conversation_work",
            {"p_lease_tokens": [_lease_json(x) for x in leases], "p_lease_ms": int(lease_s * 1000)},
        )
        return {UUID(token) for token in json.loads(text)}

    async def health(self) -> dict[str, float]:
        """Return what `analysis_health` counts, over all workspaces."""
        return dict(json.loads(await self._store.call("analysis_health", {})))

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give work back untouched, due at once."""
        await self._store.call("release_conversation_work", {"p_lease_tokens": [_lease_json(x) for x in leases]})


def _lease_json(lease: Lease) -> dict[str, str]:
    return {
        "workspace_id": str(lease.workspace_id),
        "conversation_id": str(lease.conversation_id),
        "lease_token": str(lease.token),
    }


def _work(row: dict[str, Any]) -> Work:
    return Work(
        lease=Lease(UUID(row["workspace_id"]), UUID(row["conversation_id"]), UUID(row["lease_token"])),
        attempt_id=row["attempt_id"],
        context=row,
    )
