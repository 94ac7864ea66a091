"""All there is in this Meta: numbers, accounts, people, templates, media, what was accepted. In memory, bounded."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deploy.sandbox.graph.behaviour import Behaviour
from deploy.sandbox.graph.errors import no_such_object
from deploy.sandbox.graph.limits import Hourly, Pairs, Throughput
from deploy.sandbox.graph.media import Media
from deploy.sandbox.graph.people import People
from deploy.sandbox.graph.template_store import Templates
from deploy.sandbox.story import Channel, Customer, Story, Token

MOST_ACCEPTED = 100_000  # about 1.5 kB each
MOST_CALLS = 2_000


@dataclass(slots=True)
class Number:
    """A business phone number."""

    channel: Channel
    id: str
    waba_id: str
    is_registered: bool
    pin: str | None
    blocked: dict[str, Customer] = field(default_factory=dict)
    username: str | None = None
    callback: str | None = None
    registrations: list[float] = field(default_factory=list)
    service_messages: dict[str, int] = field(default_factory=dict)  # month → accepted beyond templates

    @property
    def digits(self) -> str:
        return "".join(sign for sign in self.channel.display_phone_number if sign.isdigit())


@dataclass(slots=True)
class Account:
    """A WhatsApp Business Account."""

    id: str
    portfolio_id: str
    name: str
    is_subscribed: bool = True
    callback: str | None = None
    has_insights: bool = False


@dataclass(slots=True)
class Sent:
    """One message this Meta accepted, and what became of it."""

    ordinal: int
    at: float
    wamid: str
    number: Number
    person: Customer
    input: str
    by_user_id: bool
    type: str
    body: dict[str, Any]
    category: str  # of its price
    pricing_type: str
    callback_data: str | None
    template_id: str | None = None
    group_id: str | None = None
    is_voice: bool = False
    reply_lost: bool = False
    failed_with: int | None = None
    states: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Show the record; `at` and the times of the states are unix seconds."""
        return {
            "ordinal": self.ordinal,
            "at": self.at,
            "wamid": self.wamid,
            "phone_number_id": self.number.id,
            "to": self.input,
            "wa_id": self.person.wa_id,
            "user_id": self.person.user_id,
            "type": self.type,
            "biz_opaque_callback_data": self.callback_data,
            "template_id": self.template_id,
            "pricing": {"type": self.pricing_type, "category": self.category},
            "reply_lost": self.reply_lost,
            "failed_with": self.failed_with,
            "states": self.states,
        }


class World:
    """The state every noun works on."""

    def __init__(
        self, story: Story, *, base_url: str, app_secret: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self.story = story
        self.base_url = base_url
        app_token = f"{story.meta.app_id}|{app_secret}"
        self._app_token = Token(token=app_token, scopes=[], accounts=[], is_app=True)
        self.clock = clock
        self.secret = secrets.token_bytes(16)  # signs media URLs
        self.reset()

    def reset(self) -> None:
        """Go back to what the story says; what is under way to our webhook still arrives."""
        story = self.story
        self.behaviour = Behaviour.model_validate(story.meta.behaviour)
        self.tokens = {token.token: token for token in (*story.meta.tokens, self._app_token)}
        self.people = People(story.customers)
        self.numbers = {
            one.phone_number_id: Number(one, one.phone_number_id, one.waba_id, one.is_registered, one.pin)
            for one in story.channels
        }
        self.accounts: dict[str, Account] = {}
        for one in story.channels:
            self.numbers[one.phone_number_id].username = one.username
            self.accounts.setdefault(one.waba_id, Account(one.waba_id, one.portfolio_id, one.workspace or "Business"))
        now = self.clock()
        self.templates = Templates(story.meta.templates, now)
        self.media = Media(story.meta.media, now)
        self.accepted: deque[Sent] = deque(maxlen=MOST_ACCEPTED)
        self.by_wamid: dict[str, Sent] = {}
        self.ordinal = 0
        self.read_marks: deque[dict[str, Any]] = deque(maxlen=MOST_CALLS)
        self.calls: deque[dict[str, Any]] = deque(maxlen=MOST_CALLS)
        self.throughput = Throughput()
        self.pairs = Pairs()
        self.management_calls = Hourly()
        self.template_creates = Hourly()

    def change_behaviour(self, changes: dict[str, Any]) -> None:
        """Take these in place of the present ones. Raises: pydantic.ValidationError."""
        self.behaviour = Behaviour.model_validate(self.story.meta.behaviour | changes)

    def keep(self, sent: Sent) -> None:
        if len(self.accepted) == MOST_ACCEPTED:
            self.by_wamid.pop(self.accepted[0].wamid, None)
        self.accepted.append(sent)
        self.by_wamid[sent.wamid] = sent

    def account_of(self, number: Number) -> Account:
        return self.accounts[number.waba_id]

    def count_inbound(self, phone_number_id: str, customer: Customer, at: float) -> None:
        """Take note that a customer wrote: the window opens, and the number's second has one message less."""
        self.people.wrote(phone_number_id, self.people.know(customer), at)
        number = self.numbers.get(phone_number_id)
        if number is not None:
            self.throughput.count_inbound(phone_number_id, number.channel.throughput, self.clock())


def may_touch(token: Token, waba_id: str) -> bool:
    return token.accounts is None or waba_id in token.accounts


def number_of(world: World, phone_number_id: str) -> Number:
    """Find a number. Raises: Refused 100 with Meta's sub-code 33."""
    number = world.numbers.get(phone_number_id)
    if number is None:
        raise no_such_object(phone_number_id)
    return number
