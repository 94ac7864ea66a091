"""What Meta tells us by webhook: statuses of messages and news of templates, in due time, many in one body.

A message's next status is put on the list when the one before it left, so the list holds one entry per message.
Source: Meta, webhooks/reference/messages/status (21 May 2026) and M:throughput, read 2026-11-22.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

from deploy.sandbox.deliveries import TooManyPending
from deploy.sandbox.faults import FaultBoard
from deploy.sandbox.graph.analytics import Analytics
from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.world import Number, Sent, World
from deploy.sandbox.logs import log
from deploy.sandbox.webhook_body import serialise

MOST_WAITING = 500_000
RETRY_FULL_S = 0.5

# Something due: it returns the change to tell (account, field, value) and the message it is about, or None.
Due = Callable[[float], "Change | None"]


class Change:
    """One element of `changes`, and whose it is."""

    __slots__ = ("field", "value", "waba_id", "wamid")

    def __init__(self, waba_id: str, field: str, value: dict[str, Any], wamid: str | None = None) -> None:
        self.waba_id = waba_id
        self.field = field
        self.value = value
        self.wamid = wamid


class Statuses:
    """What is still to be told, by when; one task tells it."""

    def __init__(
        self,
        world: World,
        board: FaultBoard,
        analytics: Analytics,
        send: Callable[[bytes, str | None], object],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._world = world
        self._board = board
        self._analytics = analytics
        self._send = send
        self._chance = chance
        self._waiting: list[tuple[float, int, Due]] = []
        self._order = itertools.count()
        self._woken = asyncio.Event()
        self._sleeps_until = 0.0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def forget(self) -> None:
        self._waiting.clear()

    def later(self, after_ms: int, due: Due) -> None:
        """Have something done after so many milliseconds, give or take the jitter."""
        jitter = self._world.behaviour.jitter
        share = 1 + jitter * (2 * self._chance() - 1) if jitter else 1
        at = self._world.clock() + after_ms * share / 1000
        if len(self._waiting) >= MOST_WAITING:
            log("statuses.dropped", "error", waiting=len(self._waiting))
            return
        heapq.heappush(self._waiting, (at, next(self._order), due))
        if at < self._sleeps_until:
            self._woken.set()

    def follow(self, sent: Sent) -> None:
        """Begin to tell what becomes of a message that was accepted."""
        behaviour = self._world.behaviour
        if behaviour.statuses:
            held = behaviour.hold_ms if sent.states.get("held") else 0
            self.later(held + behaviour.sent_ms, lambda now: self._reach(sent, "sent", now))

    def fail(self, sent: Sent, code: int, details: str | None = None) -> None:
        """Tell that an accepted message failed, in place of anything else."""
        sent.failed_with = code
        self.later(
            self._world.behaviour.sent_ms,
            lambda now: self._message_change(sent, "failed", now, failure_status(sent, Refused(code, details), now)),
        )

    def _reach(self, sent: Sent, state: str, now: float) -> Change:
        behaviour = self._world.behaviour
        if state == "sent" and sent.type != "reaction" and sent.group_id is None:
            # Reactions get no more than `sent`.
            self.later(behaviour.delivered_ms, lambda at: self._reach(sent, "delivered", at))
        elif state == "delivered" and sent.person.reads and behaviour.reads:
            self.later(behaviour.read_ms, lambda at: self._reach(sent, "read", at))
        elif state == "read" and sent.is_voice:
            self.later(behaviour.played_ms, lambda at: self._reach(sent, "played", at))
        self._analytics.count(sent, state, now)
        return self._message_change(sent, state, now, status(sent, state, now))

    def _message_change(self, sent: Sent, state: str, now: float, found: dict[str, Any]) -> Change:
        sent.states[state] = now
        value: dict[str, Any] = {"messaging_product": "whatsapp", "metadata": metadata(sent.number)}
        if state != "failed" and sent.group_id is None:
            value["contacts"] = [contact(sent, with_username=state in ("delivered", "read"))]
        value["statuses"] = [found]
        return Change(sent.number.waba_id, "messages", value, sent.wamid)

    async def run(self) -> None:
        """Tell what is due, until cancelled."""
        while True:
            now = self._world.clock()
            wait_s = self._waiting[0][0] - now if self._waiting else 3_600.0
            if wait_s > 0:
                self._sleeps_until = now + wait_s
                try:
                    async with asyncio.timeout(wait_s):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                self._woken.clear()
                continue
            self._sleeps_until = 0.0
            if batch_ms := self._world.behaviour.batch_ms:
                await asyncio.sleep(batch_ms / 1000)
            await self._tell(self._take_due())

    def _take_due(self) -> list[Change]:
        changes: list[Change] = []
        # The clock is read anew each time: a delay of nothing puts all of a message's statuses into one body.
        while self._waiting and self._waiting[0][0] <= (now := self._world.clock()) and len(changes) < 2_000:
            change = heapq.heappop(self._waiting)[2](now)
            account = self._world.accounts.get(change.waba_id) if change else None
            # An account without subscribed apps: its news go nowhere.
            if change is not None and (account is None or account.is_subscribed):
                changes.append(change)
        if self._board.now.webhooks.shuffle_ms:
            random.shuffle(changes)
        return changes

    async def _tell(self, changes: list[Change]) -> None:
        size = self._world.behaviour.batch_size
        for start in range(0, len(changes), size):
            part = changes[start : start + size]
            raw = serialise(body_of(part, self._world.clock()))
            while True:
                try:
                    self._send(raw, part[0].wamid)
                    break
                except TooManyPending:
                    await asyncio.sleep(RETRY_FULL_S)


def body_of(changes: list[Change], now: float) -> dict[str, Any]:
    """Put changes into one body: an entry for each account and kind, as `messages` carry no time and the others do."""
    entries: dict[tuple[str, bool], dict[str, Any]] = {}
    for change in changes:
        is_message = change.field == "messages"
        entry = entries.get((change.waba_id, is_message))
        if entry is None:
            entry = {"id": change.waba_id} | ({} if is_message else {"time": int(now)}) | {"changes": []}
            entries[(change.waba_id, is_message)] = entry
        entry["changes"].append({"value": change.value, "field": change.field})
    return {"object": "whatsapp_business_account", "entry": list(entries.values())}


def metadata(number: Number) -> dict[str, str]:
    return {"display_phone_number": number.channel.display_phone_number, "phone_number_id": number.id}


def contact(sent: Sent, *, with_username: bool) -> dict[str, Any]:
    person = sent.person
    profile: dict[str, str] = {"name": person.name} if person.name else {}
    if with_username and person.username:
        profile["username"] = person.username
    found: dict[str, Any] = {"profile": profile}
    if person.wa_id and (not sent.by_user_id or not person.hides_number):
        found["wa_id"] = person.wa_id
    if person.user_id:
        found["user_id"] = person.user_id
    return found


def status(sent: Sent, state: str, now: float) -> dict[str, Any]:
    """Build one element of `statuses`; identities a message does not have are absent, never null."""
    person = sent.person
    found: dict[str, Any] = {"id": sent.wamid, "status": state, "timestamp": str(int(now))}
    if sent.group_id is not None:
        found |= {"recipient_id": sent.group_id, "recipient_type": "group"}
    else:
        if person.wa_id and (not sent.by_user_id or not person.hides_number):
            found["recipient_id"] = person.wa_id
        if person.user_id:
            found["recipient_user_id"] = person.user_id
    if sent.callback_data is not None:
        found["biz_opaque_callback_data"] = sent.callback_data
    # The price stands on `sent` and on one of delivered and read; reactions and groups are not priced here.
    if state in ("sent", "delivered") and sent.type != "reaction" and sent.group_id is None:
        found["pricing"] = {
            "billable": sent.pricing_type == "regular",
            "pricing_model": "PMP",
            "type": sent.pricing_type,
            "category": sent.category,
        }
    return found


def failure_status(sent: Sent, refused: Refused, now: float) -> dict[str, Any]:
    found: dict[str, Any] = {"id": sent.wamid, "status": "failed", "timestamp": str(int(now))}
    if sent.group_id is not None:
        found |= {"recipient_id": sent.group_id, "recipient_type": "group"}
    elif sent.by_user_id:
        found["recipient_user_id"] = sent.person.user_id
    elif sent.person.wa_id:
        found["recipient_id"] = sent.person.wa_id
    if sent.callback_data is not None:
        found["biz_opaque_callback_data"] = sent.callback_data
    found["errors"] = [refused.in_status()]
    return found
