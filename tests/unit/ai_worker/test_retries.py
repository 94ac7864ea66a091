"""When a call is made again: read aloud, and always with an end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ai_worker.retries import MOST_ATTEMPTS, RETRY_AFTER_S, Next, Outcome, next_step

FAILURES = [outcome for outcome in Outcome if outcome not in (Outcome.OK, Outcome.CIRCUIT_OPEN)]
CONTENT = [
    *(Outcome.REFUSED, Outcome.INVALID, Outcome.TRUNCATED, Outcome.NONSENSE),
    *(Outcome.NOT_REDACTED, Outcome.TOO_LARGE),
]
WEATHER = [outcome for outcome in FAILURES if outcome not in CONTENT]


def pauses(outcome: Outcome, *, retry_after_s: float | None = None) -> list[float]:
    """Every pause of a conversation with one message, until it is given up."""
    found: list[float] = []
    for attempt in range(1, 100):
        step = next_step(outcome, attempt=attempt, messages=1, retry_after_s=retry_after_s)
        if step.retry_in_s is None:
            return found
        found.append(step.retry_in_s)
    raise AssertionError(f"{outcome} is tried for ever")


@pytest.mark.parametrize(
    ("outcome", "schedule"),
    [
        (Outcome.REFUSED, []),
        (Outcome.INVALID, []),
        (Outcome.TRUNCATED, [1, 5]),
        (Outcome.NONSENSE, [1, 5]),
        (Outcome.OVERLOADED, [5, 30, 120, 300, 600, 600, 600]),
        (Outcome.TIMEOUT, [5, 30, 120, 300, 600, 600, 600]),
        (Outcome.UNREACHABLE, [5, 30, 120, 300, 600, 600, 600]),
        (Outcome.NOT_AUTHORISED, [5, 30, 120, 300, 600, 600, 600]),
    ],
)
def test_each_failure_is_tried_again_on_its_schedule_and_then_given_up(outcome: Outcome, schedule: list[float]) -> None:
    assert pauses(outcome) == schedule


def test_every_failure_has_a_schedule() -> None:
    assert set(RETRY_AFTER_S) == set(FAILURES)


def test_a_schedule_ends_before_its_worker_is_called_lost() -> None:
    assert max(len(schedule) for schedule in RETRY_AFTER_S.values()) + 1 <= MOST_ATTEMPTS


@pytest.mark.parametrize("outcome", CONTENT)
@pytest.mark.parametrize("attempt", [1, 7, 100])
def test_one_bad_message_among_several_is_looked_for_at_once(outcome: Outcome, attempt: int) -> None:
    assert next_step(outcome, attempt=attempt, messages=2) == Next(retry_in_s=0, isolate=True)


@pytest.mark.parametrize("outcome", WEATHER)
def test_the_weather_isolates_nobody(outcome: Outcome) -> None:
    assert next_step(outcome, attempt=1, messages=20) == Next(retry_in_s=5, isolate=False)
    assert next_step(outcome, attempt=7, messages=20) == Next(retry_in_s=600, isolate=False)
    assert next_step(outcome, attempt=8, messages=20) == Next(retry_in_s=None, isolate=False)


@pytest.mark.parametrize(
    ("retry_after_s", "schedule"),
    [
        (None, [5, 30, 120, 300, 600, 600, 600]),
        (0, [5, 30, 120, 300, 600, 600, 600]),
        (1, [5, 30, 120, 300, 600, 600, 600]),
        (60, [60, 60, 120, 300, 600, 600, 600]),
        (86_400, [600] * 7),
        (-5, [5, 30, 120, 300, 600, 600, 600]),
        (float("nan"), [5, 30, 120, 300, 600, 600, 600]),
        (float("inf"), [600] * 7),
    ],
)
def test_what_the_api_asks_for_is_honoured_up_to_ten_minutes(
    retry_after_s: float | None, schedule: list[float]
) -> None:
    assert pauses(Outcome.OVERLOADED, retry_after_s=retry_after_s) == schedule


@given(
    outcome=st.sampled_from(FAILURES),
    attempt=st.integers(1, 1000),
    messages=st.integers(1, 20),
    retry_after_s=st.none() | st.floats(),
)
def test_a_pause_is_always_one_the_database_can_add(
    outcome: Outcome, attempt: int, messages: int, retry_after_s: float | None
) -> None:
    step = next_step(outcome, attempt=attempt, messages=messages, retry_after_s=retry_after_s)

    assert step.retry_in_s is None or 0 <= int(step.retry_in_s * 1000) <= 600_000
    assert step.isolate is (outcome in CONTENT)


def test_what_was_not_asked_since_claude_is_out_is_never_given_up() -> None:
    for attempt in (1, 10, 1000):
        step = next_step(Outcome.CIRCUIT_OPEN, attempt=attempt, messages=3, retry_after_s=20)

        assert step == Next(retry_in_s=20, isolate=False)
