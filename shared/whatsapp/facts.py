"""Fields `user_preferences` and `smb_app_state_sync`: what holds of a person until the next says otherwise."""

from __future__ import annotations

from dataclasses import replace

from shared.whatsapp.events import ContactFact, Kept
from shared.whatsapp.people import username
from shared.whatsapp.scope import Scope
from shared.whatsapp.wire import ID_LIMIT, Json, identifier, mapping, text, time


def read_preference(item: Json, scope: Scope) -> ContactFact | Kept | str:
    """Read whether someone wants marketing messages; other categories are unknown today, and kept."""
    sent_at = time(item.get("timestamp"))
    value = identifier(item.get("value"))
    if item.get("category") != "marketing_messages" or value is None:
        return Kept(scope.change, scope.item, "user_preferences", sent_at)
    person = scope.people.customer(item.get("user_id"), item.get("wa_id"), item.get("parent_user_id"))
    if person is None:
        return "marketing_without_person"
    return ContactFact(scope.change, scope.item, "marketing", value.lower(), sent_at, person, item)


def read_address_book(item: Json, scope: Scope) -> ContactFact | Kept | str:
    """Read a contact as staff saved or removed it in the WhatsApp Business app; an edit arrives as `add`."""
    contact, action = mapping(item.get("contact")), item.get("action")
    sent_at = time(mapping(item.get("metadata")).get("timestamp"))
    if item.get("type") != "contact" or action not in ("add", "remove"):
        return Kept(scope.change, scope.item, "state_sync", sent_at)
    person = scope.people.who(contact.get("user_id"), contact.get("phone_number"), contact.get("parent_user_id"))
    if person is None:
        return "address_book_without_person"
    if person.username is None:
        person = replace(person, username=username(contact.get("username")))
    name = (text(contact.get("full_name")) or text(contact.get("first_name")) or "") if action == "add" else ""
    return ContactFact(scope.change, scope.item, "address_book", name[:ID_LIMIT], sent_at, person, item)
