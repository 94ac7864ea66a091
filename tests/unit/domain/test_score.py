"""The score: within bounds whatever comes in, explained by its parts, fading with time."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.score import (
    DEFAULT_HALF_LIFE_DAYS,
    DEFAULT_WEIGHTS,
    decayed,
    engagement,
    recency,
    score,
    sentiment_trend,
    weights_of,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ANYTHING = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.fixed_dictionaries(dict.fromkeys(DEFAULT_WEIGHTS, ANYTHING)),
    st.fixed_dictionaries({name: st.floats(0, 1000) for name in DEFAULT_WEIGHTS}),
)
def test_the_parts_add_up_to_a_score_within_bounds(features: dict[str, float], weights: dict[str, float]) -> None:
    made = score(features, weights_of({"weights": weights}))

    assert 0 <= made.points <= 100
    assert sum(part.points for part in made.parts.values()) == made.points
    assert all(part.points >= 0 and 0 <= part.value <= 1 for part in made.parts.values())


@pytest.mark.parametrize(("value", "points"), [(0.0, 0), (0.5, 50), (1.0, 100), (math.nan, 0), (math.inf, 0), (7, 100)])
def test_what_all_features_say_is_the_score(value: float, points: int) -> None:
    assert score(dict.fromkeys(DEFAULT_WEIGHTS, value), weights_of(None)).points == points


def test_a_weight_of_nothing_silences_its_feature() -> None:
    weights = weights_of({"weights": dict.fromkeys(DEFAULT_WEIGHTS, 0) | {"recency": 3}})

    made = score(dict.fromkeys(DEFAULT_WEIGHTS, 1.0) | {"recency": 0.25}, weights)

    assert made.points == made.parts["recency"].points == 25


@pytest.mark.parametrize(
    "setting",
    [None, [], "x", {}, {"weights": "all"}, {"weights": dict.fromkeys(DEFAULT_WEIGHTS, 0)}, {"half_life_days": 0},
     {"weights": {"recency": -1}}, {"weights": {"recency": True}, "half_life_days": "3"}, {"half_life_days": math.nan}],
)  # fmt: skip
def test_what_an_owner_mistyped_counts_as_not_said(setting: object) -> None:
    assert weights_of(setting) == weights_of({"weights": DEFAULT_WEIGHTS, "half_life_days": DEFAULT_HALF_LIFE_DAYS})


def test_half_of_a_score_is_left_after_each_half_life() -> None:
    left = [decayed(80, age=timedelta(days=days), half_life_days=30) for days in (-5, 0, 30, 60, 3000)]

    assert left == [80, 80, 40, 20, 0]


def test_how_they_feel_now_counts_more_than_how_they_felt() -> None:
    assert sentiment_trend([]) == 0.5
    assert sentiment_trend([-1.0]) == 0
    assert sentiment_trend([-1.0, 1.0]) > 0.5 > sentiment_trend([1.0, -1.0])


def test_engagement_counts_the_last_two_weeks() -> None:
    lately, long_ago = [NOW - timedelta(days=1)] * 4, [NOW - timedelta(days=15)] * 40

    assert engagement([*long_ago, *lately], now=NOW) == 0.5
    assert engagement(long_ago, now=NOW) == 0


def test_recency_halves_with_each_week() -> None:
    assert recency(None, now=NOW) == 0
    assert recency(NOW + timedelta(hours=1), now=NOW) == 1
    assert recency(NOW - timedelta(days=7), now=NOW) == 0.5
