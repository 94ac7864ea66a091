"""Who can be written to, and when each of them last wrote: the sandbox's own record of the 24-hour windows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.story import Customer

WINDOW_S = 24 * 3600
MOST_PEOPLE = 100_000
MOST_WINDOWS = 200_000
# Source: Meta, "Business-scoped user IDs" (7 May 2026); a parent id is `US.ENT.` and digits.
_BSUID = re.compile(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}")
_NOT_DIGITS = re.compile(r"[^0-9]")
# The first two letters of a business-scoped user id follow the number's country; elsewhere US will do.
COUNTRIES = {
    "55": "BR",
    "49": "DE",
    "33": "FR",
    "39": "IT",
    "34": "ES",
    "52": "MX",
    "44": "GB",
    "91": "IN",
    "81": "JP",
    "61": "AU",
    "54": "AR",
    "46": "SE",
}


def country_of(wa_id: str | None) -> str:
    """Return the two letters that go with a number."""
    return COUNTRIES.get((wa_id or "")[:2], "US")


@dataclass(frozen=True, slots=True)
class Recipient:
    """To whom a message goes, and by which name the request called them."""

    person: Customer
    input: str
    by_user_id: bool

    def contact(self) -> dict[str, str]:
        """Return the element of `contacts` in the answer: a phone send never shows the user id."""
        if self.by_user_id:
            return {"input": self.input, "user_id": self.input}
        return {"input": self.input, "wa_id": self.person.wa_id or ""}


class People:
    """Everybody by number and by user id; whoever is not known is made up the same way each time."""

    def __init__(self, customers: Iterable[Customer]) -> None:
        self._by_number: dict[str, Customer] = {}
        self._by_user_id: dict[str, Customer] = {}
        self._wrote: dict[tuple[str, str], float] = {}
        for customer in customers:
            self.know(customer)

    def know(self, customer: Customer) -> Customer:
        """Return this person as already known, else remember them."""
        known = (self._by_user_id.get(customer.user_id) if customer.user_id else None) or (
            self._by_number.get(customer.wa_id) if customer.wa_id else None
        )
        if known is not None:
            return known
        for number in (customer.wa_id, *customer.other_numbers):
            if number:
                self._by_number[number] = customer
        if customer.user_id:
            self._by_user_id[customer.user_id] = customer
        for table in (self._by_number, self._by_user_id):
            if len(table) > MOST_PEOPLE:
                del table[next(iter(table))]
        return customer

    def recipient(self, to: Any, recipient: Any, home: str) -> Recipient:
        """Find who is meant; `to` wins over `recipient`.

        `home`: digits of the business number, whose country code Meta puts before a short number.
        Raises: Refused 131008 without either, 131009 for what is neither a number nor a user id.
        """
        if to:
            return Recipient(self.by_number(str(to), home), str(to), by_user_id=False)
        if not recipient:
            raise Refused(131008, "messages: `to` or `recipient` is required.")
        if not isinstance(recipient, str) or not _BSUID.fullmatch(recipient):
            raise Refused(131009, "recipient is not a business-scoped user ID.")
        known = self._by_user_id.get(recipient)
        return Recipient(known or self.know(Customer(user_id=recipient)), recipient, by_user_id=True)

    def by_number(self, text: str, home: str) -> Customer:
        digits = _NOT_DIGITS.sub("", text)
        known = self._by_number.get(digits)
        if known is not None:
            return known
        if not 5 <= len(digits) <= 20:
            raise Refused(131009, "Parameter value is not valid: to")
        wa_id = _as_wa_id(digits, has_plus=text.lstrip().startswith("+"), home=home)
        known = self._by_number.get(wa_id)
        if known is None:
            number = int.from_bytes(hashlib.sha256(wa_id.encode()).digest()[:7], "big") % (9 * 10**15) + 10**15
            known = self.know(Customer(wa_id=wa_id, user_id=f"{country_of(wa_id)}.{number}"))
        return known

    def wrote(self, phone_number_id: str, person: Customer, at: float) -> None:
        """Open or renew the window; an older message does not shorten it."""
        key = (phone_number_id, person.key)
        self._wrote[key] = max(at, self._wrote.pop(key, at))
        if len(self._wrote) > MOST_WINDOWS:
            del self._wrote[next(iter(self._wrote))]

    def last_wrote(self, phone_number_id: str, person: Customer) -> float | None:
        return self._wrote.get((phone_number_id, person.key))

    def forget_windows(self) -> None:
        self._wrote.clear()


def _as_wa_id(digits: str, *, has_plus: bool, home: str) -> str:
    if not has_plus and len(digits) <= 10 and home:
        digits = (home[:2] if home[:2] in COUNTRIES else home[:1]) + digits
    # Argentina's mobiles have a 9 on WhatsApp that people do not dial.
    if digits.startswith("54") and not digits.startswith("549") and len(digits) == 12:
        digits = "549" + digits[2:]
    return digits
