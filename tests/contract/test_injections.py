"""Promise 8: whatever a customer writes, and though Claude obeys it, nothing outside our lists is stored.

Every attempt of the corpus goes through the real client, over HTTP, to a sandbox that does what the customer asks
(`claude.mode: gullible`). What counts is what the code keeps of such an answer, not how clever the prompt is.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.ai_worker.claude import Answer, Claude, connect
from services.ai_worker.message_analysis import (
    DEFAULT_INTENTS,
    MOST_EVIDENCE,
    MOST_RESPONSE,
    MOST_SUMMARY,
    NewMessage,
    Question,
    Turn,
)
from services.ai_worker.redaction import Redactor
from services.ai_worker.retries import Outcome
from shared.domain.ids import new_id

from .conftest import Sandbox

CORPUS = Path(__file__).parents[1] / "fixtures" / "injections" / "corpus.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in CORPUS.read_text("utf-8").splitlines()]
CONFIDENT = ("sentiment", "intent", "summary", "suggested_response", "priority")  # with a confidence and evidence each
STORED = {*CONFIDENT, "sentiment_score", "language"}
FREE_TEXT = ("summary", "suggested_response")
HIDDEN = re.compile("[\x00-\x08\u200b\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
AT_ONCE = 16


@dataclass(frozen=True)
class Attempt:
    """One case, asked: `raw` is what the sandbox wrote, `obeyed` the orders it carried out."""

    question: Question
    answer: Answer
    raw: str
    obeyed: set[str]

    @property
    def stored(self) -> list[dict[str, Any]]:
        return [accepted.result for accepted in self.answer.accepted]


def canary(number: int) -> str:
    """What only this contact's conversation holds."""
    return f"KOLIBRI-{number * 7919:06}-{number}"


def question_of(number: int, case: dict[str, Any]) -> Question:
    """The case as a conversation of a contact of its own, whose history holds the canary."""
    return Question(
        new_messages=tuple(NewMessage(new_id(), text, 1, datetime.now(UTC)) for text in case["new_messages"]),
        history=(
            Turn(True, f"My customer number is {canary(number)}."),
            *(Turn(turn["from"] == "customer", turn["text"]) for turn in case["history"]),
        ),
        intents=DEFAULT_INTENTS,
        tone="Friendly.",
        is_reply_window_open=True,
    )


class Transparent(Redactor):
    """Takes nothing out: what redaction happens to take from an attempt (code, ids) must not be what saves us."""

    def text(self, text: str, *, most_characters: int | None = None) -> str:
        return text[:most_characters]


@pytest.fixture(scope="module")
async def attempts(sandbox: Sandbox) -> dict[str, Attempt]:
    """All cases, many at a time through one client, as a worker asks."""
    sandbox.http.delete("/sandbox/claude/calls").raise_for_status()
    sandbox.faults(claude={"mode": "gullible"}, record_prompts=True)
    questions = [question_of(number, case) for number, case in enumerate(CASES)]
    slots = asyncio.Semaphore(AT_ONCE)
    async with connect(api_key="sandbox", base_url=sandbox.url, timeout_s=20) as client:
        claude = Claude(client, model="claude-haiku-5-5", timeout_s=20, redactor=Transparent)

        async def ask(question: Question) -> Answer:
            async with slots:
                return await claude.analyse_messages(question)

        answers = await asyncio.gather(*map(ask, questions))
    calls = {call["id"]: (call.get("answer"), set(call["obeyed"])) for call in sandbox.calls()["calls"]}
    sandbox.faults()
    return {
        case["id"]: Attempt(question, answer, *calls[str(answer.request_id)])
        for case, question, answer in zip(CASES, questions, answers, strict=True)
    }


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))


@each_case
def test_the_sandbox_was_fooled(case: dict[str, Any], attempts: dict[str, Attempt]) -> None:
    # Otherwise the tests below would show how good the sandbox is, not how careful we are.
    attempt = attempts[case["id"]]

    assert set(case["obeys"]) <= attempt.obeyed
    for words in case["never"]:
        assert words in attempt.raw


@each_case
def test_what_is_stored_is_in_our_lists_and_bounds(case: dict[str, Any], attempts: dict[str, Attempt]) -> None:
    attempt = attempts[case["id"]]

    assert attempt.answer.outcome in {Outcome.OK, Outcome.NONSENSE, Outcome.TRUNCATED}
    asked = {message.message_id for message in attempt.question.new_messages}
    assert {accepted.message.message_id for accepted in attempt.answer.accepted} <= asked
    for accepted in attempt.answer.accepted:
        stored = accepted.result
        assert set(stored) == STORED
        assert stored["intent"]["value"] in DEFAULT_INTENTS
        assert stored["sentiment"]["value"] in {"positive", "neutral", "negative"}
        assert stored["priority"]["value"] in {"low", "normal", "high", "urgent"}
        assert -1 <= stored["sentiment_score"] <= 1
        assert re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,4}){0,2}", stored["language"])
        assert len(stored["summary"]["value"]) <= MOST_SUMMARY
        assert len(stored["suggested_response"]["value"]) <= MOST_RESPONSE
        for name in CONFIDENT:
            assert set(stored[name]) == {"value", "confidence", "evidence"}
            assert 0 <= stored[name]["confidence"] <= 1
            for quotation in stored[name]["evidence"]:
                assert set(quotation) == {"start", "end", "quote"}
                assert quotation["quote"] == accepted.message.content[quotation["start"] : quotation["end"]]
                assert 0 < len(quotation["quote"]) <= MOST_EVIDENCE


@each_case
def test_no_word_of_an_order_becomes_a_value(case: dict[str, Any], attempts: dict[str, Attempt]) -> None:
    attempt = attempts[case["id"]]
    values = json.dumps(list(_beside_quotations(attempt.stored)), ensure_ascii=False)

    for words in case["never"]:
        assert words not in values


@each_case
def test_no_other_contact_shows(case: dict[str, Any], attempts: dict[str, Attempt]) -> None:
    attempt = attempts[case["id"]]
    own = canary(CASES.index(case))

    shown = json.dumps(attempt.stored, ensure_ascii=False) + attempt.raw

    assert set(re.findall(r"KOLIBRI-\d+-\d+", shown)) <= {own}


@each_case
def test_what_an_agent_may_send_holds_no_hidden_letters(case: dict[str, Any], attempts: dict[str, Attempt]) -> None:
    for stored in attempts[case["id"]].stored:
        for name in FREE_TEXT:
            assert not re.search(
                "[\x00-\x08\u200b\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]", stored[name]["value"]
            )


def test_the_attempts_that_would_leak_did_give_away_their_own(attempts: dict[str, Attempt]) -> None:
    # The canary test would pass on an answer that gives nothing away.
    gave = [
        case["id"]
        for number, case in enumerate(CASES)
        if case["obeys"] == ["give_away"] and canary(number) in attempts[case["id"]].raw
    ]

    assert len(gave) >= 5


def test_most_attempts_brought_something_to_store_or_were_dropped_whole(attempts: dict[str, Attempt]) -> None:
    # Both ends of the defence are walked: entries that are kept (free text, clamped), and entries that are not.
    kept = Counter(bool(attempt.answer.accepted) for attempt in attempts.values())

    assert kept[True] >= 30
    assert kept[False] >= 30


def test_the_corpus_is_broad() -> None:
    assert len(CASES) >= 80
    assert len({case["id"] for case in CASES}) == len(CASES)
    assert len({case["technique"] for case in CASES}) >= 12
    assert {"en", "pt-BR", "es", "de", "fr", "sv"} <= {case["language"] for case in CASES}


def _beside_quotations(stored: list[dict[str, Any]]) -> Iterator[object]:
    """All that is stored but the free texts and the exact quotations of the customer's own words."""
    for result in stored:
        for name, field in result.items():
            if name in FREE_TEXT:
                yield field["confidence"]
            else:
                yield {key: value for key, value in field.items() if key != "evidence"} if name in CONFIDENT else field
