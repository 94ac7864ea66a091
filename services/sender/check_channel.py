"""Ask Meta how a number is: daily, and to settle whether one that is being connected is ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.sender.chores import Again, Chore, ChoreError, Done, Failed, outcome_of
from services.sender.graph import Graph
from shared.store.channels import ChannelWork
from shared.store.outbox import Outbox
from shared.whatsapp.errors import Kind, Verdict, classify
from shared.whatsapp.wire import Json, elements, identifier, mapping, phone, text

# Source: Meta, "Business phone numbers", fields of the node, read 2026-11-22.
NUMBER_FIELDS = (
    "id,display_phone_number,verified_name,quality_rating,throughput,status,name_status,code_verification_status,"
    "whatsapp_business_manager_messaging_limit,health_status"
)
_NOT_VISIBLE = (
    "Meta shows this token no such number or account: check both ids, and that its system user was given the account."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. code: stable."""

    level: str  # warn or fail
    code: str
    sentence: str


async def check_channel(
    chore: Chore,
    *,
    graph: Graph,
    channels: ChannelWork,
    outbox: Outbox,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> Done | Again | Failed:
    """Read a number and its account with the number's own token, and record what they say."""
    read: list[Json] = []
    for path, fields in (
        (chore.phone_number_id, NUMBER_FIELDS),
        (chore.waba_id, "id,owner_business_info"),
        (f"{chore.waba_id}/phone_numbers", "id"),
    ):
        answer = await graph.get(path, token=chore.token, params={"fields": fields, "limit": "500"})
        verdict = classify(answer.status, answer.body, answer.failure, is_repeatable=True)
        if verdict.kind is not Kind.ACCEPTED:
            return await _refused(verdict, chore, channels=channels, outbox=outbox)
        read.append(mapping(answer.body))
    number, account, listed = read

    portfolio_id = identifier(mapping(account.get("owner_business_info")).get("id"))
    found = findings(number) + belonging(chore.phone_number_id, listed, portfolio_id)
    check = _check(found) | {
        "facts": facts(number, at_ms=now_ms()),
        "is_ours": not belonging(chore.phone_number_id, listed, portfolio_id),
        "display_phone_number": _digits(number.get("display_phone_number")),
        "portfolio_id": portfolio_id,
    }
    await channels.record_check(chore.workspace_id, chore.channel_id, check)
    return Done()


async def _refused(verdict: Verdict, chore: Chore, *, channels: ChannelWork, outbox: Outbox) -> Done | Again | Failed:
    """Record a refusal that time does not mend."""
    outcome = outcome_of(verdict, attempt=chore.attempt)
    if isinstance(outcome, Again) and verdict.kind is Kind.CHANNEL:
        outcome = Failed(outcome.error)  # others wait for the mending; this one says that it is needed
    if isinstance(outcome, Failed):
        error = outcome.error
        if error.reason in ("invalid_request", "number_gone"):  # of a read: code 100 with sub-code 33
            error = ChoreError("not_visible", _NOT_VISIBLE, error.code)
        # An outage that outlasts all tries says nothing of whose the number is, but nobody may wait on it for ever.
        check = _check([Finding("fail", error.reason, error.sentence)]) | {"is_ours": False}
        await channels.record_check(chore.workspace_id, chore.channel_id, check)
        # Not for every refusal: a token that may send but not read must go on sending.
        if error.reason in ("auth", "account_blocked"):
            await outbox.pause_channel(str(chore.workspace_id), str(chore.channel_id), reason=error.reason)
        return Failed(error)
    return outcome


def belonging(phone_number_id: str, listed: Json, portfolio_id: str | None) -> list[Finding]:
    """Return why a number that Meta showed cannot be connected. listed: the numbers of its account."""
    ids = {identifier(mapping(one).get("id")) for one in elements(listed.get("data"))}
    if phone_number_id not in ids:
        sentence = "The account has no such number; check both ids at Meta."
        return [Finding("fail", "number_of_other_account", sentence)]
    if portfolio_id is None:
        sentence = "Meta does not say whose account this is; give the token business_management, too."
        return [Finding("fail", "portfolio_unknown", sentence)]
    return []


def _check(found: list[Finding]) -> dict[str, Any]:
    levels = {one.level for one in found}
    return {
        "outcome": "fail" if "fail" in levels else "warn" if "warn" in levels else "ok",
        "findings": [{"code": one.code, "sentence": one.sentence} for one in found],
    }


def findings(number: Json) -> list[Finding]:
    """Return what of a number is not as it should be. number: the node with NUMBER_FIELDS."""
    found = []
    status = text(number.get("status"))
    if status not in (None, "CONNECTED"):
        found.append(
            Finding(
                "fail",
                "registration",
                f"WhatsApp says the number is {status.lower()}: register it with its PIN, or settle it with Meta.",
            )
        )
    health = mapping(number.get("health_status"))
    for entity in map(mapping, elements(health.get("entities"))):
        can_send = text(entity.get("can_send_message"))
        if can_send in (None, "AVAILABLE"):
            continue
        what = (text(entity.get("entity_type")) or "something").lower()
        why = "; ".join(
            sentence
            for error in map(mapping, elements(entity.get("errors")))
            if (sentence := text(error.get("error_description")))
        )
        level = "fail" if can_send == "BLOCKED" else "warn"
        found.append(
            Finding(level, f"health_{what}", f"Meta lets it send {can_send.lower()} because of the {what}: {why}"[:500])
        )
    if text(number.get("quality_rating")) == "RED":
        found.append(
            Finding(
                "warn", "quality_low", "Its quality is low: too many people block or report it. Send less marketing."
            )
        )
    if text(number.get("name_status")) in ("DECLINED", "REJECTED", "EXPIRED"):
        found.append(Finding("warn", "name_refused", "Its display name is not approved: ask for another at Meta."))
    return found


def facts(number: Json, *, at_ms: int) -> dict[str, list[Any]]:
    """Return what a number's node says as facts of now. at_ms: unix time."""
    found: dict[str, list[Any]] = {}
    quality = text(number.get("quality_rating"))
    if quality in ("GREEN", "YELLOW", "RED", "UNKNOWN"):
        found["quality"] = [at_ms, quality.lower()]
    # STANDARD is 80 a second, but 20 where the app on a phone is used, too, and the field does not tell the two apart:
    # so only the rise is learned here.
    if text(mapping(number.get("throughput")).get("level")) == "HIGH":
        found["tier_mps"] = [at_ms, 1000]
    limit = text(number.get("whatsapp_business_manager_messaging_limit"))
    if limit:
        found["messaging_limit"] = [at_ms, messaging_limit(limit)]
    name = text(number.get("verified_name"))
    if name:
        found["verified_name"] = [at_ms, name[:512]]
    return found


def messaging_limit(tier: str) -> str:
    """Return TIER_2K as "2000", TIER_UNLIMITED as "unlimited": as app.limit_in does with what webhooks bring."""
    word = tier.upper().removeprefix("TIER_")
    return f"{word[:-1]}000" if word[:-1].isdigit() and word.endswith("K") else word.lower()[:32]


def _digits(shown: object) -> str | None:
    written = text(shown)
    return phone("".join(sign for sign in written if sign.isdigit())) if written else None
