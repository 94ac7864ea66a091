"""Masking: the shape of an item can be seen, what people wrote cannot."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.ingest.masking import masked
from shared.whatsapp.parse import elements_of, parse_webhook

WEBHOOKS = Path(__file__).parents[2] / "fixtures" / "webhooks"
FIXTURES = json.loads((WEBHOOKS / "MANIFEST.json").read_text())["fixtures"]
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_a_message_keeps_its_shape_and_loses_its_words() -> None:
    message = {
        "from": "12025550117",
        "from_user_id": "US.1001",
        "id": "wamid.HBgL",
        "timestamp": "1793491200",
        "type": "text",
        "text": {"body": "My password is swordfish", "preview_url": False},
        "location": {"latitude": 52.5, "name": None},
        "+49 30 901820": ["Ana", 7, True],
    }

    assert masked(message) == {
        "from": "digits(11)",
        "from_user_id": "text(7)",
        "id": "wamid.HBgL",
        "timestamp": "1793491200",
        "type": "text",
        "text": {"body": "text(24)", "preview_url": False},
        "location": {"latitude": "number", "name": None},
        "key(13)": ["text(3)", "number", True],
    }


def test_words_where_metas_own_would_stand_are_masked_too() -> None:
    assert masked({"type": "Ana Souza", "status": "12025550117", "id": "12025550117", "timestamp": "soon"}) == {
        "type": "text(9)",
        "status": "digits(11)",
        "id": "digits(11)",
        "timestamp": "text(4)",
    }


def test_what_is_long_or_deep_is_cut() -> None:
    deep: object = "x"
    for _ in range(40):
        deep = {"a": deep}

    assert masked(list(range(25)))[-1] == "… 5 more"  # type: ignore[index]
    assert len(json.dumps(masked(deep))) < 200


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture["file"])
def test_items_are_numbered_as_the_parser_numbers_them(fixture: dict[str, object]) -> None:
    raw = (WEBHOOKS / str(fixture["file"])).read_bytes()

    elements = elements_of(raw)

    assert len(elements) == parse_webhook(raw, now=NOW).items
    assert len({path for path, _ in elements}) == len(elements)


def test_an_item_is_found_where_it_stands() -> None:
    raw = json.dumps(
        {
            "object": "whatsapp_business_account",
            "entry": [
                {"id": "1", "changes": "none"},
                {
                    "id": "1",
                    "changes": [
                        7,
                        {
                            "field": "messages",
                            "value": {
                                "metadata": {"phone_number_id": "2"},
                                "messages": [{"id": "a"}, "b"],
                                "statuses": 3,
                            },
                        },
                    ],
                },
            ],
        }
    ).encode()

    elements = elements_of(raw)

    assert [path for path, _ in elements] == [
        "entry[0]",
        "entry[1].changes[0]",
        "entry[1].changes[1].value.messages[0]",
        "entry[1].changes[1].value.messages[1]",
        "entry[1].changes[1]",
    ]
    assert elements[3][1] == "b"
    assert len(elements) == parse_webhook(raw, now=NOW).items


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"object": "page"}', b'{"object": "whatsapp_business_account"}'])
def test_a_body_that_cannot_be_read_is_one_item(raw: bytes) -> None:
    assert len(elements_of(raw)) == parse_webhook(raw, now=NOW).items == 1
