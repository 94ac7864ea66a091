"""Webhook items as Meta nests them, one builder a kind, and `body` to pack any of them into the bytes of one POST."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

from tests.world import PHONE_A, PHONE_B, WABA_A, WABA_B

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Number:
    """A business number: what a change names in its metadata."""

    phone_number_id: str
    waba_id: str
    display: str


NUMBER_A = Number(PHONE_A, WABA_A, "12025550143")
NUMBER_B = Number(PHONE_B, WABA_B, "442079460321")


@dataclass(frozen=True, slots=True)
class Who:
    """A customer as one item shows them: by user id, by phone-derived id, or both."""

    user_id: str | None
    wa_id: str | None

    def named(self, user_id: str, wa_id: str) -> Json:
        """Return those ids it has, under these keys."""
        return _present({user_id: self.user_id, wa_id: self.wa_id})


@dataclass(frozen=True, slots=True)
class Item:
    """One element of one of Meta's lists, and what stands beside it in its change."""

    number: Number
    field: str
    kind: str  # the list it is an element of
    element: Json
    contact: Json | None = None


def text(
    wamid: str, who: Who, at: datetime, words: str, *, number: Number = NUMBER_A,
    profile: Mapping[str, str] | None = None, reply_to: str | None = None, group_id: str | None = None,
) -> Item:  # fmt: skip
    """One inbound text."""
    content = {"type": "text", "text": {"body": words}}
    return _inbound(wamid, who, at, content, number, profile, reply_to=reply_to, group_id=group_id)


def image(
    wamid: str, who: Who, at: datetime, media_id: str, *, caption: str | None = None, number: Number = NUMBER_A,
    profile: Mapping[str, str] | None = None, reply_to: str | None = None, group_id: str | None = None,
) -> Item:  # fmt: skip
    """One inbound image."""
    content = {"type": "image", "image": picture(media_id, caption)}
    return _inbound(wamid, who, at, content, number, profile, reply_to=reply_to, group_id=group_id)


def unknown(wamid: str, who: Who, at: datetime, *, number: Number = NUMBER_A) -> Item:
    """A message of a type nobody has heard of."""
    return _inbound(wamid, who, at, {"type": "hologram", "hologram": {"depth": 3}}, number, {"name": "Ana"})


def reaction(
    wamid: str, who: Who, at: datetime, target: str, emoji: str, *, number: Number = NUMBER_A,
    profile: Mapping[str, str] | None = None,
) -> Item:  # fmt: skip
    """A customer's reaction to a message; '' takes it back."""
    content = {"type": "reaction", "reaction": {"message_id": target, "emoji": emoji}}
    return _inbound(wamid, who, at, content, number, profile)


def edit(
    wamid: str, who: Who, at: datetime, target: str, content: Json, *, number: Number = NUMBER_A,
    profile: Mapping[str, str] | None = None,
) -> Item:  # fmt: skip
    """A customer's edit; `content`: the message as it now is, {type, <type>}."""
    edited = {"type": "edit", "edit": {"original_message_id": target, "message": {"context": {"id": "M0"}} | content}}
    return _inbound(wamid, who, at, edited, number, profile)


def revoke(
    wamid: str, who: Who, at: datetime, target: str, *, number: Number = NUMBER_A,
    profile: Mapping[str, str] | None = None,
) -> Item:  # fmt: skip
    """A customer's message, deleted for everyone."""
    content = {"type": "revoke", "revoke": {"original_message_id": target}}
    return _inbound(wamid, who, at, content, number, profile)


def user_changed_number(
    wamid: str, at: datetime, *, old_wa_id: str, wa_id: str, user_id: str, previous_user_id: str | None = None,
    number: Number = NUMBER_A,
) -> Item:  # fmt: skip
    """A customer goes on under another number, so under another user id too."""
    system = {"body": "changed", "wa_id": wa_id, "user_id": user_id, "type": "user_changed_number"}
    system |= _present({"previous_user_id": previous_user_id})
    return _system(wamid, at, {"from": old_wa_id}, system, number)


def customer_changed_number(wamid: str, at: datetime, *, old_wa_id: str, wa_id: str, number: Number = NUMBER_A) -> Item:
    """The same in its legacy shape, from before there were user ids."""
    system = {"body": "changed", "customer": old_wa_id, "new_wa_id": wa_id, "type": "customer_changed_number"}
    return _system(wamid, at, {"from": old_wa_id}, system, number)


def user_changed_user_id(
    wamid: str, at: datetime, *, user_id: str, previous_user_id: str, number: Number = NUMBER_A
) -> Item:
    """A customer with a username goes on under another user id."""
    system = {
        "body": "changed",
        "user_id": user_id,
        "previous_user_id": previous_user_id,
        "type": "user_changed_user_id",
    }
    return _system(wamid, at, {}, system, number)


def status(
    wamid: str, who: Who, at: datetime, name: str, *, number: Number = NUMBER_A, error: tuple[int, str] | None = None,
    profile: Mapping[str, str] | None = None,
) -> Item:  # fmt: skip
    """What became of a message of ours."""
    element = {"id": wamid, "status": name, "timestamp": _seconds(at)}
    element |= who.named("recipient_user_id", "recipient_id")
    if error:
        element["errors"] = [{"code": error[0], "title": error[1], "message": error[1]}]
    return Item(number, "messages", "statuses", element, _contact(who, profile))


def echo(
    wamid: str, who: Who, at: datetime, content: Json, *, number: Number = NUMBER_A,
    profile: Mapping[str, str] | None = None,
) -> Item:  # fmt: skip
    """What staff wrote in the WhatsApp Business app; `content`: {type, <type>}, which may be an edit or a revoke."""
    element = {"from": number.display, "id": wamid, "timestamp": _seconds(at)} | content
    element |= who.named("to_user_id", "to")
    return Item(number, "smb_message_echoes", "message_echoes", element, _contact(who, profile))


def history(
    wamid: str, who: Who, at: datetime, content: Json, *, outbound: bool = False, status: str = "READ",
    number: Number = NUMBER_A,
) -> Item:  # fmt: skip
    """A message from before the number was connected, in a thread of its own; `status`: Meta's, upper case."""
    message = {"id": wamid, "timestamp": _seconds(at), "history_context": {"status": status}} | content
    if outbound:
        message |= {"from": number.display} | _present({"to": who.wa_id})
    else:
        message |= who.named("from_user_id", "from")
    thread = _present({"id": who.wa_id}) | {"context": who.named("user_id", "wa_id"), "messages": [message]}
    chunk = {"metadata": {"phase": 0, "chunk_order": 1, "progress": 55}, "threads": [thread]}
    return Item(number, "history", "history", chunk)


def history_media(
    wamid: str, at: datetime, media_id: str, *, sender: str | None = None, caption: str | None = None,
    number: Number = NUMBER_A,
) -> Item:  # fmt: skip
    """The file a `media_placeholder` stood for. Without `sender` (a wa_id) it is ours: to whom, it does not say."""
    element = {"from": sender or number.display, "id": wamid, "timestamp": _seconds(at)}
    return Item(number, "history", "messages", element | {"type": "image", "image": picture(media_id, caption)})


def call(
    call_id: str, who: Who, at: datetime, *, event: str = "connect", by_customer: bool = True, number: Number = NUMBER_A
) -> Item:
    """One event of a call."""
    ids = who.named("from_user_id", "from") if by_customer else who.named("to_user_id", "to")
    element = {
        "id": call_id,
        "to" if by_customer else "from": number.display,
        "event": event,
        "timestamp": _seconds(at),
        "direction": "USER_INITIATED" if by_customer else "BUSINESS_INITIATED",
    } | ids
    return Item(number, "calls", "calls", element, _contact(who, {}))


def preference(who: Who, at: datetime, value: str, *, number: Number = NUMBER_A) -> Item:
    """What a customer wants of marketing: stop, resume or signup."""
    element = {"category": "marketing_messages", "value": value, "timestamp": int(at.timestamp())}
    element |= who.named("user_id", "wa_id")
    return Item(number, "user_preferences", "user_preferences", element, _contact(who, {}))


def picture(media_id: str, caption: str | None = None) -> Json:
    """An image's own object."""
    sha256 = "lJh+B2FCavhgxiYYekQc9OzobmvtNrQ4VsuAXg4+yZs="
    return _present({"id": media_id, "mime_type": "image/jpeg", "sha256": sha256, "caption": caption})


def body(*items: Item, spread: Random | None = None) -> bytes:
    """Pack items into one POST, in their order as far as their fields allow.

    Items of one number and field share a change while their contacts agree: Meta describes a person once a change, and
    the sender's ids are looked up there. `spread`: also breaks them up at random, over more changes and entries.
    """
    entries: list[Json] = []
    open_changes: list[_OpenChange] = []
    for item in items:
        change = next((c for c in reversed(open_changes) if c.takes(item)), None)
        if change is None or (spread and spread.random() < 0.3):
            change = _OpenChange(item.number, item.field)
            open_changes.append(change)
            entry = next((e for e in entries if e["id"] == item.number.waba_id), None)
            if entry is None or (spread and spread.random() < 0.5):
                entry = {"id": item.number.waba_id, "changes": []}
                entries.append(entry)
            entry["changes"].append({"field": item.field, "value": change.value})
        change.add(item)
    return json.dumps({"object": "whatsapp_business_account", "entry": entries}).encode()


@dataclass(slots=True)
class _OpenChange:
    number: Number
    field: str
    value: Json = field(default_factory=dict)
    has_people: bool = True

    def takes(self, item: Item) -> bool:
        if (self.number, self.field) != (item.number, item.field):
            return False
        if item.field == "history":
            return item.kind in self.value
        if item.contact is None or not self.has_people:
            return item.contact is None and not self.has_people
        return all(
            c == item.contact or not any(c.get(k) and c.get(k) == item.contact.get(k) for k in ("user_id", "wa_id"))
            for c in self.value["contacts"]
        )

    def add(self, item: Item) -> None:
        if not self.value:
            metadata = {
                "display_phone_number": self.number.display,
                "phone_number_id": self.number.phone_number_id,
            }
            self.value |= {"messaging_product": "whatsapp", "metadata": metadata}
            self.has_people = item.contact is not None
        if item.contact is not None and item.contact not in self.value.setdefault("contacts", []):
            self.value["contacts"].append(item.contact)
        self.value.setdefault(item.kind, []).append(item.element)


def _inbound(
    wamid: str, who: Who, at: datetime, content: Json, number: Number, profile: Mapping[str, str] | None,
    *, reply_to: str | None = None, group_id: str | None = None,
) -> Item:  # fmt: skip
    element = {"id": wamid, "timestamp": _seconds(at)} | who.named("from_user_id", "from") | content
    element |= _present({"group_id": group_id, "context": {"id": reply_to} if reply_to else None})
    return Item(number, "messages", "messages", element, _contact(who, profile))


def _system(wamid: str, at: datetime, sender: Json, system: Json, number: Number) -> Item:
    element = sender | {"id": wamid, "timestamp": _seconds(at), "type": "system", "system": system}
    return Item(number, "messages", "messages", element)


def _contact(who: Who, profile: Mapping[str, str] | None) -> Json | None:
    return None if profile is None else {"profile": dict(profile)} | who.named("user_id", "wa_id")


def _seconds(at: datetime) -> str:
    return str(int(at.timestamp()))


def _present(values: Json) -> Json:
    return {key: value for key, value in values.items() if value is not None}
