"""Webhook bytes to typed events. Total and lenient: whatever arrives, every item comes out as exactly one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from shared.whatsapp.accounts import change_time, is_about_account, read_account_event, waba_of
from shared.whatsapp.calls import read_call, read_call_status
from shared.whatsapp.delivery import read_status
from shared.whatsapp.events import Change, Event, Kept, ParsedBody, Quarantined
from shared.whatsapp.facts import read_address_book, read_preference
from shared.whatsapp.history import read_follow_up, read_past, was_declined
from shared.whatsapp.scope import Scope
from shared.whatsapp.turns import read_echo, read_message
from shared.whatsapp.wire import Json, decode, elements, identifier, mapping, time

# Lists whose elements are items, each accounted for. History nests its messages in threads.
ITEM_LISTS = (
    "messages",
    "statuses",
    "message_echoes",
    "calls",
    "errors",
    "user_preferences",
    "state_sync",
    "user_actions",
)

Reader = Callable[[Json, Scope], Event | str]

# field → list → what an element is called when it cannot be placed, and who reads it. Other lists of these fields are
# kept. All of these are about a number's chats: without the number they are nobody's.
_READERS: dict[str, dict[str, tuple[str, Reader]]] = {
    "messages": {"messages": ("message", read_message), "statuses": ("status", read_status)},
    "smb_message_echoes": {"message_echoes": ("message", read_echo)},
    "history": {"history": ("message", read_past), "messages": ("message", read_follow_up)},
    "user_preferences": {"user_preferences": ("preference", read_preference)},
    "smb_app_state_sync": {"state_sync": ("contact", read_address_book)},
    "calls": {"calls": ("call", read_call), "statuses": ("call", read_call_status)},
}

NOT_A_LIST = object()  # stands for what should have been a list of items: one item, whatever it is

_AHEAD = timedelta(days=1)  # further ahead than any clock error: such a message would sit on top for ever


def parse_webhook(raw: bytes, *, now: datetime) -> ParsedBody:
    """Parse one webhook body.

    `now`: when it was received, aware UTC; whatever has an effect and is from more than a day ahead is quarantined.
    Payloads are parts of one decoded body, shared between a change and its events: read them, never change them.
    Never raises: what cannot be read is one quarantined item.
    Source: Meta, webhook reference, read 2026-11-22; counted as the fixtures' manifest does.
    """
    body = decode(raw)
    if isinstance(body, str):
        return _unreadable(body)
    if body.get("object") != "whatsapp_business_account":
        return _unreadable("unknown_object")
    entries = body.get("entry")
    if not isinstance(entries, list) or not entries:
        return _unreadable("no_entry")
    reading = _Reading(latest=now + _AHEAD)
    for entry in entries:
        reading.read_entry(entry)
    return ParsedBody(reading.items, tuple(reading.changes), tuple(reading.events), tuple(reading.quarantined))


def _unreadable(reason: str) -> ParsedBody:
    return ParsedBody(items=1, quarantined=(Quarantined(item=0, reason=reason),))


class _Reading:
    __slots__ = ("changes", "events", "items", "latest", "quarantined")

    def __init__(self, *, latest: datetime) -> None:
        self.latest = latest
        self.items = 0
        self.changes: list[Change] = []
        self.events: list[Event] = []
        self.quarantined: list[Quarantined] = []

    def read_entry(self, entry: object) -> None:
        changes = entry.get("changes") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(changes, list) or not changes:
            self._quarantine("no_changes")
            return
        for change in changes:
            self._read_change(change, entry)

    def _read_change(self, change: object, entry: Json) -> None:
        if not isinstance(change, dict):
            self._quarantine("change_not_an_object")
            return
        field, value = identifier(change.get("field")), change.get("value")
        if field is None:
            self._quarantine_all(value, "no_field")
            return
        if not isinstance(value, dict):
            self._quarantine("no_value")
            return
        phone_number_id = identifier(mapping(value.get("metadata")).get("phone_number_id"))
        if field in _READERS and phone_number_id is None:
            self._quarantine_all(value, "no_phone_number_id")
            return
        scope = Scope(value, change=len(self.changes))
        self.changes.append(Change(field, phone_number_id, waba_of(value, entry.get("id")), value))
        if is_about_account(field):
            self._read_account_change(value, scope, entry)
        else:
            self._read_items(field, value, scope, entry)

    def _read_items(self, field: str, value: Json, scope: Scope, entry: Json) -> None:
        readers = _READERS.get(field)
        for name, element, thread in items_of(value):
            scope.item = self.items
            if element is NOT_A_LIST:
                self._quarantine(f"{name}_not_a_list")
            elif readers is None or name not in readers:
                self._keep(_kind(field, name, value), element, scope, entry)
            else:
                if thread is not None and thread is not scope.thread:
                    scope.enter(thread)
                self._place(element, *readers[name], scope)

    def _place(self, element: object, noun: str, read: Reader, scope: Scope) -> None:
        outcome = read(element, scope) if isinstance(element, dict) else f"{noun}_not_an_object"
        if isinstance(outcome, str):
            self._quarantine(outcome)
        else:
            self._add(outcome)

    def _read_account_change(self, value: Json, scope: Scope, entry: Json) -> None:
        """The change is the event, however many items a list of errors beside it makes: the first stands for it."""
        (_, *others) = items_of(value)
        scope.item = self.items
        self._add(read_account_event(value, scope, entry_time=time(entry.get("time"))))
        for name, element, _ in others:
            scope.item = self.items
            self._keep(name, element, scope, entry)

    def _keep(self, kind: str, element: object, scope: Scope, entry: Json) -> None:
        sent_at = time(mapping(element).get("timestamp")) or time(entry.get("time")) or change_time(scope.value)
        self._add(Kept(scope.change, scope.item, kind, sent_at))

    def _add(self, event: Event) -> None:
        if event.sent_at is not None and event.sent_at > self.latest and not isinstance(event, Kept):
            self._quarantine("time_a_day_ahead")
            return
        self.events.append(event)
        self.items += 1

    def _quarantine(self, reason: str) -> None:
        self.quarantined.append(Quarantined(item=self.items, reason=reason))
        self.items += 1

    def _quarantine_all(self, value: object, reason: str) -> None:
        for _ in items_of(mapping(value)):
            self._quarantine(reason)


def _kind(field: str, name: str, value: Json) -> str:
    """Name what is kept: the list it stood in, or the field where that is all we know of it."""
    if field not in _READERS:
        return field
    if name != "change":
        return name
    return "history_declined" if field == "history" and was_declined(value) else field


def items_of(value: Json) -> list[tuple[str, object, Json | None]]:
    """Return each item of a change as (list name, element, thread); a change without any is one item itself."""
    found: list[tuple[str, object, Json | None]] = []
    for name in ITEM_LISTS:
        listed = value.get(name)
        if isinstance(listed, list):
            for element in listed:
                found.append((name, element, None))
        elif listed is not None:
            found.append((name, NOT_A_LIST, None))
    if "history" in value:
        found.extend(_history_messages(value["history"]))
    return found or [("change", value, None)]


def _history_messages(history: object) -> Iterator[tuple[str, object, Json]]:
    for chunk in elements(history):
        for thread in elements(mapping(chunk).get("threads")):
            for message in elements(mapping(thread).get("messages")):
                yield "history", message, thread


def elements_of(raw: bytes) -> list[tuple[str, object]]:
    """Return each item of a body as (path, element as Meta sent it), placed as `parse_webhook` numbers them.

    For people who look at an item that could not be recorded. Never raises: a body that cannot be read is one item.
    """
    body = decode(raw)
    entries = body.get("entry") if isinstance(body, dict) else None
    if not isinstance(body, dict) or body.get("object") != "whatsapp_business_account" or not elements(entries):
        return [("body", body if isinstance(body, dict) else None)]
    found: list[tuple[str, object]] = []
    for n, entry in enumerate(elements(entries)):
        changes = elements(mapping(entry).get("changes"))
        if not changes:
            found.append((f"entry[{n}]", entry))
        for m, change in enumerate(changes):
            found.extend(_elements_of_change(change, f"entry[{n}].changes[{m}]"))
    return found


def _elements_of_change(change: object, path: str) -> Iterator[tuple[str, object]]:
    places: dict[str, int] = {}
    for name, element, _ in items_of(mapping(mapping(change).get("value"))):
        if name == "change" or element is NOT_A_LIST:
            yield path, change
        else:
            places[name] = places.get(name, -1) + 1
            yield f"{path}.value.{name}[{places[name]}]", element
