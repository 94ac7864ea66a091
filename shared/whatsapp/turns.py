"""Elements of `messages` and `message_echoes`: turns in a chat, and what is said about one."""

from __future__ import annotations

from shared.whatsapp.content import content_of, media_of
from shared.whatsapp.events import (
    MESSAGE_TYPES,
    Direction,
    Edit,
    Event,
    Kept,
    Message,
    Origin,
    Person,
    Reaction,
    Revoke,
)
from shared.whatsapp.identity import read_system
from shared.whatsapp.scope import Scope
from shared.whatsapp.wire import ID_LIMIT, Json, identifier, mapping, text, time

_EMOJI_LIMIT = 64  # characters; the longest emoji sequence has about 15


def read_message(item: Json, scope: Scope) -> Event | str:
    """Read what a customer sent us now, or return why it cannot be placed."""
    wamid = identifier(item.get("id"))
    if wamid is None:
        return "message_without_id"
    if item.get("type") == "system":
        return read_system(item, scope, wamid=wamid)
    person = scope.people.customer(item.get("from_user_id"), item.get("from"), item.get("from_parent_user_id"))
    if person is None:
        return "message_without_sender"
    return read_turn(
        item, scope, wamid=wamid, direction="inbound", origin="live", person=person, group_id=group_of(item)
    )


def read_echo(item: Json, scope: Scope) -> Event | str:
    """Read what staff sent from the WhatsApp Business app, or return why it cannot be placed."""
    wamid = identifier(item.get("id"))
    if wamid is None:
        return "message_without_id"
    group_id = group_of(item)
    if group_id:
        person = None
    else:
        person = scope.people.customer(item.get("to_user_id"), item.get("to"), item.get("to_parent_user_id"))
        if person is None:
            return "message_without_sender"
    return read_turn(item, scope, wamid=wamid, direction="outbound", origin="app", person=person, group_id=group_id)


def read_turn(
    item: Json,
    scope: Scope,
    *,
    wamid: str,
    direction: Direction,
    origin: Origin,
    person: Person | None,
    group_id: str | None,
    status: str | None = None,
) -> Event | str:
    """Read an element whose author is known, by its type."""
    kind = text(item.get("type")) or ""
    if kind in _ABOUT_ANOTHER:
        return _read_about_another(
            kind, item, scope, wamid=wamid, direction=direction, origin=origin, person=person, group_id=group_id
        )
    if kind in _NOT_A_TURN:
        return Kept(scope.change, scope.item, kind, time(item.get("timestamp")))
    message_type = "audio" if kind == "voice" else kind
    context = item.get("context")
    return Message(
        change=scope.change,
        item=scope.item,
        wamid=wamid,
        direction=direction,
        origin=origin,
        message_type=message_type if message_type in MESSAGE_TYPES else "unknown",
        content=content_of(kind, item),
        payload=item,
        sent_at=time(item.get("timestamp")),
        person=person,
        group_id=group_id,
        reply_to_wamid=identifier(context.get("id")) if isinstance(context, dict) else None,
        media=media_of(kind, item),
        status=status,
    )


_ABOUT_ANOTHER = frozenset({"reaction", "edit", "revoke"})
_NOT_A_TURN = frozenset({"request_welcome", "system"})


def _read_about_another(
    kind: str,
    item: Json,
    scope: Scope,
    *,
    wamid: str,
    direction: Direction,
    origin: Origin,
    person: Person | None,
    group_id: str | None,
) -> Event | str:
    said = mapping(item.get(kind))
    target = identifier(said.get("message_id" if kind == "reaction" else "original_message_id"))
    if target is None:
        return f"{kind}_without_target"
    sent_at = time(item.get("timestamp"))
    if kind == "reaction":
        emoji = (text(said.get("emoji")) or "")[:_EMOJI_LIMIT]
        return Reaction(scope.change, scope.item, wamid, target, emoji, direction, sent_at, person, origin, group_id)
    if kind == "revoke":
        return Revoke(scope.change, scope.item, wamid, target, direction, sent_at, person, group_id)
    nested = said.get("message")
    if not isinstance(nested, dict):
        return "edit_without_message"  # as an edit it would empty the message
    content = content_of(text(nested.get("type")) or "", nested)
    return Edit(scope.change, scope.item, wamid, target, content, nested, direction, sent_at, person, group_id)


def group_of(item: Json) -> str | None:
    """Return the group a message was sent in.

    An id too long to index is cut: without any, a group's message would show in someone's own chat.
    """
    group_id = item.get("group_id")
    if not group_id and item.get("recipient_type") == "group":
        group_id = item.get("to")
    return (text(group_id) or "")[:ID_LIMIT] or None if group_id else None
