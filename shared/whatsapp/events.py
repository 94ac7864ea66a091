"""What a webhook body holds once parsed: changes, and every item in them as a typed event.

Every item of a body is exactly one event, counted as the fixtures' manifest does. Texts are sanitised: PostgreSQL
stores neither U+0000 nor lone surrogates. Times are aware UTC; None where Meta sent none that can be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

Origin = Literal[
    "live",  # written now, by the customer or by us through the API
    "app",  # written by staff in the WhatsApp Business app (an echo)
    "history",  # from before the number was connected
]
Direction = Literal["inbound", "outbound"]

# Meta's types that are turns in a chat, as we name them; `unknown` stands for all that appear later.
MESSAGE_TYPES = frozenset(
    {
        "text",
        "image",
        "audio",
        "video",
        "document",
        "sticker",
        "location",
        "contacts",
        "interactive",
        "button",
        "order",
        "unsupported",
        "media_placeholder",  # history only: the file follows by the same wamid
        "unknown",
        "template",  # outbound only
    }
)


@dataclass(frozen=True, slots=True)
class WebhookBody:
    """One POST from Meta, as it was received: the signed bytes, and the id and time we gave it (its key)."""

    id: UUID
    received_at: datetime
    raw: bytes
    traceparent: str


@dataclass(frozen=True, slots=True)
class Person:
    """The customer an item is about, by whatever ids Meta gave: at least one of user_id and wa_id."""

    user_id: str | None  # business-scoped user id: the identity
    wa_id: str | None  # phone-derived, digits only: an attribute that may pass to someone else
    parent_user_id: str | None = None
    name: str | None = None  # profile name
    username: str | None = None  # without the leading @


@dataclass(frozen=True, slots=True)
class Media:
    """A file that belongs to a message; fetched later by its Meta id."""

    meta_id: str
    kind: str  # image, audio, video, document, sticker
    mime_type: str | None = None
    sha256: str | None = None  # lower-case hex, whatever encoding Meta used
    filename: str | None = None  # as the sender named it: untrusted, never a path
    is_voice: bool = False
    is_animated: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A turn in a chat, in either direction."""

    change: int  # index into ParsedBody.changes
    item: int  # place among the body's items
    wamid: str
    direction: Direction
    origin: Origin
    message_type: str  # one of MESSAGE_TYPES
    content: str | None  # what a person would read: text, caption, chosen button, place, card names, order lines
    payload: dict[str, Any]  # as Meta sent it
    sent_at: datetime | None
    person: Person | None  # the customer: who wrote it, or to whom; None: to a group
    group_id: str | None = None
    reply_to_wamid: str | None = None
    media: Media | None = None
    status: str | None = None  # outbound history: what Meta says became of it, in our words


@dataclass(frozen=True, slots=True)
class Status:
    """What became of a message of ours."""

    change: int
    item: int
    wamid: str
    status: str  # sent, delivered, read, played, failed; anything else is recorded and moves nothing
    sent_at: datetime | None
    participant: str  # in a group: whose (user id, else phone); '' otherwise
    person: Person | None  # the recipient
    callback_data: str | None  # biz_opaque_callback_data: what we sent along
    error_code: int | None  # of the first error
    error_title: str | None
    payload: dict[str, Any]  # what is not above: pricing, conversation, errors, …


@dataclass(frozen=True, slots=True)
class Reaction:
    """An emoji on another message; emoji '' takes it back."""

    change: int
    item: int
    wamid: str  # the reaction's own
    target_wamid: str
    emoji: str
    direction: Direction
    sent_at: datetime | None
    person: Person | None
    origin: Origin = "live"
    group_id: str | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """A message's new content."""

    change: int
    item: int
    wamid: str  # the edit's own
    target_wamid: str
    content: str | None
    payload: dict[str, Any]  # the nested message: {type, <type>: {…}, context?}
    direction: Direction
    sent_at: datetime | None
    person: Person | None
    group_id: str | None = None


@dataclass(frozen=True, slots=True)
class Revoke:
    """A message deleted for everyone by its author."""

    change: int
    item: int
    wamid: str  # the revoke's own
    target_wamid: str
    direction: Direction
    sent_at: datetime | None
    person: Person | None
    group_id: str | None = None


@dataclass(frozen=True, slots=True)
class IdentityChange:
    """A person goes on under other ids: the only thing that joins two user ids."""

    change: int
    item: int
    wamid: str
    sent_at: datetime | None
    person: Person  # their new ids; user_id is None in the legacy shape, wa_id None for a username user
    previous_user_id: str | None  # named, or read out of the body's sentence
    previous_wa_id: str | None  # the old number


@dataclass(frozen=True, slots=True)
class ContactFact:
    """Something about a person of which the latest holds."""

    change: int
    item: int
    attribute: str  # marketing (stop, resume, signup), identity_hash, address_book (name; '' when removed)
    value: str
    sent_at: datetime | None
    person: Person
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A voice call's event. A customer's call opens the reply window as a message would."""

    change: int
    item: int
    call_id: str
    event: str  # connect, terminate, or a call status in lower case: ringing, accepted, rejected
    direction: Direction
    sent_at: datetime | None
    person: Person | None
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """Something about an account, a number, a template or a group: changes rows of ours, listed for operators."""

    change: int
    item: int
    event: str  # Meta's `event` (or `decision`, `type`), in lower case; '' where the field has none
    sent_at: datetime | None  # entry.time, or the item's own


@dataclass(frozen=True, slots=True)
class Kept:
    """An item without an effect: errors beside messages, clicks, welcome requests, fields nobody knows yet."""

    change: int
    item: int
    kind: str  # the list it stood in (errors, user_actions, …), the message's type, or the field
    sent_at: datetime | None


Event = Message | Status | Reaction | Edit | Revoke | IdentityChange | ContactFact | Call | AccountEvent | Kept


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An item we cannot place."""

    item: int
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """One of Meta's changes: the unit of routing."""

    event_type: str  # Meta's field
    phone_number_id: str | None  # the business number it is about; None: account-level
    waba_id: str | None
    payload: dict[str, Any]  # its value


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """Every item of one POST: len(events) + len(quarantined) == items."""

    items: int
    changes: tuple[Change, ...] = ()
    events: tuple[Event, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
