"""The customer's phone: what is typed and tapped here becomes signed webhooks; the page reads its state from here."""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from deploy.sandbox.deliveries import Deliveries, Delivery, TooManyPending
from deploy.sandbox.faults import FaultBoard
from deploy.sandbox.graph.media import kind_of, webhook_object
from deploy.sandbox.graph.people import country_of
from deploy.sandbox.graph.template_store import Template
from deploy.sandbox.graph.template_use import shown
from deploy.sandbox.graph.world import Sent, World
from deploy.sandbox.logs import utc_text
from deploy.sandbox.story import Channel, Customer
from deploy.sandbox.webhook_body import as_json, customer_message, first_wamid, new_wamid, serialise

MOST_MESSAGES = 2_000
MOST_SHOWN = 400
MOST_CUSTOMERS = 500
MOST_TEXT = 65_536  # more than WhatsApp lets a person type, enough to try a text that is too long
_PLAIN = ("location", "contacts", "interactive", "button", "reaction", "order")
# Nothing a person says, so none of these opens the window.
_NOT_WRITTEN = {"system", "edit", "revoke"}


class SentFile(BaseModel):
    """A file the customer sends, uploaded before with `POST /sandbox/media`."""

    model_config = ConfigDict(extra="forbid")

    id: str
    caption: str | None = None
    filename: str | None = None
    voice: bool = False


class TypedMessage(BaseModel):
    """What `POST /sandbox/messages` takes: exactly one kind of content."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    sender: Annotated[Customer, Field(alias="from")]
    phone_number_id: Annotated[str, Field(min_length=1, max_length=64)]
    text: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)] | None = None
    media: SentFile | None = None
    # As Meta writes them in the webhook.
    location: dict[str, Any] | None = None
    contacts: list[dict[str, Any]] | None = None
    interactive: dict[str, Any] | None = None
    button: dict[str, Any] | None = None
    reaction: dict[str, Any] | None = None
    order: dict[str, Any] | None = None
    reply_to: str | None = None
    wamid: Annotated[str, Field(min_length=1, max_length=400)] | None = None
    timestamp: AwareDatetime | None = None  # ISO 8601 with an offset, or unix seconds

    @model_validator(mode="after")
    def says_one_thing(self) -> TypedMessage:
        if sum(getattr(self, kind) is not None for kind in ("text", "media", *_PLAIN)) != 1:
            raise ValueError("a message has exactly one of text, media, " + ", ".join(_PLAIN))
        return self


class NewCustomer(BaseModel):
    """What `POST /sandbox/customers` takes; a customer without a number has a user id only."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=80)]
    wa_id: Annotated[str, Field(pattern=r"^[0-9]{5,20}$")] | None = None


class NotSent(Exception):
    """The message cannot leave this phone, for the reason given."""


@dataclass(frozen=True, slots=True)
class Bubble:
    """One message of a customer in a chat on the page."""

    wamid: str
    customer: str
    phone_number_id: str
    kind: str
    content: Any
    reply_to: str | None
    sent_at: datetime
    delivery: Delivery

    def to_json(self) -> dict[str, object]:
        return {
            "wamid": self.wamid,
            "customer": self.customer,
            "phone_number_id": self.phone_number_id,
            "kind": self.kind,
            "text": self.content["body"] if self.kind == "text" else None,
            "content": self.content,
            "reply_to": self.reply_to,
            "sent_at": utc_text(self.sent_at),
            "delivery": self.delivery.to_json(),
        }


class Phone:
    """Customers, chats and the way out to our webhook."""

    def __init__(self, *, world: World, deliveries: Deliveries) -> None:
        story = world.story
        self.channels = {channel.phone_number_id: channel for channel in story.channels}
        self.customers = {customer.key: customer for customer in story.customers}
        self._world = world
        self._deliveries = deliveries
        self._bubbles: deque[Bubble] = deque(maxlen=MOST_MESSAGES)

    def add_customer(self, customer: Customer) -> None:
        """Remember someone; beyond the limit the oldest is forgotten."""
        self.customers.setdefault(customer.key, customer)
        while len(self.customers) > MOST_CUSTOMERS:
            del self.customers[next(iter(self.customers))]

    def send(self, typed: TypedMessage) -> str:
        """Hand a message to "Meta"; returns its wamid. Raises: TooManyPending, NotSent."""
        # A number nobody configured is sent all the same: that is how "unrouted" is tried.
        channel = self.channels.get(typed.phone_number_id) or Channel(
            waba_id="100000000000000", phone_number_id=typed.phone_number_id, display_phone_number="12025550100"
        )
        person = self._world.people.know(typed.sender)
        self._check_way_out(channel, person)
        kind, content = self._content(typed)
        wamid = typed.wamid or new_wamid(typed.sender)
        sent_at = typed.timestamp or datetime.now(UTC)
        body = customer_message(
            channel=channel,
            customer=typed.sender,
            wamid=wamid,
            kind=kind,
            content=content,
            sent_at=sent_at,
            reply_to=typed.reply_to,
        )
        delivery = self._deliveries.send(serialise(body), wamid)[0]
        self._world.count_inbound(typed.phone_number_id, person, sent_at.timestamp())
        self.add_customer(person)
        self._bubbles.append(
            Bubble(
                wamid,
                person.key,
                typed.phone_number_id,
                kind,
                content,
                typed.reply_to,
                sent_at.astimezone(UTC),
                delivery,
            )
        )
        return wamid

    def _check_way_out(self, channel: Channel, person: Customer) -> None:
        number = self._world.numbers.get(channel.phone_number_id)
        if number is not None and person.key in number.blocked:
            raise NotSent("the business has blocked this customer; Meta tells it nothing they write")
        account = self._world.accounts.get(channel.waba_id)
        if account is not None and not account.is_subscribed:
            raise NotSent("no app is subscribed to this account: POST /<WABA_ID>/subscribed_apps")

    def _content(self, typed: TypedMessage) -> tuple[str, Any]:
        if typed.text is not None:
            return "text", {"body": typed.text}
        if typed.media is not None:
            return self._file(typed.media)
        kind = next(name for name in _PLAIN if getattr(typed, name) is not None)
        return kind, getattr(typed, kind)

    def _file(self, sent: SentFile) -> tuple[str, dict[str, Any]]:
        file = self._world.media.find(sent.id, self._world.clock())
        if file is None:
            raise NotSent("no such file; POST it to /sandbox/media first")
        kind = kind_of(file.mime_type) or "document"
        content = webhook_object(self._world, file)
        if sent.caption and kind in ("image", "video", "document"):
            content["caption"] = sent.caption
        if kind == "document":
            content["filename"] = sent.filename or file.name or "file"
        elif kind == "audio":
            content["voice"] = sent.voice
        elif kind == "sticker":
            content["animated"] = False
        return kind, content

    def note_inbound(self, body: Any) -> None:
        """Open the windows of everybody who writes in a body of any shape; whatever is odd in it is skipped."""
        for phone_number_id, message in _messages_in(body):
            sender, user_id = message.get("from"), message.get("from_user_id")
            wa_id = sender if isinstance(sender, str) and sender.isdigit() and 5 <= len(sender) <= 20 else None
            if not isinstance(user_id, str) or not 1 <= len(user_id) <= 160:
                user_id = None
            if wa_id is None and user_id is None:
                continue
            said_at = str(message.get("timestamp", ""))
            at = float(said_at) if said_at.isdigit() and len(said_at) <= 11 else self._world.clock()
            # A test's message from the future must not hold its window open for years.
            at = min(at, self._world.clock())
            self._world.count_inbound(phone_number_id, Customer(wa_id=wa_id, user_id=user_id), at)

    def state(self) -> dict[str, object]:
        """Show all the page needs to draw itself again after a reload."""
        return {
            "channels": [channel.model_dump(exclude_unset=True) for channel in self.channels.values()],
            "customers": [{"key": key} | customer.model_dump() for key, customer in self.customers.items()],
            "messages": [bubble.to_json() for bubble in self._bubbles],
            "outbound": [self._outbound(sent) for sent in reversed(list(self._newest_sent()))],
            "read_marks": list(islice(reversed(self._world.read_marks), MOST_SHOWN)),
            "pending": self._deliveries.pending,
        }

    def _newest_sent(self) -> Iterator[Sent]:
        return islice(reversed(self._world.accepted), MOST_SHOWN)

    def _outbound(self, sent: Sent) -> dict[str, object]:
        # Whoever is written to has a phone to look at, as long as there is room in the list.
        if sent.group_id is None and len(self.customers) < MOST_CUSTOMERS:
            self.customers.setdefault(sent.person.key, sent.person)
        template = self._world.templates.by_id.get(sent.template_id or "")
        content = sent.body.get(sent.type)
        context = sent.body.get("context")
        return {
            "wamid": sent.wamid,
            "customer": sent.person.key,
            "phone_number_id": sent.number.id,
            "kind": sent.type,
            "content": _template_content(template, content) if template else content,
            "reply_to": context.get("message_id") if isinstance(context, dict) else None,
            "sent_at": utc_text(datetime.fromtimestamp(sent.at, UTC)),
            "states": {state: utc_text(datetime.fromtimestamp(at, UTC)) for state, at in sent.states.items()},
            "failed_with": sent.failed_with,
        }


def _template_content(template: Template, content: Any) -> dict[str, Any]:
    components = content.get("components") if isinstance(content, dict) else None
    return shown(template, components if isinstance(components, list) else [])


def _messages_in(body: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what customers write in a webhook body, each with the number written to."""

    def rows(found: Any, key: str) -> list[Any]:
        value = found.get(key) if isinstance(found, dict) else None
        return value if isinstance(value, list) else []

    for entry in rows(body, "entry"):
        for change in rows(entry, "changes"):
            value = change.get("value") if isinstance(change, dict) and change.get("field") == "messages" else None
            metadata = value.get("metadata") if isinstance(value, dict) else None
            number = metadata.get("phone_number_id") if isinstance(metadata, dict) else None
            for message in rows(value, "messages"):
                if isinstance(number, str) and isinstance(message, dict) and message.get("type") not in _NOT_WRITTEN:
                    yield number, message


def _accepted(made: list[Delivery]) -> dict[str, object]:
    return {"wamid": made[0].wamid, "deliveries": [record.number for record in made]}


def _user_id_for(wa_id: str | None) -> str:
    return f"{country_of(wa_id)}.{secrets.randbelow(9 * 10**15) + 10**15}"


def routes(phone: Phone, deliveries: Deliveries, board: FaultBoard) -> APIRouter:
    """Serve the phone, arbitrary webhooks, and the record of deliveries."""
    router = APIRouter()

    @router.post("/sandbox/messages", status_code=202)
    async def type_message(typed: TypedMessage) -> dict[str, str]:
        try:
            return {"wamid": phone.send(typed)}
        except TooManyPending as error:
            raise HTTPException(503, str(error)) from error
        except NotSent as error:
            raise HTTPException(409, str(error)) from error

    @router.post("/sandbox/webhooks", status_code=202)
    async def send_any_body(request: Request) -> dict[str, object]:
        # Read by hand, not by Pydantic: lone surrogates and other oddities must get through as they are.
        try:
            asked = json.loads(await request.body())
        except ValueError as error:
            raise HTTPException(422, f"not JSON: {error}") from error
        if not isinstance(asked, Mapping) or not ({"body", "raw"} & set(asked)):
            raise HTTPException(422, 'expected {"body": <any JSON>} or {"raw": "<text to sign and send as it is>"}')
        raw = str(asked["raw"]).encode() if "raw" in asked else serialise(asked["body"])
        phone.note_inbound(asked.get("body"))
        try:
            return _accepted(deliveries.send(raw, first_wamid(asked.get("body"))))
        except TooManyPending as error:
            raise HTTPException(503, str(error)) from error

    @router.get("/sandbox/deliveries")
    async def list_deliveries(since: AwareDatetime | None = None) -> dict[str, object]:
        return {
            "pending": deliveries.pending,
            "deliveries": [record.to_json() for record in deliveries.since(since)],
        }

    @router.post("/sandbox/customers", status_code=201)
    async def add_customer(asked: NewCustomer) -> dict[str, object]:
        known = next((one for one in phone.customers.values() if asked.wa_id and one.wa_id == asked.wa_id), None)
        customer = known or Customer(name=asked.name, wa_id=asked.wa_id, user_id=_user_id_for(asked.wa_id))
        phone.add_customer(customer)
        return {"key": customer.key} | customer.model_dump()

    @router.get("/sandbox/state")
    async def show_state() -> Response:
        return as_json(phone.state() | {"faults": board.now.model_dump(by_alias=True)})

    return router
