"""Messages: find numbers that may send, take tokens, claim, call Meta concurrently, hand over what came of it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from services.sender.graph import Graph
from services.sender.leases import Lease, Leases
from services.sender.pacing import Granted, Pacing
from services.sender.pacing import Want as TokenWant
from services.sender.record_results import Results
from services.sender.request_body import Unsendable, request_body
from services.sender.seal import TokenOpener
from services.sender.send_outcome import doubtful, result_of, unsendable, unsent
from services.sender.slots import most_at_once
from shared.domain.errors import Rejected
from shared.queue.runner import wait
from shared.settings.clocks import Clocks
from shared.store.outbox import ClaimedMessage, Outbox, SendingChannel, SendResult, Want
from shared.telemetry import metrics
from shared.whatsapp.errors import Failure, Kind, Verdict, classify

log = structlog.get_logger()

# Between two looks while there is more than slots: a claim costs some ms whatever it brings, so ended calls gather.
_GATHER_S = 0.02
_LEAST_PAUSE_S = 0.005  # between two looks while tokens are short: as long as a look itself takes
_HELD_BY_OTHERS_S = 0.1  # what is there and could not be claimed is another dispatcher's, for a moment
_KNOWN_FOR_S = 0.1  # while there is more to claim, who has messages is asked this often; it costs as much as ten sends
_QUIET_S = 10.0  # a number that nobody could send through is not asked again at once


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A message whose call has not begun."""

    message: ClaimedMessage
    channel: SendingChannel
    access: str = field(repr=False)
    lease: Lease


class Sender:
    """Keeps calls in flight, up to `slots`; numbers share them (see slots.py).

    While there is more than slots, as many again are claimed ahead as ended since the last look: whenever a call ends
    the next one begins, and the database works beside the calls instead of between them. Where calls hang, none end,
    and nothing is claimed ahead.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        graph: Graph,
        pacing: Pacing,
        tokens: TokenOpener,
        leases: Leases,
        clocks: Clocks,
        slots: int,
        ripens: Callable[[float], None],
        followed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """ripens: is told in how many seconds the next waiting message is due. followed: that a chore came of one."""
        self._outbox = outbox
        self._graph = graph
        self._pacing = pacing
        self._tokens = tokens
        self._leases = leases
        self._clocks = clocks
        self._slots = slots
        self._tell_ripens = ripens
        self._look_again = asyncio.Event()
        self._clock = clock
        self._chance = chance
        self.results = Results(
            outbox=outbox,
            leases=leases,
            grace_s=clocks.doubt_grace_s,
            in_flight=lambda: self.in_flight,
            recorded=self._look_again.set,
            followed=followed,
        )
        self._calls: set[asyncio.Task[None]] = set()
        # By phone_number_id: calls under way, the most there may be, calls ended since the last look, claimed ahead.
        self._in_flight: Counter[str] = Counter()
        self._most: dict[str, int] = {}
        self._ended: Counter[str] = Counter()
        self._ahead: dict[str, deque[_Claimed]] = {}
        self._quiet_until: dict[str, float] = {}  # phone_number_id → until when we do not ask
        self._is_short_of_slots = False
        self._known: dict[str, SendingChannel] = {}  # by phone_number_id, as long as there was more to claim
        self._known_at = float("-inf")

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return self._in_flight.total()

    def look_again(self) -> None:
        """Look now: something may be due, of whatever number."""
        self._known_at = float("-inf")
        self._look_again.set()

    async def send_due(self) -> float:
        """Claim what may go and start its calls; wait until there may be more, at most until it is time to poll."""
        self._look_again.clear()  # before looking: what is rung meanwhile is looked at again
        pause_s = await self._claim()
        if self._is_short_of_slots:
            await asyncio.sleep(_GATHER_S)
        await wait(self._look_again, pause_s)
        return 0

    async def drain(self, timeout_s: float) -> None:
        """Let calls in flight end; those cut off are in doubt. What came of them is in `results`."""
        for number in list(self._ahead):
            self._put_back(number)
        if self._calls:
            await asyncio.wait(self._calls, timeout=timeout_s)
        for call in list(self._calls):
            call.cancel()
        if self._calls:
            await asyncio.gather(*self._calls, return_exceptions=True)

    async def _claim(self) -> float:
        """Claim and start; return the seconds after which to look again."""
        by_number, access = {}, {}
        for channel in await self._channels():
            token = await self._access(channel) if self._is_open(channel) else None
            if token is not None:
                by_number[channel.phone_number_id], access[channel.phone_number_id] = channel, token
        ended, self._ended = self._ended, Counter()
        ahead = {number: len(claimed) for number, claimed in self._ahead.items()}
        wants = Counter({number: one.due for number, one in by_number.items()}) + Counter(ahead)
        self._most = most_at_once(self._slots, self._in_flight, wants)
        room = {
            number: max(0, self._most.get(number, 0) - self._in_flight[number]) + ended[number] - ahead.get(number, 0)
            for number in by_number
        }
        more = {number: min(by_number[number].due, free) for number, free in room.items() if free > 0}
        self._is_short_of_slots = any(more.get(number, 0) < one.due for number, one in by_number.items())
        if not more:
            return self._clocks.poll_every_s
        granted = await self._pacing.take(
            [TokenWant(number, by_number[number].tier_mps, most) for number, most in more.items()]
        )
        claimed = await self._claim_granted(by_number, access, granted)
        self._known = {
            number: replace(one, due=one.due - claimed[number])
            for number, one in by_number.items()
            if one.due > claimed[number]
        }
        return self._pause_s(by_number, more, granted, claimed)

    async def _channels(self) -> list[SendingChannel]:
        """Return numbers with messages that may go, those that wait longest first."""
        now = self._clock()
        if not self._known or now - self._known_at > _KNOWN_FOR_S:
            self._known_at = now  # before asking: who looks meanwhile makes us ask again
            self._known = {one.phone_number_id: one for one in await self._outbox.sending_channels()}
        return sorted(self._known.values(), key=lambda channel: -channel.oldest_ms)

    async def _claim_granted(
        self, channels: dict[str, SendingChannel], access: dict[str, str], granted: dict[str, Granted]
    ) -> Counter[str]:
        """Claim as many as there are tokens, start their calls; return how many, by number."""
        counts: Counter[str] = Counter()
        wants = [
            Want(channels[number].workspace_id, channels[number].channel_id, one.tokens)
            for number, one in granted.items()
            if one.tokens
        ]
        if not wants:
            return counts
        lease = self._leases.begin()
        claimed = await self._outbox.claim_messages(wants, lease_token=lease.token, lease_s=self._clocks.lease_s)
        self._leases.hold(lease, len(claimed.messages))
        by_id = {(one.workspace_id, one.channel_id): one for one in channels.values()}
        for message in claimed.messages:
            channel = by_id[message.workspace_id, message.channel_id]
            number = channel.phone_number_id
            counts[number] += 1
            self._ahead.setdefault(number, deque()).append(_Claimed(message, channel, access[number], lease))
        for number in counts:
            self._start_next(number)
        if claimed.next_ms is not None:
            self._tell_ripens(claimed.next_ms / 1000)
        unused = {number: left for number, one in granted.items() if (left := one.tokens - counts[number]) > 0}
        await self._pacing.give_back(unused)
        return counts

    def _pause_s(
        self,
        channels: dict[str, SendingChannel],
        shares: dict[str, int],
        granted: dict[str, Granted],
        claimed: Counter[str],
    ) -> float:
        """Return when to look again; a slot that falls free, a ring and a record end the pause anyway."""
        pause_s = self._clocks.poll_every_s
        for number, most in shares.items():
            tokens = granted[number].tokens
            if claimed[number] < tokens and channels[number].due > claimed[number]:
                pause_s = min(pause_s, _HELD_BY_OTHERS_S)
            elif tokens < most:
                pause_s = min(pause_s, max(_LEAST_PAUSE_S, granted[number].next_in_s))
        return pause_s

    def _is_open(self, channel: SendingChannel) -> bool:
        """Say whether a number may be tried now."""
        until = self._quiet_until.get(channel.phone_number_id)
        if until is None:
            return True
        if self._clock() < until:
            return False
        del self._quiet_until[channel.phone_number_id]
        return True

    def _start_next(self, number: str) -> None:
        """Begin a number's claimed messages, as many as it has slots for."""
        ahead = self._ahead.get(number)
        while ahead and self._in_flight[number] < self._most.get(number, 0):
            self._in_flight[number] += 1
            call = asyncio.create_task(self._carry(ahead.popleft()))
            self._calls.add(call)
            call.add_done_callback(self._forget)
        if not ahead:
            self._ahead.pop(number, None)

    def _end(self, number: str) -> None:
        """Give a call's slot to the next."""
        self._ended[number] += 1
        self._in_flight[number] -= 1
        self._start_next(number)
        if not self._in_flight[number]:
            del self._in_flight[number]
        if self._is_short_of_slots or self._ahead:
            self._look_again.set()

    def _put_back(self, number: str) -> None:
        """Let others have what is claimed and not begun."""
        for one in self._ahead.pop(number, ()):
            self.results.add(one.lease, unsent(one.message, str(one.lease.token)))

    def _forget(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            log.error("call.failed", exc_info=error)

    async def _carry(self, claimed: _Claimed) -> None:
        """Call Meta for one message; whatever happens, there is a result to record."""
        message, lease, number = claimed.message, claimed.lease, claimed.channel.phone_number_id
        result: SendResult | None = None
        started = self._clock()
        try:
            body = request_body(message)
            if self._leases.may_call(lease):
                answer = await self._graph.post(f"{number}/messages", body, token=claimed.access)
                verdict = classify(answer.status, answer.body, answer.failure)
                result = result_of(message, str(lease.token), verdict, answer.body, chance=self._chance())
                if verdict.kind is not Kind.ACCEPTED:
                    _tell_refusal(message, verdict, answer.failure)
                    await self._heed(verdict.kind, number)
            else:
                log.warning("call.too_late", message_id=message.message_id)
                result = unsent(message, str(lease.token))
        except Unsendable as error:
            log.error("message.unsendable", message_id=message.message_id, reason=str(error))
            result = unsendable(message, str(lease.token), str(error))
        finally:
            self._end(number)  # first: the last call under way has its result recorded at once
            result = result or doubtful(message, str(lease.token))
            self.results.add(lease, result)
            metrics.GRAPH_SECONDS.observe(self._clock() - started)
            _count(result, self._clock() - started)

    async def _heed(self, kind: Kind, number: str) -> None:
        """Spare a number what it would be refused for again; the rows themselves wait by their schedule."""
        if kind is Kind.THROTTLE_NUMBER:
            await self._pacing.slow_down(number)
        elif kind in (Kind.CHANNEL, Kind.THROTTLE_APP):
            self._quiet_until[number] = self._clock() + _QUIET_S
            self._put_back(number)

    async def _access(self, channel: SendingChannel) -> str | None:
        """Return a number's token; one that cannot be opened pauses it, before an attempt is spent."""
        try:
            return self._tokens.open(channel.token_sealed, channel.key_id)
        except Rejected as error:
            self._quiet_until[channel.phone_number_id] = self._clock() + _QUIET_S
            log.error(
                "token.unreadable", workspace_id=channel.workspace_id, channel_id=channel.channel_id, hint=error.hint
            )
            await self._outbox.pause_channel(channel.workspace_id, channel.channel_id, reason=error.code)
            return None


def _tell_refusal(message: ClaimedMessage, verdict: Verdict, failure: Failure | None) -> None:
    log.log(
        logging.ERROR if verdict.rule.alert else logging.WARNING,
        "message.refused",
        workspace_id=message.workspace_id,
        message_id=message.message_id,
        attempt=message.attempt,
        kind=str(verdict.kind),
        reason=verdict.rule.reason,
        meta_code=verdict.meta_code,
        failure=failure and str(failure),
    )


def _count(result: SendResult, call_s: float) -> None:
    """Show it to whoever scrapes."""
    message, outcome = result.message, result.outcome
    metrics.SENDS.labels(str(message.payload.get("type")), outcome).inc()
    if outcome in ("accepted", "held"):
        metrics.ACCEPT_SECONDS.observe(message.queued_ms / 1000 + call_s)
    elif outcome == "throttled" and result.error is not None:
        metrics.THROTTLES.labels(result.error.reason).inc()
    elif outcome == "unknown":
        metrics.SENDS_IN_DOUBT.inc()
