"""Contact cards. Types of addresses, phones and the like are the two Meta's OpenAPI names: HOME and WORK."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import date
from typing import Literal

from shared.whatsapp.outbound.part import Part, given
from shared.whatsapp.problems import Problems, is_web_address
from shared.whatsapp.wire import Json

CARDS_MOST = 257
_BIRTHDAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")

Where = Literal["HOME", "WORK"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardName(Part):
    """formatted_name and at least one of the others."""

    formatted_name: str
    first_name: str | None = None
    middle_name: str | None = None
    last_name: str | None = None
    prefix: str | None = None
    suffix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPhone(Part):
    """wa_id: lets the customer write to them at once; without it the card offers to invite them."""

    phone: str
    type: Where | None = None
    wa_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardEmail(Part):
    email: str
    type: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardUrl(Part):
    url: str
    type: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardAddress(Part):
    street: str | None = None
    city: str | None = None
    state: str | None = None
    zip: str | None = None
    country: str | None = None
    country_code: str | None = None
    type: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardOrganisation(Part):
    company: str | None = None
    department: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card(Part):
    """birthday: YYYY-MM-DD."""

    name: CardName
    phones: tuple[CardPhone, ...] = ()
    emails: tuple[CardEmail, ...] = ()
    urls: tuple[CardUrl, ...] = ()
    addresses: tuple[CardAddress, ...] = ()
    org: CardOrganisation | None = None
    birthday: str | None = None

    def check(self, problems: Problems) -> None:
        name = self.name
        problems.at("name").at("formatted_name").text(name.formatted_name, "The name shown")
        parts = (name.first_name, name.middle_name, name.last_name, name.prefix, name.suffix)
        if not any(part and part.strip() for part in parts):
            problems.at("name").add(
                "missing", "Besides the name shown a card needs one more part, such as a first name."
            )
        for index, phone in enumerate(self.phones):
            problems.at("phones", index).at("phone").text(phone.phone, "The phone number")
        for index, email in enumerate(self.emails):
            if not _EMAIL.fullmatch(email.email):
                problems.at("emails", index).at("email").add("bad_format", "This is not an e-mail address.")
        for index, url in enumerate(self.urls):
            if not is_web_address(url.url):
                problems.at("urls", index).at("url").add(
                    "bad_format", "A card's link must be a web address that starts with https:// or http://."
                )
        if self.birthday and not _is_date(self.birthday):
            problems.at("birthday").add("bad_format", "The birthday must be a date written YYYY-MM-DD.")

    def graph(self) -> Json:
        return {
            "name": _written(self.name),
            **_list("phones", self.phones),
            **_list("emails", self.emails),
            **_list("urls", self.urls),
            **_list("addresses", self.addresses),
            **given(org=_written(self.org) if self.org else None, birthday=self.birthday),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Contacts(Part):
    cards: tuple[Card, ...]
    type: Literal["contacts"] = "contacts"

    def check(self, problems: Problems) -> None:
        problems.at("cards").count(self.cards, "contact cards", least=1, most=CARDS_MOST)
        for index, card in enumerate(self.cards):
            card.check(problems.at("cards", index))

    def graph(self) -> Json:
        return {"type": "contacts", "contacts": [card.graph() for card in self.cards]}


def _is_date(value: str) -> bool:
    try:
        return bool(_BIRTHDAY.fullmatch(value)) and bool(date.fromisoformat(value))
    except ValueError:
        return False


def _written(part: CardName | CardPhone | CardEmail | CardUrl | CardAddress | CardOrganisation) -> Json:
    return given(**asdict(part))


def _list(
    key: str, parts: tuple[CardPhone, ...] | tuple[CardEmail, ...] | tuple[CardUrl, ...] | tuple[CardAddress, ...]
) -> Json:
    return {key: [_written(part) for part in parts]} if parts else {}
