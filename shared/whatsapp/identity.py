"""Messages of type `system`: people who go on under other ids, or with another key."""

from __future__ import annotations

import re

from shared.whatsapp.events import ContactFact, Event, IdentityChange, Kept
from shared.whatsapp.scope import Scope
from shared.whatsapp.wire import Json, bsuid, identifier, mapping, phone, text, time

# The whole sentence is "User NAME changed from OLD to NEW". NAME is the customer's choice and may itself say
# " changed from X to Y", so only the end counts. Source: our API reference, 2.2.7.
_CHANGED_AT_THE_END = re.compile(r" changed from (\S+) to (\S+?)\.?\s*\Z")
_SENTENCE_END = 400  # characters: two ids of at most 135 and the words between them; the search stays short

_CHANGES = frozenset({"user_changed_number", "user_changed_user_id", "customer_changed_number"})


def read_system(item: Json, scope: Scope, *, wamid: str) -> Event | str:
    """Read a system message, or return why it cannot be placed."""
    system = mapping(item.get("system"))
    kind = text(system.get("type"))
    if kind in _CHANGES:
        return _read_change(item, system, scope, wamid=wamid)
    key_hash = identifier(mapping(item.get("identity")).get("hash"))
    if kind == "customer_identity_changed" and key_hash:
        person = scope.people.customer(item.get("from_user_id"), item.get("from"), item.get("from_parent_user_id"))
        if person is None:
            return "identity_hash_without_person"
        sent_at = time(item.get("timestamp"))
        return ContactFact(scope.change, scope.item, "identity_hash", key_hash, sent_at, person, item)
    return Kept(scope.change, scope.item, "system", time(item.get("timestamp")))


def _read_change(item: Json, system: Json, scope: Scope, *, wamid: str) -> IdentityChange | str:
    """Read who someone was and is.

    `from` is always taken for the old number, as documented for a changed number: for a changed user id it is usually
    absent, and an old number given to the new id would join two people.
    """
    user_id, wa_id = bsuid(system.get("user_id")), phone(system.get("wa_id")) or phone(system.get("new_wa_id"))
    old, new = _ends(text(system.get("body")) or "")
    previous_user_id = bsuid(system.get("previous_user_id"))
    if previous_user_id is None and user_id and new == user_id:
        previous_user_id = bsuid(old)
    previous_wa_id = phone(item.get("from")) or phone(system.get("customer"))
    if previous_wa_id is None and wa_id and phone(new) == wa_id:
        previous_wa_id = phone(old)
    person = scope.people.who(user_id, wa_id, system.get("parent_user_id"))
    if person is None:
        return "identity_change_without_ids"
    return IdentityChange(
        change=scope.change,
        item=scope.item,
        wamid=wamid,
        sent_at=time(item.get("timestamp")),
        person=person,
        # A user id that did not change is not a previous one; a phone that did not change still says whose id changed.
        previous_user_id=None if previous_user_id == person.user_id else previous_user_id,
        previous_wa_id=previous_wa_id,
    )


def _ends(sentence: str) -> tuple[str | None, str | None]:
    """Return OLD and NEW as the sentence's end names them."""
    found = _CHANGED_AT_THE_END.search(sentence[-_SENTENCE_END:])
    return (found[1], found[2]) if found else (None, None)
