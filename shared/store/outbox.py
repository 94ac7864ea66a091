"""What is to be said to Meta, as the dispatcher sees it: claims under leases, results, what nobody holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from shared.store.port import Store

# Ids of messages stay strings: they only travel back, at hundreds a second.


@dataclass(frozen=True, slots=True)
class SendingChannel:
    """A number with messages that may go now."""

    workspace_id: str
    channel_id: str
    phone_number_id: str
    waba_id: str
    tier_mps: int
    token_sealed: str = field(repr=False)
    key_id: str
    due: int  # counted to 1,000
    oldest_ms: int


@dataclass(frozen=True, slots=True)
class Want:
    """The most messages of a number to claim."""

    workspace_id: str
    channel_id: str
    most: int


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """A message whose attempt is committed: from now on Meta may have it, unless `finish_messages` says otherwise."""

    workspace_id: str
    outbox_id: str
    message_id: str
    channel_id: str
    attempt: int
    wa_id: str | None
    user_id: str | None
    group_id: str | None
    payload: dict[str, Any] = field(repr=False)
    reply_to: str | None
    files: dict[str, str]  # our media id → Meta's
    put_off: int  # earlier attempts that Meta put off, or that never reached it
    throttled: int  # earlier attempts that were too fast
    queued_ms: int  # since it was asked for, or scheduled for
    priority: int
    is_marketing: bool


@dataclass(frozen=True, slots=True)
class ClaimedMessages:
    """messages: replies first. next_ms: until the earliest of those that wait may go; None: none waits."""

    messages: list[ClaimedMessage]
    next_ms: int | None


Outcome = Literal[
    "accepted",
    "held",  # Meta has it, and looks at the template first
    "retry",  # certainly not sent
    "throttled",  # likewise: too fast
    "unknown",  # it may have been sent
    "failed",  # for good
    "unsent",  # never tried: too late for its lease, or we stop
]


@dataclass(frozen=True, slots=True)
class SendError:
    """code: Meta's. title: in Meta's words. reason and sentence: ours, for programs and for an agent."""

    code: int | None
    reason: str
    title: str
    sentence: str


@dataclass(frozen=True, slots=True)
class SendResult:
    """What came of one claimed message. then: what else follows (shared.whatsapp.errors.Then)."""

    message: ClaimedMessage
    lease_token: str
    outcome: Outcome
    wamid: str | None = None
    wa_id: str | None = None
    user_id: str | None = None
    retry_in_ms: int | None = None
    error: SendError | None = None
    then: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimedChore:
    """Something that may be repeated. token_sealed, key_id: None where the number has no token."""

    workspace_id: UUID
    id: UUID
    channel_id: UUID
    phone_number_id: str
    waba_id: str
    token_sealed: str | None = field(repr=False)
    key_id: str | None
    kind: str
    payload: dict[str, Any] = field(repr=False)
    lane: UUID | None
    message_id: UUID | None
    attempt: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ChoreResult:
    """What came of a chore."""

    workspace_id: UUID
    id: UUID
    lease_token: UUID
    outcome: Literal["done", "retry", "failed"]
    retry_in_ms: int | None = None
    error: dict[str, Any] | None = None  # {code, reason, sentence}


class Outbox:
    """The functions of migration *_dispatch, as service_role. Raises: Unavailable; each may be called again."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def sending_channels(self) -> list[SendingChannel]:
        """List numbers with messages that may go now: connected, with a token, not held."""
        return [SendingChannel(**row) for row in orjson.loads(await self._store.call("sending_channels", {}))]

    async def claim_messages(self, wants: Sequence[Want], *, lease_token: UUID, lease_s: float) -> ClaimedMessages:
        """Claim messages and commit their attempts."""
        text = await self._store.call(
            "claim_messages",
            {
                "p_wants": [
                    {"workspace_id": want.workspace_id, "channel_id": want.channel_id, "most": want.most}
                    for want in wants
                ],
                "p_lease_token": str(lease_token),
                "p_lease_ms": int(lease_s * 1000),
            },
        )
        answer = orjson.loads(text)
        return ClaimedMessages([ClaimedMessage(**row) for row in answer["messages"]], answer["next_ms"])

    async def finish_messages(self, results: Sequence[SendResult], *, grace_s: float) -> int:
        """Record what came of calls; return how many had lost their lease, of which nothing is recorded.

        grace_s: how long a status may settle one in doubt, as its row shows.
        """
        text = await self._store.call(
            "finish_messages",
            {"p_results": [_result_json(result) for result in results], "p_grace_ms": int(grace_s * 1000)},
        )
        lost: int = orjson.loads(text)["lost"]
        return lost

    async def renew(self, lease_tokens: Sequence[str], *, lease_s: float) -> None:
        """Lengthen all leases of messages and chores that are not dead yet, in one call."""
        args = {"p_lease_tokens": list(lease_tokens), "p_lease_ms": int(lease_s * 1000)}
        await self._store.call("renew_outbox", args)

    async def tend(self, *, grace_s: float, intake_is_current: bool) -> dict[str, int]:
        """See to what nobody holds; return how many of each, empty when another dispatcher is at it."""
        args = {"p_grace_ms": int(grace_s * 1000), "p_intake_is_current": intake_is_current}
        found: dict[str, int] = orjson.loads(await self._store.call("tend_outbox", args))
        return found

    async def health(self) -> dict[str, int]:
        """Return what an operator watches."""
        found: dict[str, int] = orjson.loads(await self._store.call("outbox_health", {}))
        return found

    async def pause_channel(self, workspace_id: str, channel_id: str, *, reason: str) -> None:
        """Hold all sending through a number until a person resumes it, and tell the operators."""
        args = {"p_workspace_id": workspace_id, "p_channel_id": channel_id, "p_reason": reason}
        await self._store.call("pause_channel", args)

    async def apply_then(
        self, workspace_id: UUID, channel_id: UUID, message_id: UUID | None, *, then: str, reason: str
    ) -> None:
        """Do what a refusal asks for besides the message's own fate."""
        await self._store.call(
            "apply_then",
            {
                "p_workspace_id": str(workspace_id),
                "p_channel_id": str(channel_id),
                "p_message_id": None if message_id is None else str(message_id),
                "p_then": then,
                "p_reason": reason,
            },
        )

    async def claim_chores(
        self, kinds: Sequence[str], *, most: int, lease_token: UUID, lease_s: float
    ) -> list[ClaimedChore]:
        """Claim chores of these kinds, taking turns among workspaces."""
        text = await self._store.call(
            "claim_chores",
            {
                "p_kinds": list(kinds),
                "p_most": most,
                "p_lease_token": str(lease_token),
                "p_lease_ms": int(lease_s * 1000),
            },
        )
        return [_chore(row) for row in orjson.loads(text)]

    async def finish_chores(self, results: Sequence[ChoreResult]) -> None:
        """Record what came of chores; a lost lease records nothing."""
        await self._store.call("finish_chores", {"p_results": [_chore_result_json(result) for result in results]})


def _result_json(result: SendResult) -> dict[str, Any]:
    message, error = result.message, result.error
    return {
        "workspace_id": message.workspace_id,
        "outbox_id": message.outbox_id,
        "message_id": message.message_id,
        "attempt": message.attempt,
        "lease_token": result.lease_token,
        "outcome": result.outcome,
        "wamid": result.wamid,
        "wa_id": result.wa_id,
        "user_id": result.user_id,
        "retry_in_ms": result.retry_in_ms,
        "error": error
        and {"code": error.code, "reason": error.reason, "title": error.title, "sentence": error.sentence},
        "then": result.then,
    }


def _chore(row: dict[str, Any]) -> ClaimedChore:
    lane, message_id = row["lane"], row["message_id"]
    return ClaimedChore(
        **row
        | {name: UUID(row[name]) for name in ("workspace_id", "id", "channel_id")}
        | {"lane": lane and UUID(lane), "message_id": message_id and UUID(message_id)}
        | {"expires_at": datetime.fromisoformat(row["expires_at"])}
    )


def _chore_result_json(result: ChoreResult) -> dict[str, Any]:
    return {
        "workspace_id": str(result.workspace_id),
        "id": str(result.id),
        "lease_token": str(result.lease_token),
        "outcome": result.outcome,
        "retry_in_ms": result.retry_in_ms,
        "error": result.error,
    }
