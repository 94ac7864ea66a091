"""Figures are what textbooks say they are."""

from __future__ import annotations

import math

import pytest

from tests.evals import figures
from tests.evals.figures import Accuracy, Bin
from tests.evals.results import Judged
from tests.unit.evals.runs import run, verdict


@pytest.mark.parametrize(
    ("right", "judged", "interval"),
    # Wilson's interval without continuity correction, by hand from the formula.
    [(8, 10, (0.490, 0.943)), (0, 10, (0.0, 0.278)), (10, 10, (0.722, 1.0)), (50, 100, (0.404, 0.596))],
)
def test_accuracy_knows_how_little_it_knows(right: int, judged: int, interval: tuple[float, float]) -> None:
    assert Accuracy(right, judged).interval == pytest.approx(interval, abs=0.001)


def test_nothing_judged_is_no_accuracy() -> None:
    nothing = Accuracy(0, 0)

    assert math.isnan(nothing.share)
    assert nothing.interval == (0.0, 1.0)


def _messages(*stated: tuple[float, bool]) -> list[Judged]:
    return [
        Judged(example=f"en-{n:03}", number=0, language="en", tags=(), verdicts={"intent": verdict(right, confidence)})
        for n, (confidence, right) in enumerate(stated)
    ]


def test_calibration_is_the_gap_between_how_sure_and_how_often_right() -> None:
    found = figures.calibration(_messages((0.9, True), (0.9, True), (0.95, False), (0.3, True), (1.0, True)), "intent")

    assert found is not None
    assert [one.low for one in found.bins] == [0.3, 0.9]
    assert found.bins[0] == Bin(0.3, 1, 0.3, 1.0)
    assert found.bins[1].confidence == pytest.approx(0.9375)
    assert found.ece == pytest.approx((1 * 0.7 + 4 * (0.9375 - 0.75)) / 5)
    assert found.brier == pytest.approx((0.01 + 0.01 + 0.9025 + 0.49 + 0) / 5)


def test_a_field_without_confidence_has_no_calibration() -> None:
    message = Judged(example="a", number=0, language="en", tags=(), verdicts={"intent": verdict(True, None)})

    assert figures.calibration([message], "intent") is None


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.9, 9), (0.99, 10), (1.0, 10), (0.0, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: int) -> None:
    assert figures.percentile([10, 1, 9, 2, 8, 3, 7, 4, 6, 5], share) == value
    assert figures.percentile([], share) == 0.0


def test_messages_are_counted_under_each_of_their_cases() -> None:
    messages = [
        *run(True, False, tags=("sarcasm", "negation")).messages,
        *run(True).messages,
    ]

    counted = {tag: figures.accuracy(group, "intent") for tag, group in figures.by_tag(messages).items()}

    assert counted == {"sarcasm": Accuracy(1, 2), "negation": Accuracy(1, 2), "plain": Accuracy(1, 1)}


def test_the_cache_share_is_of_all_that_was_read() -> None:
    assert figures.cache_read_share(run(True, True)) == pytest.approx(0.75)
