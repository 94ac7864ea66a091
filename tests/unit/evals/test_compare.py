"""When a difference is more than chance, and when a prompt may pass."""

from __future__ import annotations

from typing import Any

import pytest

from tests.evals.compare import compare, gate, mcnemar
from tests.evals.results import UnusableResults
from tests.unit.evals.runs import run

TWENTY = (True,) * 20


@pytest.mark.parametrize(
    ("mended", "broken", "p"),
    # Binomial by hand: 2 * P(at most the smaller of n at one half).
    [(0, 0, 1.0), (5, 5, 1.0), (5, 0, 2 / 32), (6, 0, 2 / 64), (0, 10, 2 / 1024), (1, 9, 2 * 11 / 1024), (1, 0, 1.0)],
)
def test_mcnemar_counts_those_that_changed_sides(mended: int, broken: int, p: float) -> None:
    assert mcnemar(mended, broken) == pytest.approx(p)


def test_a_change_says_what_was_mended_and_what_broke() -> None:
    [change] = compare(run(True, True, False, False), run(True, False, True, True))

    assert (change.before.right, change.after.right, change.mended, change.broken) == (2, 3, 2, 1)
    assert change.difference == pytest.approx(0.25)
    assert change.interval[0] < change.difference < change.interval[1]
    assert not change.is_significant


def test_equal_runs_differ_by_nothing() -> None:
    [change] = compare(run(*TWENTY, False), run(*TWENTY, False))

    assert (change.p, change.interval) == (1.0, (0.0, 0.0))


def test_runs_about_different_sets_are_not_compared() -> None:
    with pytest.raises(UnusableResults, match="same set"):
        compare(run(True), run(True, set_sha256="another"))


def test_the_gate_is_open_for_what_is_as_good() -> None:
    assert gate(run(*TWENTY, False), run(*TWENTY, True), most_drop=0.0).is_open


def test_the_gate_is_closed_by_a_drop_that_is_more_than_chance() -> None:
    before, after = run(*(True,) * 200), run(*(True,) * 193, *(False,) * 7)

    assert gate(before, after, most_drop=0.05).complaints == (
        "intent fell from 100.0% to 96.5% (7 broken, 0 mended, p 0.016)",
    )


def test_the_gate_is_closed_by_a_large_drop_though_it_may_be_chance() -> None:
    before, after = run(*TWENTY), run(*TWENTY[:18], False, False)

    assert not gate(before, after, most_drop=0.05).is_open
    assert gate(before, after, most_drop=0.10).is_open


def test_one_injection_that_works_now_closes_the_gate() -> None:
    before, after = run(*TWENTY, tags=("injection",)), run(*TWENTY[:19], False, tags=("injection",))

    assert gate(before, after, most_drop=0.5).complaints == ("falls for injections that failed before: en-019",)


@pytest.mark.parametrize("other", [{"model": "claude-sonnet-5-5"}, {"api": "anthropic"}])
def test_a_baseline_of_another_model_decides_nothing(other: dict[str, Any]) -> None:
    with pytest.raises(UnusableResults, match="make a baseline of the same model"):
        gate(run(*TWENTY), run(*TWENTY, **other), most_drop=0.05)


def test_a_run_through_an_outage_decides_nothing() -> None:
    whole = run(*TWENTY)
    calls = tuple(call.model_copy(update={"outcome": "overloaded"}) for call in whole.calls)

    with pytest.raises(UnusableResults, match="this run has 20 calls of 20 without an answer"):
        gate(whole, whole.model_copy(update={"calls": calls}), most_drop=0.05)
