"""Who an item is about, when its own ids and the change's contacts each know half."""

from __future__ import annotations

from typing import Any

import pytest

from shared.whatsapp.events import Message, Person
from shared.whatsapp.people import People
from tests.unit.whatsapp.bodies import parsed, read, reasons, text, value_of

ANA = {"wa_id": "12025550117", "user_id": "US.1", "profile": {"name": "Ana", "username": "@ana"}}
BEN = {"wa_id": "12025550118", "user_id": "US.2", "profile": {"name": "Ben"}}


@pytest.mark.parametrize(
    ("contacts", "ids", "person"),
    [
        ([BEN, ANA], ("US.1", "12025550117"), Person("US.1", "12025550117", None, "Ana", "ana")),
        ([BEN, ANA], ("US.1", None), Person("US.1", "12025550117", None, "Ana", "ana")),
        ([BEN, ANA], (None, "+12025550117"), Person("US.1", "12025550117", None, "Ana", "ana")),
        ([BEN, ANA], (None, 12025550117), Person("US.1", "12025550117", None, "Ana", "ana")),
        # The item's own ids outweigh the contact's.
        ([ANA], ("US.1", "12025550199"), Person("US.1", "12025550199", None, "Ana", "ana")),
        # A contact of another user id is another person, whatever number it shows.
        ([ANA], ("US.9", "12025550117"), Person("US.9", "12025550117")),
        ([BEN], (None, "12025550117"), Person(None, "12025550117")),
        # Two people under one number: it names neither.
        ([ANA, BEN | {"wa_id": "12025550117"}], (None, "12025550117"), Person(None, "12025550117")),
        ([ANA, ANA], (None, "12025550117"), Person("US.1", "12025550117", None, "Ana", "ana")),
        # One half each.
        ([{"user_id": "US.1"}], ("US.1", "12025550117"), Person("US.1", "12025550117")),
        ([{"wa_id": "12025550117", "profile": {"name": 7}}], ("US.1", "12025550117"),
         Person("US.1", "12025550117", None, "7")),
        # Ids of another shape are no ids; neither is the empty string.
        ([ANA], ("nobody", "12025550117"), Person("US.1", "12025550117", None, "Ana", "ana")),
        ([ANA], ("", ""), None),
        ([ANA], ([], {}), None),
        ([ANA], ("nobody", "nobody"), None),
        ([{"user_id": "nobody", "wa_id": "1202"}], ("nobody", "1202"), None),
        ([None, 7, {}, {"profile": None}], ("US.1", None), Person("US.1", None)),
        (None, ("US.1", None), Person("US.1", None)),
        ({}, ("US.1\n", "12025550117\n"), None),
        ([ANA], ("US.ENT.12", None), Person("US.ENT.12", None)),
    ],
)  # fmt: skip
def test_an_item_and_its_contact_name_a_person_together(
    contacts: object, ids: tuple[object, object], person: Person | None
) -> None:
    assert People(contacts).who(*ids) == person


@pytest.mark.parametrize(
    ("item", "known", "person"),
    [(None, "US.ENT.1", "US.ENT.1"), ("US.ENT.2", "US.ENT.1", "US.ENT.2"), ("US.ENT.2", None, "US.ENT.2")]
)  # fmt: skip
def test_a_parent_id_comes_from_the_item_or_its_contact(item: object, known: object, person: str) -> None:
    assert People([ANA | {"parent_user_id": known}]).who("US.1", None, item) == Person(
        "US.1", "12025550117", person, "Ana", "ana"
    )


@pytest.mark.parametrize(
    "wa_id", ["12025550117\n", "١٢٠٢٥٥٥٠", "１２０２５５５", "+", "1202", "++12025550117", "1" * 21]
)
def test_a_phone_id_is_ascii_digits_and_nothing_else(wa_id: str) -> None:
    assert People(None).who(None, wa_id) is None


def test_an_item_that_names_nobody_is_about_the_only_contact() -> None:
    people = People([ANA])

    assert people.customer(None, "") == Person("US.1", "12025550117", None, "Ana", "ana")
    assert people.customer("nobody", None) is None
    assert People([ANA, BEN]).customer(None, None) is None
    assert People([ANA, {}]).customer(None, None) is None


def messages_of(body: Any) -> list[Message]:
    return [event for event in body.events if isinstance(event, Message)]


def test_contacts_in_another_order_than_messages_keep_their_names() -> None:
    value = value_of("text_contacts_order_mismatch.json")
    names = {c["user_id"]: c["profile"]["name"] for c in value["contacts"]}

    found = messages_of(parsed("text_contacts_order_mismatch.json"))

    assert [m.person.name for m in found if m.person] == [names[m["from_user_id"]] for m in value["messages"]]


def test_a_long_name_is_cut_and_its_message_kept() -> None:
    [message] = messages_of(read({"contacts": [ANA | {"profile": {"name": "x" * 9000}}], "messages": [text()]}))

    assert message.person == Person("US.1", "12025550117", None, "x" * 512)


def test_a_message_that_names_nobody_beside_two_contacts_is_set_aside() -> None:
    assert reasons(read({"contacts": [ANA, BEN], "messages": [text(**{"from": None})]})) == ["message_without_sender"]
