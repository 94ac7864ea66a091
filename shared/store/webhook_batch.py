"""Parsed webhook bodies as the one JSON argument of `record_webhook_batch`: people, threads and numbers named once."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from shared.domain.ids import new_id
from shared.domain.message_status import RANK
from shared.whatsapp.errors import UNKNOWN, Then, rule_for
from shared.whatsapp.events import (
    AccountEvent,
    Call,
    Change,
    ContactFact,
    Edit,
    Event,
    IdentityChange,
    Kept,
    Message,
    ParsedBody,
    Person,
    Reaction,
    Revoke,
    Status,
    WebhookBody,
)

Row = dict[str, Any]
_OURS = {"message", "file", "reaction", "edit", "revoke", "identity", "fact"}  # kinds no status may pass for
_CALLBACK = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([1-9][0-9]{0,3})")  # what our sends carry
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ReceivedBody:
    """A body with what it parsed to. `is_stored`: Postgres has its bytes already."""

    body: WebhookBody
    parsed: ParsedBody
    is_stored: bool = False


def batch_of(bodies: Sequence[ReceivedBody]) -> Row:
    """Return the argument, shaped as the function's comment says; items are numbered through, body after body."""
    batch = _Batch()
    for received in bodies:
        batch.add(received)
    return batch.as_json()


@dataclass(slots=True)
class _Batch:
    numbers: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, int] = field(default_factory=dict)
    bodies: list[Row] = field(default_factory=list)
    changes: list[Row] = field(default_factory=list)
    people: dict[tuple[object, ...], Row] = field(default_factory=dict)
    threads: dict[tuple[object, ...], Row] = field(default_factory=dict)
    items: list[Row] = field(default_factory=list)
    account_items: list[Row] = field(default_factory=list)
    kept_items: list[Row] = field(default_factory=list)
    n: int = 0  # of the next item
    received_at: datetime = _LONG_AGO  # of the body being added
    received_text: str = ""

    def add(self, received: ReceivedBody) -> None:
        body, parsed = received.body, received.parsed
        self.received_at, self.received_text = body.received_at, body.received_at.isoformat()
        first_change = len(self.changes)
        for place, change in enumerate(parsed.changes):
            self._change(change, place, body)
        row: Row = {
            "id": str(body.id),
            "received_at": self.received_text,
            "items": parsed.items,
            "first": self.n,
            "events": len(parsed.events),
        }
        if not received.is_stored:
            row["raw"] = b64encode(body.raw).decode()
        if parsed.quarantined:
            row["quarantined"] = [{"item": q.item, "reason": q.reason} for q in parsed.quarantined]
        self.bodies.append(row)
        for event in parsed.events:
            self._event(event, self.changes[first_change + event.change], parsed.changes[event.change].waba_id)
            self.n += 1

    def as_json(self) -> Row:
        batch: Row = {
            "numbers": list(self.numbers),
            "accounts": list(self.accounts),
            "bodies": self.bodies,
            "changes": self.changes,
            "people": [{**row, "seen_at": row["seen_at"].isoformat()} for row in self.people.values()],
            "threads": list(self.threads.values()),
            "items": self.items,
        }
        if self.account_items:
            batch["account_items"] = self.account_items
        if self.kept_items:
            batch["kept_items"] = self.kept_items
        return batch

    def _change(self, change: Change, place: int, body: WebhookBody) -> None:
        row: Row = {
            "n": len(self.changes),
            # Follows from the body's, so that recording again finds the same row.
            "id": str(UUID(int=(body.id.int + place + 1) & (1 << 128) - 1)),
            "event_type": change.event_type,
            "payload": change.payload,
            "received_at": self.received_text,
            "body_id": str(body.id),
        }
        if change.phone_number_id:
            row["number"] = self.numbers.setdefault(change.phone_number_id, len(self.numbers))
        else:
            row["account"] = self.accounts.setdefault(change.waba_id or "", len(self.accounts))
        self.changes.append(row)

    def _event(self, event: Event, change: Row, waba_id: str | None) -> None:
        number, account = change.get("number"), change.get("account")
        if isinstance(event, AccountEvent):
            self.account_items.append(
                {
                    "n": self.n,
                    "change": change["n"],
                    "number": number,
                    "account": account,
                    "waba_id": waba_id,
                    "event": event.event,
                    "sent_at": event.sent_at.isoformat() if event.sent_at else None,
                }
            )
        elif number is None or isinstance(event, Kept):
            # What only has an effect on a number's customers has none without the number: it is kept.
            self.kept_items.append({"n": self.n, "change_id": change["id"], "number": number, "account": account})
        else:
            row = self._item(event, number)
            row["n"] = self.n
            row["number"] = number
            row["sent_at"] = event.sent_at.isoformat() if event.sent_at else self.received_text
            self.items.append(row)

    def _item(self, event: Event, number: int) -> Row:
        at = event.sent_at or self.received_at
        match event:
            case Status():
                return self._status(event, number, at)
            case Message():
                return self._message(event, number, at)
            case Reaction():
                payload = {"emoji": event.emoji, "direction": event.direction}
                return self._about(event, number, at, kind="reaction", wamid=event.target_wamid, payload=payload)
            case Edit():
                row = self._about(event, number, at, kind="edit", wamid=event.target_wamid, payload=event.payload)
                row["fields"]["edit"] = {"content": event.content, "payload": event.payload}
                return row
            case Revoke():
                return self._about(event, number, at, kind="revoke", wamid=event.target_wamid, payload=None)
            case Call():
                row = self._about(
                    event, number, at, kind=f"call_{event.event}"[:64], wamid=event.call_id, payload=event.payload
                )
                row["key"] = ""
                if event.person is not None:
                    called = event.direction == "inbound" and event.event == "connect"
                    row["fields"] |= _whose(event.person, by_customer=called)
                return row
            case ContactFact():
                return {
                    "kind": "fact",
                    "person": self._person(event.person, number, at, profile="profile"),
                    "fields": {event.attribute: [_ms(at), event.value]},
                }
            case IdentityChange():
                return self._identity(event, number, at)
        raise TypeError(f"no rows for {type(event).__name__}")

    def _status(self, event: Status, number: int, at: datetime) -> Row:
        kind = f"status_{event.status}" if event.status in _OURS else event.status
        row: Row = {"kind": kind[:64], "wamid": event.wamid, "key": event.participant}
        rank = RANK.get(event.status)
        if rank is not None:
            row["rank"] = rank
        fields: Row = {}
        if event.payload:
            fields["payload"] = event.payload
        if event.status == "failed":
            rule = UNKNOWN if event.error_code is None else rule_for(event.error_code)
            fields["error"] = {
                "code": event.error_code,
                "title": event.error_title,
                "reason": rule.reason,
                "sentence": rule.sentence,
            }
            if rule.then is not Then.NOTHING:
                fields["then"] = rule.then
        ours = _CALLBACK.fullmatch(event.callback_data or "")
        if ours:
            fields |= {"message_id": ours[1], "attempt": int(ours[2])}
        if fields:
            row["fields"] = fields
        if event.person is not None:
            row["person"] = self._person(event.person, number, at, profile="status_profile")
        return row

    def _message(self, event: Message, number: int, at: datetime) -> Row:
        fields: Row = {
            "id": str(new_id()),
            "direction": event.direction,
            "origin": event.origin,
            "message_type": event.message_type,
            "content": event.content,
            "payload": event.payload,
        }
        person = event.person
        row: Row = {"kind": "message", "wamid": event.wamid, "key": "", "fields": fields}
        if person is not None:
            fields["user_id"] = person.user_id
            fields["wa_id"] = person.wa_id
            row["person"] = self._person(person, number, at, profile="profile")
        if event.reply_to_wamid:
            fields["reply_to"] = event.reply_to_wamid
        if event.direction == "outbound":
            row["rank"] = RANK.get(event.status or "sent", RANK["sent"])
        if event.media is not None:
            media = event.media
            fields["media"] = {name: getattr(media, name) for name in media.__slots__}
        if person is None and event.group_id is None:
            # History sends a file of ours without saying to whom: it waits for the message it stands for.
            return row | {"kind": "file"}
        row["thread"] = self._thread(number, row.get("person"), event.group_id)
        return row

    def _about(
        self,
        event: Reaction | Edit | Revoke | Call,
        number: int,
        at: datetime,
        *,
        kind: str,
        wamid: str,
        payload: Row | None,
    ) -> Row:
        group_id = None if isinstance(event, Call) else event.group_id
        fields: Row = {}
        row: Row = {"kind": kind, "wamid": wamid, "key": event.call_id if isinstance(event, Call) else event.wamid}
        if payload is not None:
            fields["payload"] = payload
        if event.person is not None:
            row["person"] = self._person(event.person, number, at, profile="profile")
            if event.direction == "inbound" and kind == "reaction":
                # What they do in a group opens no window in their own chat.
                fields |= _whose(event.person, by_customer=group_id is None)
        if event.person is not None or group_id:
            row["thread"] = self._thread(number, row.get("person"), group_id)
        row["fields"] = fields
        return row

    def _identity(self, event: IdentityChange, number: int, at: datetime) -> Row:
        fields: Row = {
            "previous_user_id": event.previous_user_id,
            "previous_wa_id": event.previous_wa_id,
            "user_id": event.person.user_id,
            "wa_id": event.person.wa_id,
        }
        row: Row = {"kind": "identity", "key": event.wamid, "fields": fields}
        # A change is a sighting of both its ends.
        if event.person.user_id or event.person.wa_id:
            row["person"] = self._person(event.person, number, at)
        if event.previous_user_id or event.previous_wa_id:
            before = Person(user_id=event.previous_user_id, wa_id=event.previous_wa_id)
            fields["previous_person"] = self._person(before, number, at)
        return row

    def _person(self, person: Person, number: int, at: datetime, *, profile: str | None = None) -> int:
        """Return the person's place, adding it; those without a user id are told apart by time, which decides."""
        key = (number, person.user_id, person.wa_id, person.parent_user_id, at if person.user_id is None else None)
        row = self.people.get(key)
        if row is None:
            row = {
                "n": len(self.people),
                "number": number,
                "id": str(new_id()),
                "user_id": person.user_id,
                "wa_id": person.wa_id,
                "parent_user_id": person.parent_user_id,
                "seen_at": at,
            }
            self.people[key] = row
        elif at < row["seen_at"]:
            row["seen_at"] = at
        if profile and (person.name or person.username):
            fact = [_ms(at), person.name or "", person.username or ""]
            facts = row.setdefault("facts", {})
            if profile not in facts or _is_later(fact, facts[profile]):
                facts[profile] = fact
        place: int = row["n"]
        return place

    def _thread(self, number: int, person: int | None, group_id: str | None) -> int:
        key = (number, group_id or person)
        row = self.threads.get(key)
        if row is None:
            row = {"n": len(self.threads), "number": number, "id": str(new_id())}
            if group_id:
                row["group_id"] = group_id
            else:
                row["person"] = person
            self.threads[key] = row
        place: int = row["n"]
        return place


def _whose(person: Person, *, by_customer: bool) -> Row:
    return {"user_id": person.user_id, "wa_id": person.wa_id, "by_customer": by_customer}


def _is_later(fact: list[Any], other: list[Any]) -> bool:
    """Say which of two facts holds, exactly as app.is_later_fact does: by time, then by the rest as JSON text."""
    if fact[0] != other[0]:
        return bool(fact[0] > other[0])
    return json.dumps(fact[1:], ensure_ascii=False) > json.dumps(other[1:], ensure_ascii=False)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
