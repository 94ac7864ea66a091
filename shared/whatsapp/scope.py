"""Where an item stands: the change around it, and its place among the body's items."""

from __future__ import annotations

from dataclasses import replace

from shared.whatsapp.events import Person
from shared.whatsapp.people import People, username
from shared.whatsapp.wire import Json, mapping, phone, text


class Scope:
    """What the reader of one item may look at besides the item."""

    __slots__ = ("_business", "change", "item", "people", "thread", "thread_person", "value")

    def __init__(self, value: Json, *, change: int) -> None:
        self.value = value
        self.change = change  # index into ParsedBody.changes
        self.item = 0  # place among the body's items
        self.people = People(value.get("contacts"))
        self.thread: Json | None = None  # history only: the thread the item stands in
        self.thread_person: Person | None = None
        self._business: str | None = None

    def enter(self, thread: Json) -> None:
        """Step into a history thread; whom it is with is found once, since it may hold thousands of messages."""
        context = mapping(thread.get("context"))
        person = self.people.who(
            context.get("user_id"), context.get("wa_id") or thread.get("id"), context.get("parent_user_id")
        )
        if person is not None and person.username is None:
            person = replace(person, username=username(context.get("username")))
        self.thread, self.thread_person = thread, person

    def is_ours(self, number: object) -> bool:
        """Say whether a number is the business' own, which Meta may show formatted."""
        if self._business is None:
            shown = text(mapping(self.value.get("metadata")).get("display_phone_number")) or ""
            self._business = "".join(digit for digit in shown if digit in "0123456789")
        return bool(self._business) and phone(number) == self._business
