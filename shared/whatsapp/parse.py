"""Webhook bytes to typed events. Total and lenient: whatever arrives, every item comes out as something."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.whatsapp.events import Change, InboundMessage, ParsedBody, Quarantined

# Lists whose elements are items, each accounted for. History nests its messages in threads.
_ITEM_LISTS = (
    "messages",
    "statuses",
    "message_echoes",
    "calls",
    "errors",
    "user_preferences",
    "state_sync",
    "user_actions",
)

# Messages that are facts about another message or person, not turns in the chat: kept raw with their change.
_NOT_A_TURN = frozenset({"reaction", "edit", "revoke", "system", "request_welcome"})

# Source: Meta, "Business-scoped user IDs", read 2026-11-22.
_BSUID = re.compile(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}")
_WA_ID = re.compile(r"\+?[0-9]{5,20}")

_MILLISECONDS_FROM = 10**12  # "values >= 1e12 are milliseconds", seen in production by others
_LATEST = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()
_AHEAD = timedelta(days=1)  # further ahead than any clock error: such a message would sit on top for ever
_TEXT_LIMIT = 512  # characters of an id we are ready to index; Meta's are far shorter

Json = dict[str, Any]


def parse_webhook(raw: bytes, *, now: datetime) -> ParsedBody:
    """Parse one webhook body.

    `now`: when it was received, aware UTC; a message from more than a day ahead of it is quarantined.
    Never raises: what cannot be read is one quarantined item.
    Source: Meta, webhook reference, read 2026-11-22; counted as the fixtures' manifest does.
    """
    try:
        body = json.loads(raw, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        return _unreadable(f"not_json: {type(error).__name__}")
    if not isinstance(body, dict):
        return _unreadable("not_an_object")
    if body.get("object") != "whatsapp_business_account":
        return _unreadable("unknown_object")
    entries = body.get("entry")
    if not isinstance(entries, list) or not entries:
        return _unreadable("no_entry")
    reading = _Reading(now)
    try:
        for entry in entries:
            reading.entry(entry)
    except RecursionError:
        return _unreadable("nested_too_deep")
    return ParsedBody(
        items=reading.items,
        changes=tuple(reading.changes),
        messages=tuple(reading.messages),
        quarantined=tuple(reading.quarantined),
    )


def _unreadable(reason: str) -> ParsedBody:
    return ParsedBody(items=1, quarantined=(Quarantined(item=0, reason=reason),))


@dataclass(slots=True)
class _Reading:
    now: datetime
    items: int = 0
    changes: list[Change] = field(default_factory=list)
    messages: list[InboundMessage] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)

    def entry(self, entry: object) -> None:
        changes = entry.get("changes") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(changes, list) or not changes:
            self._quarantine("no_changes")
            return
        for change in changes:
            self.change(change, waba_id=_text(entry.get("id")))

    def change(self, change: object, *, waba_id: str | None) -> None:
        if not isinstance(change, dict):
            self._quarantine("change_not_an_object")
            return
        name, value = _text(change.get("field")), change.get("value")
        if not name:
            self._quarantine_all(value, "no_field")
            return
        if not isinstance(value, dict):
            self._quarantine("no_value")
            return
        metadata = value.get("metadata")
        phone_number_id = _text(metadata.get("phone_number_id")) if isinstance(metadata, dict) else None
        if name == "messages" and not phone_number_id:
            self._quarantine_all(value, "no_phone_number_id")
            return
        self._items(name, value, phone_number_id or None, waba_id)

    def _items(self, name: str, value: Json, phone_number_id: str | None, waba_id: str | None) -> None:
        kept = 0
        for kind, item in _items_of(value):
            if name == "messages" and kind == "messages":
                outcome = self._message(item, value)
            elif kind == "malformed":
                outcome = f"{item}_not_a_list"
            elif kind == "statuses" and not (isinstance(item, dict) and _text(item.get("id"))):
                outcome = "status_without_id"
            else:
                outcome = None
            if isinstance(outcome, str):
                self._quarantine(outcome)
                continue
            if outcome is None:
                kept += 1
            else:
                self.messages.append(outcome)
            self.items += 1
        self.changes.append(
            Change(
                event_type=name,
                phone_number_id=phone_number_id,
                waba_id=waba_id,
                payload=_clean_object(value),
                kept=kept,
            )
        )

    def _message(self, item: object, value: Json) -> InboundMessage | str | None:
        """Return the message, a reason to quarantine it, or None when its change keeps it."""
        if not isinstance(item, dict):
            return "message_not_an_object"
        wamid = _text(item.get("id"))
        if not wamid or len(wamid) > _TEXT_LIMIT:
            return "message_without_id"
        kind = _text(item.get("type"))
        if kind in _NOT_A_TURN:
            return None
        contact = _contact_of(item, value)
        user_id = _matching(_BSUID, item.get("from_user_id"), contact.get("user_id"))
        wa_id = _matching(_WA_ID, item.get("from"), contact.get("wa_id"))
        if not user_id and not wa_id:
            return "message_without_sender"
        sent_at = _time(item.get("timestamp"))
        if sent_at is not None and sent_at > self.now + _AHEAD:
            return "time_a_day_ahead"
        text = item.get("text")
        is_text = kind == "text"
        profile = contact.get("profile")
        profile = profile if isinstance(profile, dict) else {}
        context = item.get("context")
        return InboundMessage(
            change=len(self.changes),
            item=self.items,
            wamid=_clean(wamid),
            message_type="text" if is_text else "unsupported",
            content=_text(text.get("body")) if is_text and isinstance(text, dict) else None,
            payload=_clean_object(item),
            sent_at=sent_at,
            reply_to_wamid=_text(context.get("id")) or None if isinstance(context, dict) else None,
            sender_user_id=user_id,
            sender_wa_id=wa_id.lstrip("+") if wa_id else None,
            name=_text(profile.get("name")) or None,
            username=(_text(profile.get("username")) or "").lstrip("@") or None,
            group_id=(_text(item.get("group_id")) or "")[:_TEXT_LIMIT] or None,
        )

    def _quarantine(self, reason: str) -> None:
        self.quarantined.append(Quarantined(item=self.items, reason=reason))
        self.items += 1

    def _quarantine_all(self, value: object, reason: str) -> None:
        for _ in _items_of(value if isinstance(value, dict) else {}):
            self._quarantine(reason)


def _items_of(value: Json) -> Iterator[tuple[str, object]]:
    """Yield each item of a change as (list name, element); a change without any is one item itself."""
    found = False
    for name in _ITEM_LISTS:
        elements = value.get(name)
        if isinstance(elements, list):
            for element in elements:
                found = True
                yield name, element
        elif elements is not None:
            found = True
            yield "malformed", name
    for element in _history_messages(value.get("history")):
        found = True
        yield "history", element
    if not found:
        yield "change", value


def _history_messages(history: object) -> Iterator[object]:
    for chunk in history if isinstance(history, list) else ():
        threads = chunk.get("threads") if isinstance(chunk, dict) else None
        for thread in threads if isinstance(threads, list) else ():
            messages = thread.get("messages") if isinstance(thread, dict) else None
            yield from messages if isinstance(messages, list) else ()


def _contact_of(message: Json, value: Json) -> Json:
    """Find the sender among `contacts`, which is not index-aligned with `messages`."""
    contacts = value.get("contacts")
    candidates = [c for c in contacts if isinstance(c, dict)] if isinstance(contacts, list) else []
    for key, theirs in (("from_user_id", "user_id"), ("from", "wa_id")):
        wanted = message.get(key)
        for contact in candidates:
            if wanted and contact.get(theirs) == wanted:
                return contact
    has_sender = message.get("from_user_id") or message.get("from")
    return candidates[0] if len(candidates) == 1 and not has_sender else {}


def _matching(pattern: re.Pattern[str], *values: object) -> str | None:
    """Return the first value of that shape: an id of another shape is no id (the payload keeps it)."""
    return next((v for v in values if isinstance(v, str) and pattern.fullmatch(v)), None)


def _time(value: object) -> datetime | None:
    """Read a Meta timestamp: string or number, seconds or milliseconds."""
    try:
        seconds = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        if seconds >= _MILLISECONDS_FROM:
            seconds /= 1000
        return datetime.fromtimestamp(min(seconds, _LATEST), UTC) if seconds > 0 else None
    except (ValueError, OverflowError, OSError):
        return None


def _text(value: object) -> str | None:
    """Return a clean string; numbers are coerced, since Meta has sent both."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _clean(text: str) -> str:
    """Replace what PostgreSQL refuses (U+0000, lone surrogates) by U+FFFD; the raw bytes are kept elsewhere."""
    return text if text.isascii() and "\x00" not in text else _UNSTORABLE.sub("\ufffd", text)


def _clean_object(value: Json) -> Json:
    cleaned: Json = _clean_json(value)
    return cleaned


def _clean_json(value: Any) -> Any:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, dict):
        return {_clean(key): _clean_json(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_clean_json(element) for element in value]
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("number out of range")
    return number
