"""Who an item is about: its own ids, completed by what the change's `contacts` say of them."""

from __future__ import annotations

from shared.whatsapp.events import Person
from shared.whatsapp.wire import ID_LIMIT, Json, bsuid, elements, mapping, phone, text


class People:
    """The `contacts` of one change, found by id: they are not index-aligned with its items."""

    __slots__ = ("_by_user_id", "_by_wa_id", "_only")

    def __init__(self, contacts: object) -> None:
        self._by_user_id: dict[str, Person] = {}
        self._by_wa_id: dict[str, Person] = {}
        named = [contact for contact in elements(contacts) if isinstance(contact, dict)]
        people = [person for person in map(_person, named) if person is not None]
        self._only = people[0] if len(named) == 1 and people else None
        for person in people:
            if person.user_id:
                self._by_user_id.setdefault(person.user_id, person)
            if person.wa_id:
                first = self._by_wa_id.setdefault(person.wa_id, person)
                if first.user_id != person.user_id:  # two people under one number: it names neither
                    self._by_wa_id[person.wa_id] = Person(None, person.wa_id)

    def who(self, user_id: object, wa_id: object, parent_user_id: object = None) -> Person | None:
        """Return the person of these ids as Meta sent them, or None when none of them identifies."""
        known = self._by_user_id.get(user_id) if isinstance(user_id, str) else None
        if (
            known is not None
            and (not wa_id or wa_id == known.wa_id)
            and (not parent_user_id or parent_user_id == known.parent_user_id)
        ):
            return known  # one Person for all items about them
        return self._combined(bsuid(user_id), phone(wa_id), bsuid(parent_user_id))

    def customer(self, user_id: object, wa_id: object, parent_user_id: object = None) -> Person | None:
        """As `who`; an item that names nobody is about the only contact there is."""
        if not user_id and not wa_id:
            return self._only
        return self.who(user_id, wa_id, parent_user_id)

    def _combined(self, user_id: str | None, wa_id: str | None, parent_user_id: str | None) -> Person | None:
        known = self._by_user_id.get(user_id) if user_id else None
        if known is None and wa_id:
            known = self._by_wa_id.get(wa_id)
            if known is not None and user_id and known.user_id:
                known = None  # the number is someone else's here
        if known is None:
            return Person(user_id, wa_id, parent_user_id) if user_id or wa_id else None
        return Person(
            user_id or known.user_id,
            wa_id or known.wa_id,
            parent_user_id or known.parent_user_id,
            known.name,
            known.username,
        )


def _person(contact: Json) -> Person | None:
    user_id, wa_id = bsuid(contact.get("user_id")), phone(contact.get("wa_id"))
    if not user_id and not wa_id:
        return None
    profile = mapping(contact.get("profile"))
    return Person(
        user_id,
        wa_id,
        bsuid(contact.get("parent_user_id")),
        (text(profile.get("name")) or "")[:ID_LIMIT] or None,
        username(profile.get("username")),
    )


def username(value: object) -> str | None:
    """Return a username without the @ that Meta's examples show before it."""
    return (text(value) or "").lstrip("@")[:ID_LIMIT] or None
