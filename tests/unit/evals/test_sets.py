"""The labelled sets are what their README says: broad, balanced, original lines, each in its place."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from services.ai_worker.examples import Example, Tag
from services.ai_worker.message_analysis import DEFAULT_INTENTS
from tests.evals.sets import FOLDER, UnusableSet, choose, labelled_set, language_of, read_sets

WHOLE = read_sets([FOLDER])
LANGUAGES = {"en", "pt-BR", "es", "de", "fr", "sv"}


def test_there_are_enough_in_every_language() -> None:
    counts = Counter(language_of(example) for example in WHOLE.examples)

    assert len(WHOLE.examples) >= 150
    assert set(counts) == LANGUAGES
    assert min(counts.values()) >= 0.9 * max(counts.values())


def test_every_language_has_every_hard_case() -> None:
    found = {(language_of(example), tag) for example in WHOLE.examples for tag in example.tags}

    hard = set(get_args(Tag)) - {"correction"}
    assert {(language, tag) for language in LANGUAGES for tag in hard} == found


def test_every_intent_sentiment_and_priority_is_expected_somewhere() -> None:
    labels = [message.labels for example in WHOLE.examples for message in example.new_messages]

    assert {intent for one in labels for intent in one.intents or []} == set(DEFAULT_INTENTS)
    assert min(Counter(one.sentiment for one in labels).values()) >= 30
    assert {priority for one in labels for priority in one.priorities or []} == {"low", "normal", "high", "urgent"}


def test_files_are_named_after_their_language_and_written_as_we_write_them() -> None:
    for file in FOLDER.glob("*.jsonl"):
        for line in file.read_text("utf-8").splitlines():
            example = Example.model_validate_json(line)
            assert example.line() == line, example.id
            assert language_of(example) == file.stem
            assert example.id.startswith(file.stem.lower())
            assert ("closed-window" in example.tags) == (example.reply_window == "closed")


def test_nobody_real_is_in_the_set() -> None:
    # Addresses at example.com, links to .example; numbers that regulators keep free: +1 202 555 01xx, 030 23125 xxx,
    # 06 39 98 xx xx, 070-174 06 05 to 99.
    text = "\n".join(example.line() for example in WHOLE.examples)

    assert all(address.endswith("@example.com") for address in re.findall(r"\S+@[\w.-]+\w", text))
    assert "http" not in text
    numbers = {re.sub(r"\D", "", found) for found in re.findall(r"(?:\+|\b0)\d[\d -]{8,}\d", text)}
    assert numbers == {"12025550147", "03023125014", "0639981240", "0701740605"}


def test_a_few_are_spread_over_the_languages() -> None:
    assert {language_of(example) for example in choose(WHOLE, languages=[], tags=[], most=12).examples} == LANGUAGES


def test_a_choice_is_a_set_of_its_own() -> None:
    some = choose(WHOLE, languages=["sv"], tags=["sarcasm"], most=None)

    assert {language_of(example) for example in some.examples} == {"sv"}
    assert some.sha256 != WHOLE.sha256
    with pytest.raises(UnusableSet, match="no example is left"):
        choose(WHOLE, languages=["tlh"], tags=[], most=None)


def test_what_stands_twice_is_refused() -> None:
    one = WHOLE.examples[0]

    with pytest.raises(UnusableSet, match=f"the id of {one.id}"):
        labelled_set([one, one])
    with pytest.raises(UnusableSet, match=f"the text of {one.id}"):
        labelled_set([one, one.model_copy(update={"id": "another"})])


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "Invalid JSON"),
        ('{"id": "x-1", "new_messages": []}', "new_messages: List should have at least 1 item"),
        ('{"id": "x-1", "new_messages": [{"text": "a", "labels": {"sentimet": "neutral"}}]}', "sentimet: Extra inputs"),
        (
            '{"id": "x-1", "new_messages": [{"text": "a", "labels": {"intents": ["whim"]}}]}',
            "not in the taxonomy: whim",
        ),
        ('{"id": "x-1", "tags": ["sarcastic"], "new_messages": [{"text": "a", "labels": {}}]}', "tags.0: Input should"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(f"\n{line}\n", "utf-8")

    with pytest.raises(UnusableSet, match=r"own\.jsonl, line 2: ") as problem:
        read_sets([file])

    assert complaint in str(problem.value)
