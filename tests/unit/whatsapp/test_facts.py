"""What holds of a person until the next says otherwise: preferences and the address book."""

from __future__ import annotations

from typing import Any

import pytest

from shared.whatsapp.events import ContactFact, Event, Kept, Person
from tests.unit.whatsapp.bodies import KESTREL, MAREN, TOMAS, at, only, parsed, read, reasons, value_of


def preference(name: str, value: str, person: Person) -> tuple[str, Event]:
    sent = value_of(name)["user_preferences"][0]
    return name, ContactFact(0, 0, "marketing", value, at(1795183230), person, sent)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        preference("user_preferences_stop.json", "stop", MAREN),
        preference("user_preferences_resume.json", "resume", MAREN),
        preference("user_preferences_signup.json", "signup", TOMAS),
        preference("user_preferences_stop_bsuid.json", "stop", KESTREL),
    ],
)
def test_a_preference_is_exactly_this_fact(name: str, expected: Event) -> None:
    assert only(parsed(name)) == expected


STOP = {"wa_id": "12025550117", "category": "marketing_messages", "value": "STOP", "timestamp": 1763802000}


def test_a_preference_is_lower_case() -> None:
    event = only(read({"user_preferences": [STOP]}, field="user_preferences"))

    assert isinstance(event, ContactFact)
    assert event.value == "stop"


@pytest.mark.parametrize("differs", [{"category": "future"}, {"category": None}, {"value": None}, {"value": ""}])
def test_a_preference_we_do_not_know_is_kept(differs: dict[str, Any]) -> None:
    event = only(read({"user_preferences": [STOP | differs]}, field="user_preferences"))

    assert event == Kept(0, 0, "user_preferences", at(1763802000))


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (STOP | {"wa_id": "nobody"}, "marketing_without_person"),
        (STOP | {"timestamp": 4_000_000_000}, "time_a_day_ahead"),
        (None, "preference_not_an_object"),
    ],
)
def test_a_preference_of_nobody_is_set_aside(sent: object, reason: str) -> None:
    assert reasons(read({"user_preferences": [sent]}, field="user_preferences")) == [reason]


# --- the address book -------------------------------------------------------------------------------------------------


def test_the_address_book_is_exactly_these_facts() -> None:
    added, removed = value_of("smb_app_state_sync_add_remove.json")["state_sync"]

    assert parsed("smb_app_state_sync_add_remove.json").events == (
        ContactFact(0, 0, "address_book", "Maren Holt", at(1795183201), Person(MAREN.user_id, "12025550117"), added),
        ContactFact(0, 1, "address_book", "", at(1795183202), Person(None, "12025550150"), removed),
    )


def saved(action: object = "add", kind: object = "contact", **contact: Any) -> dict[str, Any]:
    return {"type": kind, "contact": contact, "action": action, "metadata": {"timestamp": "1763802000"}}


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (saved(phone_number="12025550117", full_name="Ana B", first_name="Ana"), "Ana B"),
        (saved(phone_number="12025550117", first_name="Ana"), "Ana"),
        (saved(phone_number="12025550117"), ""),
        (saved("remove", phone_number="12025550117", full_name="Ana B"), ""),
    ],
)
def test_a_saved_contact_is_called_what_staff_call_it(sent: dict[str, Any], value: str) -> None:
    event = only(read({"state_sync": [sent]}, field="smb_app_state_sync"))

    assert event == ContactFact(0, 0, "address_book", value, at(1763802000), Person(None, "12025550117"), sent)


def test_a_saved_contact_may_have_a_username_and_no_number() -> None:
    event = only(read({"state_sync": [saved(user_id="US.1", username="@ana")]}, field="smb_app_state_sync"))

    assert isinstance(event, ContactFact)
    assert event.person == Person("US.1", None, username="ana")


@pytest.mark.parametrize("sent", [saved(kind="future", phone_number="12025550117"), saved("swap"), saved(None), {}])
def test_what_else_the_app_synchronises_is_kept(sent: dict[str, Any]) -> None:
    event = only(read({"state_sync": [sent]}, field="smb_app_state_sync"))

    assert isinstance(event, Kept)
    assert event.kind == "state_sync"


def test_a_saved_contact_of_nobody_is_set_aside() -> None:
    body = read({"state_sync": [saved(full_name="Ana"), 7]}, field="smb_app_state_sync")

    assert reasons(body) == ["address_book_without_person", "contact_not_an_object"]
