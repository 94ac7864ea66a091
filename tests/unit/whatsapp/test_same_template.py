"""Whether Meta shows what we sent."""

from __future__ import annotations

from typing import Any

import pytest

from shared.whatsapp.templates.same import is_same

SENT: dict[str, Any] = {
    "category": "UTILITY",
    "components": [
        {"type": "HEADER", "format": "IMAGE", "example": {"header_handle": ["4::aW1h"]}},
        {"type": "BODY", "text": "Hi {{1}}, see you.", "example": {"body_text": [["Ana"]]}},
        {"type": "FOOTER", "text": "Harbor & Pine"},
        {"type": "BUTTONS", "buttons": [{"type": "URL", "text": "Map", "url": "https://example.com/a"}]},
    ],
}


def _shown(place: int, **changed: Any) -> dict[str, Any]:
    components = [dict(one) for one in SENT["components"]]
    components[place] |= changed
    return {"category": "UTILITY", "components": components}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (_shown(0, example={"header_handle": ["https://cdn.example/1.png"]}), True),  # an address for the handle
        (_shown(1, type="body"), True),  # either case
        (SENT | {"category": "MARKETING"}, True),  # Meta chose another
        (_shown(0, format="VIDEO"), False),
        (_shown(1, text="Hi {{1}}, see you soon."), False),
        (_shown(2, text="Harbor"), False),
        (_shown(3, buttons=[{"type": "URL", "text": "Map", "url": "https://example.com/b"}]), False),
        (SENT | {"components": SENT["components"][:3]}, False),
    ],
)
def test_a_template_is_the_same_when_its_parts_are(shown: dict[str, Any], expected: bool) -> None:
    assert is_same(SENT, shown) is expected


def test_metas_words_in_authentication_templates_count_for_nothing() -> None:
    sent = {
        "category": "AUTHENTICATION",
        "components": [{"type": "BODY"}, {"type": "BUTTONS", "buttons": [{"type": "OTP"}]}],
    }
    shown = {
        "category": "AUTHENTICATION",
        "components": [
            {"type": "BODY", "text": "*{{1}}* is your code."},
            {"type": "BUTTONS", "buttons": [{"type": "URL", "text": "Copy", "url": "https://www.whatsapp.com/otp"}]},
        ],
    }

    assert is_same(sent, shown)
    assert not is_same(sent, SENT)
