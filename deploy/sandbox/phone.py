"""The customer's phone: messages typed here become signed webhooks; the page reads its state from here."""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from deploy.sandbox.deliveries import Deliveries, Delivery, TooManyPending
from deploy.sandbox.faults import FaultBoard
from deploy.sandbox.logs import utc_text
from deploy.sandbox.story import Channel, Customer, Story
from deploy.sandbox.webhook_body import first_wamid, new_wamid, serialise, text_message

MOST_MESSAGES = 2_000
MOST_CUSTOMERS = 500
MOST_TEXT = 65_536  # more than WhatsApp lets a person type, enough to try a text that is too long
# The first two letters of a business-scoped user id follow the number's country; elsewhere US will do.
COUNTRIES = {"55": "BR", "49": "DE", "33": "FR", "39": "IT", "34": "ES", "52": "MX", "44": "GB", "91": "IN", "81": "JP"}


class TypedMessage(BaseModel):
    """What `POST /sandbox/messages` takes."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    sender: Annotated[Customer, Field(alias="from")]
    phone_number_id: Annotated[str, Field(min_length=1, max_length=64)]
    text: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]
    wamid: Annotated[str, Field(min_length=1, max_length=400)] | None = None
    timestamp: AwareDatetime | None = None  # ISO 8601 with an offset, or unix seconds


class NewCustomer(BaseModel):
    """What `POST /sandbox/customers` takes; a customer without a number has a user id only."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=80)]
    wa_id: Annotated[str, Field(pattern=r"^[0-9]{5,20}$")] | None = None


@dataclass(frozen=True, slots=True)
class Bubble:
    """One message in a chat on the page."""

    wamid: str
    customer: str
    phone_number_id: str
    text: str
    sent_at: datetime
    delivery: Delivery


def _user_id_for(wa_id: str | None) -> str:
    country = COUNTRIES.get((wa_id or "")[:2], "US")
    return f"{country}.{secrets.randbelow(9 * 10**15) + 10**15}"


class Phone:
    """Customers, chats and the way out to our webhook."""

    def __init__(self, *, story: Story, deliveries: Deliveries) -> None:
        self.channels = {channel.phone_number_id: channel for channel in story.channels}
        self.customers = {customer.key: customer for customer in story.customers}
        self._deliveries = deliveries
        self._bubbles: deque[Bubble] = deque(maxlen=MOST_MESSAGES)

    def add_customer(self, customer: Customer) -> None:
        """Remember someone; beyond the limit the oldest is forgotten."""
        self.customers.setdefault(customer.key, customer)
        while len(self.customers) > MOST_CUSTOMERS:
            del self.customers[next(iter(self.customers))]

    def send(self, typed: TypedMessage) -> str:
        """Hand a message to "Meta"; returns its wamid. Raises: TooManyPending."""
        # A number nobody configured is sent all the same: that is how "unrouted" is tried.
        channel = self.channels.get(typed.phone_number_id) or Channel(
            waba_id="100000000000000", phone_number_id=typed.phone_number_id, display_phone_number="12025550100"
        )
        wamid = typed.wamid or new_wamid(typed.sender)
        sent_at = typed.timestamp or datetime.now(UTC)
        body = text_message(channel=channel, customer=typed.sender, wamid=wamid, text=typed.text, sent_at=sent_at)
        delivery = self._deliveries.send(serialise(body), wamid)[0]
        self.add_customer(typed.sender)
        self._bubbles.append(
            Bubble(wamid, typed.sender.key, typed.phone_number_id, typed.text, sent_at.astimezone(UTC), delivery)
        )
        return wamid

    def state(self) -> dict[str, object]:
        """Show all the page needs to draw itself again after a reload."""
        return {
            "channels": [channel.model_dump() for channel in self.channels.values()],
            "customers": [{"key": key} | customer.model_dump() for key, customer in self.customers.items()],
            "messages": [
                {
                    "wamid": bubble.wamid,
                    "customer": bubble.customer,
                    "phone_number_id": bubble.phone_number_id,
                    "text": bubble.text,
                    "sent_at": utc_text(bubble.sent_at),
                    "delivery": bubble.delivery.to_json(),
                }
                for bubble in self._bubbles
            ],
            "pending": self._deliveries.pending,
        }


def _accepted(made: list[Delivery]) -> dict[str, object]:
    return {"wamid": made[0].wamid, "deliveries": [record.number for record in made]}


def routes(phone: Phone, deliveries: Deliveries, board: FaultBoard) -> APIRouter:
    """Serve the phone, arbitrary webhooks, and the record of deliveries."""
    router = APIRouter()

    @router.post("/sandbox/messages", status_code=202)
    async def type_message(typed: TypedMessage) -> dict[str, str]:
        try:
            return {"wamid": phone.send(typed)}
        except TooManyPending as error:
            raise HTTPException(503, str(error)) from error

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
    async def show_state() -> dict[str, object]:
        return phone.state() | {"faults": board.now.model_dump()}

    return router
