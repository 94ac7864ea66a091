"""Block or unblock a contact at Meta, on one number; what became of it stands on the contact."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from services.sender.chores import Again, Chore, ChoreError, Done, Failed, outcome_of
from services.sender.graph import Answer, Graph
from shared.store.channels import BlockTarget, ChannelWork
from shared.whatsapp.errors import Then, Verdict, classify, rule_for
from shared.whatsapp.outbound.message import Bsuid, Phone
from shared.whatsapp.outbound.receipts import block_users
from shared.whatsapp.wire import Json, elements, mapping

_NOT_RECENT = 131047
# The code's usual sentence is about sending; an agent must read what holds: here they are blocked.
_NOT_RECENT_SENTENCE = (
    "Blocked here, not yet at WhatsApp, which blocks only people who wrote within the last 24 hours: should they write "
    "again, nothing is shown, and WhatsApp is asked again."
)
_OVERTAKEN_S = 1.0


async def block_contact(chore: Chore, *, graph: Graph, channels: ChannelWork) -> Done | Again | Failed:
    """Do what the chore says, unless the contact is the other way round by now: that has a chore of its own."""
    kind: Literal["block", "unblock"] = "block" if chore.kind == "block" else "unblock"
    target = await channels.block_target(
        chore.workspace_id, chore.channel_id, UUID(chore.payload["contact_id"]), kind=kind
    )
    if target.contact_id is None or target.is_blocked != (kind == "block"):
        return Done()
    if target.is_other_under_way:
        # Both calls at once could reach Meta in either order.
        return Again(_OVERTAKEN_S, ChoreError("overtaken", "The opposite is under way; this follows."))
    user = _user(target)
    if user is None:
        return Done()  # nobody Meta knows: nothing was ever said
    body = block_users([user])
    path = f"{chore.phone_number_id}/block_users"
    if kind == "block":
        answer = await graph.post(path, body, token=chore.token)
    else:
        answer = await graph.delete(path, body=body, token=chore.token)
    outcome = _outcome(answer, attempt=chore.attempt)
    if not isinstance(outcome, Again):
        error = outcome.error if isinstance(outcome, Failed) else None
        await channels.record_block(
            chore.workspace_id,
            chore.channel_id,
            target.contact_id,
            kind=kind,
            reason=error.reason if error else None,
            sentence=error.sentence if error else None,
        )
    return outcome


def _user(target: BlockTarget) -> Bsuid | Phone | None:
    if target.user_id is not None:
        return Bsuid(user_id=target.user_id)
    return Phone(number=target.wa_id) if target.wa_id is not None else None


def _outcome(answer: Answer, *, attempt: int) -> Done | Again | Failed:
    verdict = classify(answer.status, answer.body, answer.failure, is_repeatable=True)
    if verdict.rule.then is Then.READ_BOTH_LISTS:
        # Partly done: a 400 with both lists. We asked about one person, so the second list holds the answer or nothing.
        lists = mapping(mapping(answer.body).get("block_users"))
        failed = [mapping(one) for one in elements(lists.get("failed_users"))]
        code = next((code for one in failed for code in _codes(one)), None)
        if not failed:
            return Done()
        if code is not None:
            verdict = Verdict(rule_for(code), code)
    if verdict.meta_code == _NOT_RECENT:
        return Failed(ChoreError("not_recent", _NOT_RECENT_SENTENCE, _NOT_RECENT))
    return outcome_of(verdict, attempt=attempt)


def _codes(failed: Json) -> list[int]:
    found = (mapping(error).get("code") for error in elements(failed.get("errors")))
    return [code for code in found if isinstance(code, int) and not isinstance(code, bool)]
