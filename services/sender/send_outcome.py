"""What a message's answer comes to: an outcome for its row, when to try again, what an agent reads. Pure."""

from __future__ import annotations

from shared.store.outbox import ClaimedMessage, SendError, SendResult
from shared.whatsapp.errors import HELD, Kind, Rule, Then, Verdict, wamid_of
from shared.whatsapp.wire import elements, identifier, mapping, phone, text

_THROTTLES = frozenset({Kind.THROTTLE_NUMBER, Kind.THROTTLE_PAIR, Kind.THROTTLE_APP})
_CHANNEL_AGAIN_S = 5.0  # it waits for a person anyway: the number is paused meanwhile
_TITLE_MOST = 200
_SPREAD = 0.2  # retries of a burst come apart


def result_of(
    message: ClaimedMessage, lease_token: str, verdict: Verdict, body: object, *, chance: float
) -> SendResult:
    """Return what to record. chance: from 0 to 1, spreads retries."""
    kind = verdict.kind
    if kind is Kind.ACCEPTED:
        return _accepted(message, lease_token, verdict.rule, body)
    error = _error(verdict, body)
    then = None if verdict.rule.then is Then.NOTHING else str(verdict.rule.then)
    if kind is Kind.IN_DOUBT:
        return SendResult(message, lease_token, "unknown", error=error, then=then)
    wait_s = _wait_s(verdict, message)
    if wait_s is None:
        return SendResult(message, lease_token, "failed", error=error, then=then)
    return SendResult(
        message,
        lease_token,
        "throttled" if kind in _THROTTLES else "retry",
        retry_in_ms=int(wait_s * (1 + _SPREAD * chance) * 1000),
        error=error,
        then=then,
    )


def unsent(message: ClaimedMessage, lease_token: str) -> SendResult:
    """Return what to record of a message that was claimed and never called: it may go at once."""
    return SendResult(message, lease_token, "unsent")


def doubtful(message: ClaimedMessage, lease_token: str) -> SendResult:
    """Return what to record where our own code failed around the call: it may have left."""
    return SendResult(
        message,
        lease_token,
        "unknown",
        error=SendError(
            None,
            "internal",
            "Internal error",
            "Something of ours failed while it was sent; its status decides before it is tried again.",
        ),
    )


def unsendable(message: ClaimedMessage, lease_token: str, reason: str) -> SendResult:
    """Return what to record of a message that lacks something; certainly not sent, and never will be."""
    sentence = "This message lacks something it needs; our engineers are told. Write it anew."
    return SendResult(message, lease_token, "failed", error=SendError(None, reason, "Cannot be sent", sentence))


def _accepted(message: ClaimedMessage, lease_token: str, rule: Rule, body: object) -> SendResult:
    wamid = wamid_of(body)
    if wamid is None:  # a success that names no message: nobody can say which
        error = SendError(None, "transient", "", "WhatsApp gave no clear answer; its status decides.")
        return SendResult(message, lease_token, "unknown", error=error)
    contact = mapping(next(iter(elements(mapping(body).get("contacts"))), None))
    return SendResult(
        message,
        lease_token,
        "held" if rule is HELD else "accepted",
        wamid=wamid,
        wa_id=None if message.group_id else phone(contact.get("wa_id")),
        user_id=identifier(contact.get("user_id")),
    )


def _wait_s(verdict: Verdict, message: ClaimedMessage) -> float | None:
    """Return how long to wait before the next try; None: there is none.

    A throttle fails nothing, however often: the message's age ends it. Nor does it use up the tries of a refusal.
    """
    if verdict.kind is Kind.CHANNEL:
        return _CHANNEL_AGAIN_S
    after_s = verdict.retry.after_s
    if verdict.kind in _THROTTLES:
        return float(after_s[min(message.throttled, len(after_s) - 1)])
    return float(after_s[message.put_off]) if message.put_off < len(after_s) else None


def _error(verdict: Verdict, body: object) -> SendError:
    told = mapping(mapping(body).get("error"))
    title = text(told.get("error_user_title")) or text(told.get("message")) or ""
    # PostgreSQL stores neither U+0000 nor lone surrogates, and an odd title must not keep a result from being recorded.
    clean = title.replace("\x00", "").encode("utf-8", "replace").decode()[:_TITLE_MOST]
    return SendError(verdict.meta_code, verdict.rule.reason, clean, verdict.rule.sentence)
