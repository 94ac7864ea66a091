"""Field `history`: messages from before the number was connected, and the files that follow them."""

from __future__ import annotations

from dataclasses import replace

from shared.whatsapp.events import Event, Person
from shared.whatsapp.scope import Scope
from shared.whatsapp.turns import group_of, read_turn
from shared.whatsapp.wire import Json, elements, identifier, mapping, text

# history_context.status in our words. Source: Meta, "history" webhook reference, read 2026-11-22.
_STATUSES = {
    "PENDING": "queued",
    "SENT": "sent",
    "ERROR": "failed",
    "DELIVERED": "delivered",
    "READ": "read",
    "PLAYED": "played",
}


def read_past(item: Json, scope: Scope) -> Event | str:
    """Read a message of a history thread, or return why it cannot be placed."""
    sent_to = item.get("to_user_id") or item.get("to")
    ours = scope.is_ours(item.get("from")) or bool(sent_to and not scope.is_ours(sent_to))
    group_id = group_of(item)
    person = scope.people.who(*_other_side(item, ours=ours))
    if not group_id:
        person = _joined(scope.thread_person, person)
    elif ours:
        person = None
    if person is None and not (ours and group_id):
        return "message_without_sender"
    return _read(item, scope, ours=ours, person=person, group_id=group_id)


def read_follow_up(item: Json, scope: Scope) -> Event | str:
    """Read the file of an earlier `media_placeholder`: found by wamid, so one of ours need not say to whom it went."""
    ours = scope.is_ours(item.get("from"))
    person = scope.people.customer(*_other_side(item, ours=ours))
    if person is None and not ours:
        return "message_without_sender"
    return _read(item, scope, ours=ours, person=person, group_id=group_of(item))


def was_declined(value: Json) -> bool:
    """Say whether the business refused to share its history (2593109)."""
    return any(mapping(chunk).get("errors") for chunk in elements(value.get("history")))


def _other_side(item: Json, *, ours: bool) -> tuple[object, object, object]:
    """Return the ids by which a message itself names the customer: to whom it went, or who wrote it."""
    side = "to" if ours else "from"
    return item.get(f"{side}_user_id"), item.get(side), item.get(f"{side}_parent_user_id")


def _joined(thread: Person | None, named: Person | None) -> Person | None:
    """Complete the thread's person by what a message of theirs says, unless the two disagree."""
    if thread is None or named is None or thread is named:
        return thread or named
    user_ids, wa_ids = {thread.user_id, named.user_id} - {None}, {thread.wa_id, named.wa_id} - {None}
    if len(user_ids) > 1 or len(wa_ids) > 1:
        return thread
    return replace(thread, user_id=thread.user_id or named.user_id, wa_id=thread.wa_id or named.wa_id)


def _read(item: Json, scope: Scope, *, ours: bool, person: Person | None, group_id: str | None) -> Event | str:
    wamid = identifier(item.get("id"))
    if wamid is None:
        return "message_without_id"
    context = mapping(item.get("history_context"))
    return read_turn(
        item,
        scope,
        wamid=wamid,
        direction="outbound" if ours else "inbound",
        origin="history",
        person=person,
        group_id=group_id,
        # What became of a customer's message is whether we read it: nothing a message of theirs can have.
        status=_STATUSES.get((text(context.get("status")) or "").upper()) if ours else None,
    )
