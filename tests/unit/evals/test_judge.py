"""When an answer counts as right."""

from __future__ import annotations

from typing import Any

import pytest

from services.ai_worker.examples import Labels
from services.ai_worker.message_analysis import Accepted
from tests.evals.judge import NO_ANSWER, Verdict, holds, judge
from tests.unit.evals.runs import accepted


@pytest.mark.parametrize(
    ("text", "phrase", "is_held"),
    [
        ("Asks where order 30418 is.", "30418", True),
        ("Asks where order 304181 is.", "30418", False),
        ("Paid 3 150 kr twice.", "3150", True),
        ("Paid 3 150 kr twice.", "150", False),
        ("Complains about SPÄTE Lieferung", "späte", True),
        ("Wants an assembly quote", "assembl*", True),
        ("Wants an assembly quote", "assembl", True),
        ("She fell ill", "ill", True),
        ("A billing question", "ill", False),
        ("Is illegal", "ill", False),
        ("Two legs are missing", "leg*", True),
        ("Your refund has been approved.", "refund … approved", True),
        ("Your refund, glad to say, was approved.", "refund … approved", True),
        ("Your refund is in hand. Our boss, who never once in ten years approved", "refund … approved", False),
        ("Sie erhalten 50 % Rabatt!", "erhalten 50 %", True),
        ("L’article n'est pas là", "l'article", True),
        ("", "x", False),
    ],
)
def test_a_phrase_is_held_as_words(text: str, phrase: str, is_held: bool) -> None:
    assert holds(text, phrase) is is_held


LABELS = Labels(
    sentiment="negative",
    intents=["complaint", "refund"],
    priorities=["high", "normal"],
    languages=["pt-BR"],
    summary_mentions=[["7741"], ["half", "missing"]],
    response_avoids=["has been refunded"],
)
RIGHT: dict[str, Any] = {
    "intent": "refund",
    "priority": "normal",
    "language": "pt",
    "summary": "Half of order 7741 is gone.",
    "suggested_response": "Which half?",
}


def test_any_acceptable_answer_is_right() -> None:
    verdicts = judge(LABELS, accepted("Metade!", **RIGHT))

    assert all(verdict.is_right for verdict in verdicts.values())
    assert verdicts["intent"] == Verdict("refund", "refund", True, 0.9)
    assert list(verdicts) == [
        *("sentiment", "intent", "priority", "language", "summary", "suggested_response", "evidence"),
        "length",
    ]


@pytest.mark.parametrize(
    ("said", "field", "verdict"),
    [
        ({"sentiment": "neutral"}, "sentiment", Verdict("negative", "neutral", False, 0.9)),
        ({"intent": "thanks"}, "intent", Verdict("complaint", "thanks", False, 0.9)),
        ({"priority": "low"}, "priority", Verdict("high", "low", False, 0.9)),
        ({"language": "pt-PT"}, "language", Verdict("pt-BR", "pt-PT", False)),
        ({"summary": "Is unhappy."}, "summary", Verdict("complete", "incomplete", False, 0.9, "lacks 7741, half")),
        (
            {"suggested_response": "Your money has been refunded!"},
            "suggested_response",
            Verdict("careful", "promises", False, 0.9, "claims has been refunded"),
        ),
        (
            {"intent_evidence": "all of it"},
            "evidence",
            Verdict("quoted", "invented", False, None, "not quoted: intent"),
        ),
        ({"summary": "so " * 26}, "length", Verdict("kept", "too long", False, None, "summary of 26 words")),
    ],
)
def test_what_is_wrong_says_why(said: dict[str, Any], field: str, verdict: Verdict) -> None:
    assert judge(LABELS, accepted("Metade!", **(RIGHT | said)))[field] == verdict


def test_no_answer_is_wrong_in_every_field_that_is_labelled() -> None:
    verdicts = judge(LABELS, None)

    assert len(verdicts) == 8
    assert {verdict.said for verdict in verdicts.values()} == {NO_ANSWER}
    assert not any(verdict.is_right for verdict in verdicts.values())


@pytest.mark.parametrize("answer", [None, accepted("Hi")])
def test_what_no_label_speaks_about_is_not_judged(answer: Accepted | None) -> None:
    assert list(judge(Labels(), answer)) == ["evidence", "length"]
