"""What is asked of Meta besides messages, and may be repeated: claimed, done by an executor, recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from services.sender.leases import Lease, Leases
from services.sender.seal import TokenOpener
from shared.domain.errors import Rejected
from shared.queue.runner import wait
from shared.settings.clocks import Clocks
from shared.store.outbox import ChoreResult, ClaimedChore, Outbox
from shared.telemetry import metrics
from shared.whatsapp.errors import Kind, Verdict
from shared.whatsapp.wire import Json

log = structlog.get_logger()

_INTERNAL_AGAIN_S = (5.0, 30.0, 120.0, 600.0, 1800.0)  # our own bug, or a server of ours that is out
_CHANNEL_AGAIN_S = 60.0  # token, permission, payment: until a person mends it


@dataclass(frozen=True, slots=True)
class ChoreError:
    """reason: stable and ours. sentence: for an agent. code: Meta's."""

    reason: str
    sentence: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Chore:
    """One thing to ask. token: '' where the number has none, which few kinds can do without."""

    workspace_id: UUID
    id: UUID
    channel_id: UUID
    phone_number_id: str
    waba_id: str
    token: str = field(repr=False)
    kind: str
    payload: Json = field(repr=False)
    lane: UUID | None
    message_id: UUID | None
    attempt: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Done:
    """It is as it should be."""


@dataclass(frozen=True, slots=True)
class Again:
    """Not yet: try again in so many seconds, as long as it has not expired."""

    in_s: float
    error: ChoreError


@dataclass(frozen=True, slots=True)
class Failed:
    """Never as it stands."""

    error: ChoreError


Executor = Callable[[Chore], Awaitable[Done | Again | Failed]]


def outcome_of(verdict: Verdict, *, attempt: int) -> Done | Again | Failed:
    """Return what a classified answer to a repeatable call comes to (`classify(…, is_repeatable=True)`)."""
    if verdict.kind is Kind.ACCEPTED:
        return Done()
    rule = verdict.rule
    error = ChoreError(rule.reason, rule.sentence, verdict.meta_code)
    if verdict.kind is Kind.CHANNEL:
        return Again(_CHANNEL_AGAIN_S, error)
    after_s = verdict.retry.after_s
    if verdict.kind in (Kind.THROTTLE_NUMBER, Kind.THROTTLE_PAIR, Kind.THROTTLE_APP):
        return Again(float(after_s[min(attempt, len(after_s)) - 1]), error)
    return Again(float(after_s[attempt - 1]), error) if attempt <= len(after_s) else Failed(error)


class Chores:
    """Keeps up to `slots` chores in hand, each a task; all their leases are renewed with those of messages."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        executors: Mapping[str, Executor],
        tokens: TokenOpener,
        leases: Leases,
        clocks: Clocks,
        slots: int,
        deadline_s: float,
    ) -> None:
        """executors: by kind; kinds without one are left to whoever has it. deadline_s: for one chore."""
        self._outbox = outbox
        self._executors = executors
        self._tokens = tokens
        self._leases = leases
        self._clocks = clocks
        self._slots = slots
        self._deadline_s = deadline_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._look_again = asyncio.Event()

    def look_again(self) -> None:
        """Look now: something may be due."""
        self._look_again.set()

    async def do_due(self) -> float:
        """Claim what is due and start it; wait until there may be more, at most until it is time to poll."""
        self._look_again.clear()
        free = self._slots - len(self._tasks)
        if free > 0 and self._executors:
            lease = self._leases.begin()
            claimed = await self._outbox.claim_chores(
                list(self._executors), most=free, lease_token=lease.token, lease_s=self._clocks.lease_s
            )
            self._leases.hold(lease, len(claimed))
            for chore in claimed:
                task = asyncio.create_task(self._carry(chore, lease))
                self._tasks.add(task)
                task.add_done_callback(self._forget)
        await wait(self._look_again, self._clocks.poll_every_s)
        return 0

    async def drain(self, timeout_s: float) -> None:
        """Let what is in hand end; what does not is due again once its lease has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._look_again.set()  # a slot fell free, and what was done may have brought more
        if not task.cancelled() and (error := task.exception()) is not None:
            # The lease ends, and it is tried again: it may be repeated.
            log.error("chore.not_recorded", exc_info=error)

    async def _carry(self, claimed: ClaimedChore, lease: Lease) -> None:
        try:
            outcome = await self._do(claimed)
            await self._outbox.finish_chores([_result(claimed, lease, outcome)])
        finally:
            self._leases.settle(lease)

    async def _do(self, claimed: ClaimedChore) -> Done | Again | Failed:
        """Do one; whatever goes wrong in it is tried again, since it may be repeated."""
        told: dict[str, Any] = {
            "workspace_id": str(claimed.workspace_id), "chore_id": str(claimed.id), "kind": claimed.kind,
        }  # fmt: skip
        outcome: Done | Again | Failed
        try:
            chore = self._chore(claimed)
            async with asyncio.timeout(self._deadline_s):
                outcome = await self._executors[claimed.kind](chore)
        except Rejected as error:
            outcome = Failed(ChoreError(error.code, error.hint or str(error)))
            log.error("chore.refused", **told, error_code=error.code)
        except Exception:
            in_s = _INTERNAL_AGAIN_S[min(claimed.attempt, len(_INTERNAL_AGAIN_S)) - 1]
            outcome = Again(in_s, ChoreError("internal", "Something of ours failed; it is tried again."))
            log.exception("chore.broke", **told, attempt=claimed.attempt)
        if not isinstance(outcome, Done):
            log.warning(
                "chore.postponed" if isinstance(outcome, Again) else "chore.failed",
                **told,
                attempt=claimed.attempt,
                reason=outcome.error.reason,
                meta_code=outcome.error.code,
            )
        metrics.CHORES.labels(claimed.kind, type(outcome).__name__.lower()).inc()
        return outcome

    def _chore(self, claimed: ClaimedChore) -> Chore:
        """Open its token. Raises: Rejected `token_unreadable`."""
        has_token = claimed.token_sealed is not None and claimed.key_id is not None
        return Chore(
            workspace_id=claimed.workspace_id,
            id=claimed.id,
            channel_id=claimed.channel_id,
            phone_number_id=claimed.phone_number_id,
            waba_id=claimed.waba_id,
            token=self._tokens.open(claimed.token_sealed or "", claimed.key_id or "") if has_token else "",
            kind=claimed.kind,
            payload=claimed.payload,
            lane=claimed.lane,
            message_id=claimed.message_id,
            attempt=claimed.attempt,
            expires_at=claimed.expires_at,
        )


def _result(claimed: ClaimedChore, lease: Lease, outcome: Done | Again | Failed) -> ChoreResult:
    ids = (claimed.workspace_id, claimed.id, lease.token)
    if isinstance(outcome, Done):
        return ChoreResult(*ids, "done")
    error = {"code": outcome.error.code, "reason": outcome.error.reason, "sentence": outcome.error.sentence}
    if isinstance(outcome, Failed):
        return ChoreResult(*ids, "failed", error=error)
    return ChoreResult(*ids, "retry", retry_in_ms=max(1, int(outcome.in_s * 1000)), error=error)
