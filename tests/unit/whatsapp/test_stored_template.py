"""A template as our row keeps it: read back whole, its placeholders' kind told by themselves, its message in words."""

from __future__ import annotations

from typing import Any

import pytest

from shared.whatsapp.templates import Values, fill
from shared.whatsapp.templates.stored import says, stored_definition


def row(*components: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"template_name": "t", "language": "en", "category": "utility", "components": list(components)} | more


def body(text: str) -> dict[str, Any]:
    return {"type": "BODY", "text": text}


@pytest.mark.parametrize(
    ("stored", "is_named"),
    [
        (row(body("Hello {{1}}.")), False),
        (row(body("Hello {{first_name}}.")), True),
        (row({"type": "HEADER", "format": "TEXT", "text": "{{sale}}"}, body("Hello.")), True),
        (row(body("Hello.")), False),
        (row(body("Hello {{1}}."), parameter_format="POSITIONAL"), False),
        (row(body("Hello."), parameter_format="named"), True),
    ],
)
def test_placeholders_tell_whether_they_have_names(stored: dict[str, Any], is_named: bool) -> None:
    definition = stored_definition(stored)

    assert definition is not None
    assert (definition.name, definition.language, definition.category) == ("t", "en", "UTILITY")
    assert definition.is_named is is_named


def test_a_template_known_by_name_only_has_no_definition() -> None:
    assert stored_definition(row()) is None


def test_a_message_says_header_body_and_footer_with_its_values() -> None:
    definition = stored_definition(
        row(
            {"type": "HEADER", "format": "TEXT", "text": "Parcels"},
            body("Hello {{first_name}}."),
            {"type": "FOOTER", "text": "Casa Verde"},
            {"type": "BUTTONS", "buttons": [{"type": "QUICK_REPLY", "text": "Thanks"}]},
        )
    )
    assert definition is not None

    template, problems = fill(definition, Values(body={"first_name": "Ana"}))

    assert (says(definition, template), problems) == ("Parcels\nHello Ana.\nCasa Verde", [])
