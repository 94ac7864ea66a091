"""Take an erased person's items out of what Meta sent, and leave everybody else's as it was.

Whose an item is, is decided as recording does: by the ids it names, completed by the only contact beside it; by the
message it is about; up to the time of the erasure. What others wrote about the person is theirs and stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.whatsapp.accounts import change_time, is_about_account, waba_of
from shared.whatsapp.parse import ITEM_LISTS, NOT_A_LIST, items_of
from shared.whatsapp.turns import group_of
from shared.whatsapp.wire import Json, decode, elements, identifier, mapping, phone, text, time

# Where an item says whom it is about, besides its own scalars. Content (text, contacts, …) is not among them.
_ABOUT = ("system", "contact", "reaction", "edit", "revoke")
_WHO = (
    "from",
    "from_user_id",
    "to",
    "to_user_id",
    "wa_id",
    "user_id",
    "recipient_id",
    "recipient_user_id",
    "recipient_participant_id",
    "participant_recipient_id",
    "recipient_participant_user_id",
)


@dataclass(frozen=True, slots=True)
class Erased:
    """Whom to take out. `ids`: theirs, each with the time up to which what names it is theirs.

    `wamids`: of their messages, and of what was done to them. `others`: user ids of people who had one of their phone
    numbers at another time.
    """

    ids: Mapping[str, datetime]
    wamids: frozenset[str]
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Redacted:
    """A body without them. `raw`: b'' when nothing is left. `dropped`: places of the items that are gone, from 0."""

    raw: bytes
    dropped: tuple[int, ...] = ()
    wamids: frozenset[tuple[str, str]] = frozenset()  # (phone_number_id, wamid) of items known by their ids alone


def redact_body(
    raw: bytes, erased: Erased, *, received_at: datetime, numbers: frozenset[str], accounts: frozenset[str]
) -> Redacted | None:
    """Return a body without the person's items, None when it holds none.

    `numbers`, `accounts`: phone number and WABA ids of the workspace that erases; other changes are not touched, since
    the person may be somebody else's customer too. What cannot be read goes as a whole if it names them anywhere.
    Never raises.
    """
    body = _read(raw)
    if body is None:
        return Redacted(b"", (0,)) if _names_somewhere(raw, erased) else None
    dropped: list[int] = []
    found: set[tuple[str, str]] = set()
    place, is_changed, left = 0, False, []
    for entry in body["entry"]:
        changes = entry.get("changes") if isinstance(entry, dict) else None
        if not isinstance(changes, list) or not changes:
            if _mentions(entry, erased):
                is_changed = True
                dropped.append(place)
            else:
                left.append(entry)
            place += 1
            continue
        kept = []
        for change in changes:
            value = change.get("value") if isinstance(change, dict) else None
            count = len(items_of(mapping(value)))
            outcome = None
            if not isinstance(value, dict):
                outcome = _Outcome(None, (0,)) if _mentions(change, erased) else None
            elif _concerns(value, entry, numbers=numbers, accounts=accounts):
                at = time(entry.get("time")) or received_at
                outcome = _redact(text(change.get("field")) or "", value, erased, received_at=received_at, entry_at=at)
            if outcome is None:
                kept.append(change)
            else:
                is_changed = True
                dropped += [place + n for n in outcome.dropped]
                number = text(mapping(mapping(value).get("metadata")).get("phone_number_id")) or ""
                found |= {(number, wamid) for wamid in outcome.wamids}
                if outcome.value is not None:
                    kept.append({**change, "value": outcome.value})
            place += count
        if kept:
            left.append({**entry, "changes": kept})
    if not is_changed:
        return None
    return Redacted(_written({**body, "entry": left}) if left else b"", tuple(dropped), frozenset(found))


def redact_change(field: str, value: Json, erased: Erased, *, received_at: datetime) -> Json | None:
    """Return one change's value without the person's items, {} when nothing is left, None when it holds none."""
    outcome = _redact(field, value, erased, received_at=received_at, entry_at=received_at)
    return None if outcome is None else outcome.value or {}


def _read(raw: bytes) -> Json | None:
    if isinstance(decode(raw), str):
        return None
    # Not what decode returned: it has replaced what PostgreSQL cannot store, and others' bytes are to stay theirs.
    body: Json = json.loads(raw.decode(json.detect_encoding(raw), "surrogatepass"))
    is_metas = body.get("object") == "whatsapp_business_account" and isinstance(body.get("entry"), list)
    return body if is_metas and body["entry"] else None


def _written(body: Json) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()  # escapes to ASCII, so lone surrogates survive


def _concerns(value: Json, entry: Json, *, numbers: frozenset[str], accounts: frozenset[str]) -> bool:
    number = text(mapping(value.get("metadata")).get("phone_number_id"))
    return number in numbers if number else waba_of(value, entry.get("id")) in accounts


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Json | None  # None: nothing is left
    dropped: tuple[int, ...]  # places among the change's items
    wamids: frozenset[str] = frozenset()


def _redact(field: str, value: Json, erased: Erased, *, received_at: datetime, entry_at: datetime) -> _Outcome | None:
    if is_about_account(field):
        return _redact_account(value, erased, at=change_time(value) or entry_at)
    return _Chats(value, erased, received_at).redacted()


def _redact_account(value: Json, erased: Erased, *, at: datetime) -> _Outcome | None:
    """An account's change is one event: those it lists are taken off the list."""
    places = tuple(range(len(items_of(value))))
    if _hits(_scalars(value), erased, at):
        return _Outcome(None, places)
    pruned = _pruned(value, erased, at)
    return None if pruned == value else _Outcome(pruned, ())


class _Chats:
    """A change about a number's chats."""

    def __init__(self, value: Json, erased: Erased, received_at: datetime) -> None:
        self._value = value
        self._erased = erased
        self._received_at = received_at
        shown = text(mapping(value.get("metadata")).get("display_phone_number")) or ""
        self._business = "".join(digit for digit in shown if digit in "0123456789")
        contacts = [contact for contact in elements(value.get("contacts")) if isinstance(contact, dict)]
        self._only_contact = _scalars(contacts[0]) if len(contacts) == 1 else set()

    def redacted(self) -> _Outcome | None:
        items = items_of(self._value)
        verdicts = [self._is_theirs(name, element, thread) for name, element, thread in items]
        if all(verdicts):
            return _Outcome(None, tuple(range(len(items))), self._wamids(items, verdicts))
        value = self._without(iter(verdicts))
        others: set[str] = set()
        for (_, element, _), gone in zip(items, verdicts, strict=True):
            others |= set() if gone else _about(element)
        contacts = elements(value.get("contacts"))
        kept = [{} if self._is_their_contact(contact, others) else contact for contact in contacts]
        if kept != contacts:
            # An empty one keeps the place: with one contact fewer, an item that names nobody would be about the other.
            value["contacts"] = kept
        if value == self._value:
            return None
        dropped = tuple(place for place, gone in enumerate(verdicts) if gone)
        return _Outcome(value, dropped, self._wamids(items, verdicts))

    def _is_theirs(self, name: str, element: object, thread: Json | None) -> bool:
        if name == "change":
            return _hits(_scalars(self._value), self._erased, self._received_at)
        if not isinstance(element, dict):  # no item anybody can read
            return _mentions(self._value.get(name) if element is NOT_A_LIST else element, self._erased)
        told = time(element.get("timestamp")) or time(mapping(element.get("metadata")).get("timestamp"))
        at = told or self._received_at
        about = _about(element)
        if not self._erased.wamids.isdisjoint(about) or _hits(about, self._erased, at):
            return True
        if thread is not None and not group_of(element):
            return _hits(_scalars(thread) | _scalars(mapping(thread.get("context"))), self._erased, at)
        names_nobody = name != "errors" and not any(
            element.get(key) and phone(element.get(key)) != self._business for key in _WHO
        )
        return names_nobody and _hits(self._only_contact, self._erased, at)

    def _is_their_contact(self, contact: object, others: set[str]) -> bool:
        ids = _scalars(contact) if isinstance(contact, dict) else set()
        return _hits(ids, self._erased, None) and ids.isdisjoint(others)

    def _wamids(self, items: list[tuple[str, object, Json | None]], verdicts: list[bool]) -> frozenset[str]:
        """Return the messages and calls that items which are gone were about, where those are new to us."""
        gone = [mapping(element) for (_, element, _), is_gone in zip(items, verdicts, strict=True) if is_gone]
        # What became of a message to a group is not told of one person's message.
        ids = {identifier(item.get("id")) for item in gone if item.get("recipient_type") != "group"}
        return frozenset(wamid for wamid in ids if wamid and wamid not in self._erased.wamids)

    def _without(self, verdicts: Iterator[bool]) -> Json:
        """Return the value without the items whose verdict is so; verdicts come in the order items are counted."""
        value = dict(self._value)
        has_items = False
        for name in ITEM_LISTS:
            listed = value.get(name)
            if isinstance(listed, list):
                has_items = has_items or bool(listed)
                kept = [self._without_context(element) for element in listed if not next(verdicts)]
                if kept or not listed:
                    value[name] = kept
                else:
                    del value[name]
            elif listed is not None:
                has_items = True
                if next(verdicts):
                    del value[name]
        if "history" in value:
            history, had_any = self._history(value["history"], verdicts)
            has_items = has_items or had_any
            value["history"] = history
            if not history and had_any:
                del value["history"]
        return value if has_items else _pruned(value, self._erased, self._received_at)

    def _history(self, history: object, verdicts: Iterator[bool]) -> tuple[Any, bool]:
        if not isinstance(history, list):
            return history, False
        chunks, had_any = [], False
        for chunk in history:
            threads = mapping(chunk).get("threads")
            if not isinstance(threads, list) or not threads:
                chunks.append(chunk)
                continue
            kept_threads = []
            for thread in threads:
                messages = elements(mapping(thread).get("messages"))
                had_any = had_any or bool(messages)
                kept = [self._without_context(message) for message in messages if not next(verdicts)]
                if kept:
                    kept_threads.append({**thread, "messages": kept})
                elif not messages and not _mentions(thread, self._erased):
                    kept_threads.append(thread)
            if kept_threads or chunk.get("errors"):
                chunks.append({**chunk, "threads": kept_threads})
        return chunks, had_any

    def _without_context(self, element: Any) -> Any:
        """An answer of somebody else's to a message that is gone: what it says stays, whom it quotes does not."""
        context = element.get("context") if isinstance(element, dict) else None
        if not isinstance(context, dict) or not _mentions(context, self._erased):
            return element
        return {key: part for key, part in element.items() if key != "context"}


def _about(element: object) -> set[str]:
    """Return whatever an item may name its person, or the message it is about, by."""
    if not isinstance(element, dict):
        return set()
    found = _scalars(element)
    for key in _ABOUT:
        found |= _scalars(mapping(element.get(key)))
    # "User A changed from OLD to NEW": sometimes the only place that says who they were.
    sentence = text(mapping(element.get("system")).get("body")) or ""
    return found | {word.rstrip(".").removeprefix("+") for word in sentence.split()}


def _scalars(value: Json) -> set[str]:
    return {found.removeprefix("+") for part in value.values() if (found := text(part))}


def _hits(names: set[str], erased: Erased, at: datetime | None) -> bool:
    """Say whether these name the person. `at`: of what names them; None: whenever.

    Their phone number beside the user id of somebody who had it before or since names that somebody.
    """
    hits = {name for name in names if name in erased.ids and (at is None or at <= erased.ids[name])}
    if hits and not erased.others.isdisjoint(names):
        return any("." in hit for hit in hits)  # user ids have one, phone numbers none
    return bool(hits)


def _mentions(value: object, erased: Erased) -> bool:
    """Say whether any string within names the person or a message of theirs."""
    level = [value]
    while level:
        part = level.pop()
        if isinstance(part, dict):
            level += part.values()
        elif isinstance(part, list):
            level += part
        elif (found := text(part)) and ((found := found.removeprefix("+")) in erased.ids or found in erased.wamids):
            return True
    return False


def _names_somewhere(raw: bytes, erased: Erased) -> bool:
    return any(needle.encode() in raw for needle in (*erased.ids, *erased.wamids))


def _pruned(value: Any, erased: Erased, at: datetime) -> Any:
    """Return a value without the objects in it that name the person themselves."""
    if isinstance(value, dict):
        return {
            key: _pruned(part, erased, at)
            for key, part in value.items()
            if not (isinstance(part, dict) and _hits(_scalars(part), erased, at))
        }
    if isinstance(value, list):
        return [
            _pruned(part, erased, at)
            for part in value
            if not (isinstance(part, dict) and _hits(_scalars(part), erased, at))
            and not (isinstance(part, str) and _hits({part.removeprefix("+")}, erased, at))
        ]
    return value
