"""The story is consistent and made up."""

from __future__ import annotations

import random
import re
import uuid
from typing import Any

import pytest

from deploy.local.demo import LINES, new_customer
from deploy.local.story import CUSTOMERS, GRAPH_TOKEN, PEOPLE, TEMPLATES, WORKSPACES, story_json
from shared.whatsapp.templates import check, read_definition

# Ranges reserved for fiction: US 555-01xx, Ofcom, Bundesnetzagentur, ARCEP.
FICTIONAL = re.compile(r"1\d{3}55501\d\d|447700900\d{3}|442079460\d{3}|4917139200\d{3}|3363998\d{4}")
CHANNELS = [channel for workspace in WORKSPACES for channel in workspace.channels]


def test_ids_are_unique_and_time_ordered() -> None:
    ids = [one.id for one in (*PEOPLE, *WORKSPACES, *CHANNELS)]

    assert len(set(ids)) == len(ids)
    assert {uuid.UUID(one).version for one in ids} == {7}


def test_ids_of_meta_are_unique() -> None:
    for field in ("waba_id", "portfolio_id", "phone_number_id", "display_phone_number"):
        values = [getattr(channel, field) for channel in CHANNELS]
        assert len(set(values)) == len(values), field


def test_every_number_and_address_is_fictional() -> None:
    chance = random.Random(1)
    customers = [*CUSTOMERS, *(new_customer(name, chance) for name, _, _ in LINES)]
    numbers = [channel.display_phone_number for channel in CHANNELS] + [one.wa_id for one in customers if one.wa_id]

    assert [number for number in numbers if not FICTIONAL.fullmatch(number)] == []
    assert all(person.email.endswith(".example") for person in PEOPLE)


def test_every_workspace_has_one_owner_and_one_person_is_in_both() -> None:
    owners = [[role for _, role in workspace.members].count("owner") for workspace in WORKSPACES]
    members = [{person.id for person, _ in workspace.members} for workspace in WORKSPACES]

    assert owners == [1, 1]
    assert len(set.intersection(*members)) == 1
    assert set.union(*members) == {person.id for person in PEOPLE}


def test_a_business_scoped_user_id_opens_with_a_country() -> None:
    assert all(re.fullmatch(r"[A-Z]{2}\.\d{10,}", customer.user_id) for customer in CUSTOMERS)


def test_the_sandbox_is_told_of_everybody() -> None:
    story = story_json()

    assert story.pop("meta") == {
        "behaviour": {"window": "lenient"},
        "tokens": [{"token": GRAPH_TOKEN}],
        "templates": list(TEMPLATES),
    }
    assert {key: len(value) for key, value in story.items()} == {
        "users": len(PEOPLE),
        "channels": len(CHANNELS),
        "customers": len(CUSTOMERS),
    }


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template["name"])
def test_every_template_is_one_that_meta_would_take(template: dict[str, Any]) -> None:
    definition = read_definition(template)

    assert check(definition) == []
    assert template["waba_id"] in {channel.waba_id for channel in CHANNELS}


def test_the_demo_sends_twenty_messages_of_five_customers() -> None:
    assert len(LINES) == 5
    assert sum(len(texts) for _, _, texts in LINES) == 20


def test_demo_customers_are_new_each_time() -> None:
    first, second = random.Random(1), random.Random(2)

    assert {new_customer(name, first).user_id for name, _, _ in LINES}.isdisjoint(
        {new_customer(name, second).user_id for name, _, _ in LINES}
    )
