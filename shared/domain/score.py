"""How promising a contact is, 0 to 100: named features, weighed, and what is left of it as time passes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

# How much each feature counts, unless the workspace says otherwise. What they want and what it is worth lead: a
# cheerful customer who wants nothing scores less than a gruff one who is about to buy.
DEFAULT_WEIGHTS: Mapping[str, float] = {
    "intent_strength": 35,  # how clearly they want to buy, book or stay; Claude's reading
    "value_signals": 25,  # size, budget, repeated business; Claude's reading
    "sentiment_trend": 15,  # how they feel, and where that is going; from the analyses of their messages
    "engagement": 15,  # how much they have to say lately
    "recency": 10,  # how lately they wrote
}
DEFAULT_HALF_LIFE_DAYS = 30.0
_NEUTRAL = 0.5
_ENGAGED_DAYS = 14
_RECENT_HALF_LIFE_DAYS = 7.0


@dataclass(frozen=True, slots=True)
class Weights:
    """A workspace's way to score. `features` names every feature; weights are 0 or more, their sum is not 0."""

    features: Mapping[str, float]
    half_life_days: float


@dataclass(frozen=True, slots=True)
class Part:
    """One feature's share: value from 0 to 1, weight as a share of all weights, points of the score."""

    value: float
    weight: float
    points: int


@dataclass(frozen=True, slots=True)
class Score:
    """`points` from 0 to 100, the sum of the parts'."""

    points: int
    parts: Mapping[str, Part]
    half_life_days: float


def weights_of(setting: object) -> Weights:
    """Read a workspace's `score` setting leniently: {weights: {feature: number}, half_life_days}.

    What an owner mistyped counts as not said; weights that are all 0 as none given.
    """
    given = setting if isinstance(setting, dict) else {}
    named = given.get("weights")
    named = named if isinstance(named, dict) else {}
    features = {name: _number(named.get(name), low=0, high=1000, default=w) for name, w in DEFAULT_WEIGHTS.items()}
    if not any(features.values()):
        features = dict(DEFAULT_WEIGHTS)
    half_life = _number(given.get("half_life_days"), low=1, high=3650, default=DEFAULT_HALF_LIFE_DAYS)
    return Weights(features, half_life)


def score(features: Mapping[str, float], weights: Weights) -> Score:
    """Weigh features, each from 0 to 1 (clamped; not a number counts as 0).

    The points of the parts add up to the whole, so that it can be explained: remainders go to the largest first.
    """
    total = sum(weights.features.values())
    values = {name: _clamped(features[name]) for name in weights.features}
    exact = {name: 100 * values[name] * weight / total for name, weight in weights.features.items()}
    points = {name: math.floor(part) for name, part in exact.items()}
    whole = round(sum(exact.values()))
    order = sorted(exact, key=lambda name: points[name] - exact[name])
    for name in order[: whole - sum(points.values())]:
        points[name] += 1
    parts = {
        name: Part(round(values[name], 3), round(weight / total, 3), points[name])
        for name, weight in weights.features.items()
    }
    return Score(whole, parts, weights.half_life_days)


def decayed(points: int, *, age: timedelta, half_life_days: float) -> int:
    """Return what is left of a score after a time without a new one: half of it after each half-life.

    The database computes it for whoever reads (`app.decayed_score`); this is the rule.
    """
    days = max(0.0, age.total_seconds()) / 86400
    return round(points * math.pow(0.5, days / half_life_days))


def sentiment_trend(scores: Sequence[float]) -> float:
    """Turn sentiment scores (-1 to 1, oldest first) into 0 to 1; neutral when there are none.

    Each weighs a third more than the one before: how they feel now counts, and that it got better or worse.
    """
    if not scores:
        return _NEUTRAL
    weights = [(4 / 3) ** place for place in range(len(scores))]
    mean = sum(weight * value for weight, value in zip(weights, scores, strict=True)) / sum(weights)
    return _clamped((mean + 1) / 2)


def engagement(inbound_at: Sequence[datetime], *, now: datetime) -> float:
    """Turn the customer's messages of the last 14 days into 0 to 1: half for four of them, nearing 1 for many."""
    lately = sum(now - at <= timedelta(days=_ENGAGED_DAYS) for at in inbound_at)
    return _clamped(1 - 0.5 ** (lately / 4))


def recency(last_inbound_at: datetime | None, *, now: datetime) -> float:
    """Turn the time since the customer wrote into 0 to 1: 1 now, half after a week."""
    if last_inbound_at is None:
        return 0.0
    days = max(0.0, (now - last_inbound_at).total_seconds()) / 86400
    return _clamped(0.5 ** (days / _RECENT_HALF_LIFE_DAYS))


def _clamped(value: float) -> float:
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0


def _number(value: object, *, low: float, high: float, default: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]  # NaN is in no range
        return default
    return float(value)  # type: ignore[arg-type]
