"""Templates for closed windows: which are offered, and which choices of Claude's are believed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from services.ai_worker.message_analysis import DEFAULT_INTENTS, NewMessage, Question, answer_schema, data, read_answer
from services.ai_worker.template_offers import MOST_OFFERED, chosen, offers

ORDER = {
    "id": "0199c2f4-7a31-7cc0-9a3e-0d4f2b1c6e55",
    "template_name": "order_update",
    "language": "en_US",
    "category": "utility",
    "components": [
        {"type": "HEADER", "format": "TEXT", "text": "Order {{1}}"},
        {"type": "BODY", "text": "Hello {{1}}, about your order {{2}}: may we write to you?"},
    ],
}
HELLO = ORDER | {"template_name": "hello", "components": [{"type": "BODY", "text": "May we write to you?"}]}
NEEDS_MORE: tuple[list[dict[str, Any]], ...] = (
    [{"type": "HEADER", "format": "IMAGE"}, {"type": "BODY", "text": "Look!"}],
    [
        {"type": "BODY", "text": "Track it"},
        {"type": "BUTTONS", "buttons": [{"type": "URL", "text": "Track", "url": "https://example.com/{{1}}"}]},
    ],
    [],  # known by its name only
)
GOOD = [{"name": "header", "value": "A-17"}, {"name": "1", "value": "Ana"}, {"name": "2", "value": " A-17\n"}]


def test_only_what_texts_can_fill_is_offered_and_few() -> None:
    rows = [ORDER | {"components": components} for components in NEEDS_MORE] + [ORDER, *[HELLO] * 20]

    offered = offers(rows)

    assert len(offered) == MOST_OFFERED
    assert [offer.definition.name for offer in offered[:2]] == ["order_update", "hello"]
    assert offered[0].shown() == {
        "ref": "t1",
        "language": "en_US",
        "text": "Order {{1}}\nHello {{1}}, about your order {{2}}: may we write to you?",
        "placeholders": ["header", "1", "2"],
    }


def test_a_choice_that_fits_is_ready_to_be_sent() -> None:
    assert chosen("t1", GOOD, offers([ORDER])) == {
        "id": ORDER["id"],
        "template_name": "order_update",
        "language": "en_US",
        "values": {"header": {"type": "text", "text": "A-17"}, "body": {"1": "Ana", "2": "A-17"}},
        "text": "Order A-17\nHello Ana, about your order A-17: may we write to you?",
    }
    assert chosen("t1", [], offers([HELLO])) is not None


def test_a_choice_that_does_not_fit_is_none() -> None:
    offered = offers([ORDER])
    for ref, values in (
        ("none", []),
        ("t2", GOOD),
        (["t1"], GOOD),
        ("t1", GOOD[:2]),
        ("t1", [*GOOD, {"name": "3", "value": "x"}]),
        ("t1", None),
        ("t1", [*GOOD[:2], {"name": "2", "value": ""}]),
        ("t1", [*GOOD[:2], {"name": "2", "value": 17}]),
        ("t1", [*GOOD[:2], {"name": "2", "value": "x" * 201}]),
        ("t1", [*GOOD[:2], {"name": "2", "value": "click HTTPS://evil.example"}]),
        ("t1", [*GOOD[:2], {"name": "2", "value": "{{1}}"}]),
    ):
        assert chosen(ref, values, offered) is None, (ref, values)


def test_an_unfit_choice_is_dropped_and_the_text_stays() -> None:
    message = NewMessage(UUID(int=1), "Where is A-17?", 1, datetime(2026, 11, 1, tzinfo=UTC))
    question = Question((message,), (), DEFAULT_INTENTS, "Brief.", False, offers([ORDER]))
    schema: Any = answer_schema(list(DEFAULT_INTENTS), ["t1"])
    entry: dict[str, Any] = {
        name: 0.5 if about["type"] == "number" else "x"
        for name, about in schema["properties"]["entries"]["items"]["properties"].items()
    }
    entry |= {"ref": "m1", "sentiment": "neutral", "intent": "other", "priority": "low", "template": "t1"}

    [unfit] = read_answer(json.dumps({"entries": [entry | {"template_values": GOOD[:1]}]}), question)
    [fit] = read_answer(json.dumps({"entries": [entry | {"template_values": GOOD}]}), question)

    assert "suggested_template" not in unfit.result
    assert unfit.result["suggested_response"]["value"] == "x"
    assert fit.result["suggested_template"]["values"]["body"] == {"1": "Ana", "2": "A-17"}
    assert data(question)["templates"] == [offers([ORDER])[0].shown()]
    assert "template" not in answer_schema(["other"])["properties"]["entries"]["items"]["properties"]  # type: ignore[index]
