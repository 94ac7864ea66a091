"""A correction becomes an example that holds what the agent said, and nobody's data."""

from __future__ import annotations

import re
from dataclasses import replace
from uuid import UUID

import pytest

from services.ai_worker.examples import Correction, Example, Labels, example_from_correction
from services.ai_worker.message_analysis import DEFAULT_INTENTS, Turn

CORRECTION = Correction(
    text="Ring me at 020 7946 0321, the oven is on fire",
    history=(Turn(True, "I am at 020 7946 0321"), Turn(False, "How can we help?")),
    fields={"priority": "urgent", "suggested_response": "We call 020 7946 0321 now."},
    intents=None,
    tone=None,
    is_reply_window_open=False,
)


def redact(text: str) -> str:
    return re.sub(r"\d[\d ]{8,}\d", "[number]", text)


def test_only_what_the_agent_set_is_a_label() -> None:
    example = example_from_correction(CORRECTION, redact=redact)

    assert example.new_messages[0].labels == Labels(priorities=["urgent"], response_reference="We call [number] now.")
    assert (example.tags, example.reply_window) == (["correction", "closed-window"], "closed")


def test_every_text_is_redacted() -> None:
    line = example_from_correction(CORRECTION, redact=redact).line()

    assert "7946" not in line
    assert line.count("[number]") == 3


def test_the_same_correction_makes_the_same_line_and_reads_back() -> None:
    one, again = (example_from_correction(CORRECTION, redact=redact) for _ in range(2))

    assert one.line() == again.line()
    assert Example.model_validate_json(one.line()) == one
    assert example_from_correction(replace(CORRECTION, text="Another"), redact=redact).id != one.id


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"intent": "whim"}, "not in the taxonomy: whim"),
        ({"priority": "asap"}, "Input should be 'low', 'normal', 'high' or 'urgent'"),
        ({"score": "100"}, "no labels for: score"),
    ],
)
def test_what_is_no_label_is_refused(fields: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        example_from_correction(replace(CORRECTION, fields=fields), redact=redact)


def test_a_workspaces_own_intents_travel_with_the_example() -> None:
    own = replace(CORRECTION, fields={"intent": "oven"}, intents={"oven": "about ovens"}, tone="Dry.")

    question = example_from_correction(own, redact=redact).question()

    assert (question.intents, question.tone) == ({"oven": "about ovens"}, "Dry.")
    assert question.is_reply_window_open is False


def test_an_example_asks_as_the_worker_does_and_its_messages_keep_their_ids() -> None:
    example = example_from_correction(CORRECTION, redact=redact)

    first, second = example.question(), example.question()

    assert first == second
    assert first.intents == DEFAULT_INTENTS
    assert first.history == (Turn(True, "I am at [number]"), Turn(False, "How can we help?"))
    assert isinstance(first.new_messages[0].message_id, UUID)
