"""Elements of `statuses` under field `messages`: what became of a message of ours."""

from __future__ import annotations

from shared.whatsapp.events import Status
from shared.whatsapp.scope import Scope
from shared.whatsapp.wire import Json, identifier, mapping, time

_PARTICIPANT = frozenset(
    {
        "recipient_participant_id",
        "participant_recipient_id",  # also in Meta's docs on groups
        "recipient_participant_user_id",
        "recipient_participant_parent_user_id",
    }
)
# What a Status says in fields of its own; the rest is its payload. A group's id stays there: it is no person's.
_READ = _PARTICIPANT | {
    "id",
    "status",
    "timestamp",
    "biz_opaque_callback_data",
    "recipient_user_id",
    "recipient_parent_user_id",
    "parent_recipient_user_id",  # until May 2026
}
_READ_OF_A_PERSON = _READ | {"recipient_id"}

_INT4 = 2**31


def read_status(item: Json, scope: Scope) -> Status | str:
    """Read a status, or return why it cannot be placed."""
    wamid = identifier(item.get("id"))
    if wamid is None:
        return "status_without_id"
    status = identifier(item.get("status"))
    if status is None:
        return "status_without_status"
    in_group = item.get("recipient_type") == "group" or not _PARTICIPANT.isdisjoint(item)
    if in_group:
        person = scope.people.who(
            item.get("recipient_participant_user_id"),
            item.get("recipient_participant_id") or item.get("participant_recipient_id"),
            item.get("recipient_participant_parent_user_id"),
        )
    else:
        person = scope.people.customer(
            item.get("recipient_user_id"),
            item.get("recipient_id"),
            item.get("recipient_parent_user_id") or item.get("parent_recipient_user_id"),
        )
    errors = item.get("errors")
    error = mapping(errors[0]) if isinstance(errors, list) and errors else None
    read = _READ if in_group else _READ_OF_A_PERSON
    return Status(
        change=scope.change,
        item=scope.item,
        wamid=wamid,
        status=status.lower(),
        sent_at=time(item.get("timestamp")),
        participant=(person.user_id or person.wa_id or "") if in_group and person else "",
        person=person,
        callback_data=identifier(item.get("biz_opaque_callback_data")),
        error_code=_code(error.get("code")) if error else None,
        error_title=(identifier(error.get("title")) or identifier(error.get("message"))) if error else None,
        payload={key: value for key, value in item.items() if key not in read},
    )


def _code(value: object) -> int | None:
    """Return an error's number, whichever way it was written."""
    if isinstance(value, str) and len(value) <= 10 and value.isascii() and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _INT4 else None
