"""The clocks' inequalities: the defaults keep them all, and each one broken is told."""

from __future__ import annotations

import pytest

from shared.settings.clocks import Clocks


def test_the_defaults_have_no_problems() -> None:
    assert Clocks().problems() == []


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"redis_block_s": 5.0}, "redis_block_s must be under redis_read_timeout_s"),
        ({"batch_deadline_s": 15.0, "drain_hold_s": 60.0}, "batch_deadline_s must be under pending_idle_s"),
        ({"drain_hold_s": 5.0}, "batch_deadline_s must be under drain_hold_s"),
        ({"renew_every_s": 10.0}, "lease_s must outlast two renewals"),
        ({"poll_every_s": 24.0}, "must fit the promised time"),
        ({"settle_s": 20.0}, "must fit the promised time"),
        ({"pending_idle_s": 34.0}, "must fit the promised time"),
        ({"lease_s": 39.0}, "must fit the promised time"),
        ({"promised_s": 41.0}, "must fit the promised time"),
        ({"send_connect_timeout_s": 10.0}, "send_connect_timeout_s must be under send_timeout_s"),
        ({"send_timeout_s": 20.0, "drain_s": 21.0}, "lease_s must exceed send_timeout_s"),
        ({"drain_s": 10.0}, "send_timeout_s must be under drain_s"),
        ({"doubt_grace_s": 26.0}, "doubt_grace_s must outlast a lease"),
        ({"claude_timeout_s": 90.0}, "claude_timeout_s must be under analysis_deadline_s"),
        ({"drain_s": 26.0}, "shutdown must end before the orchestrator kills"),
        ({"unready_s": 8.0}, "shutdown must end before the orchestrator kills"),
        ({"flush_s": 8.0}, "shutdown must end before the orchestrator kills"),
        ({"orchestrator_s": 24.0}, "shutdown must end before the orchestrator kills"),
    ],
)
def test_each_inequality_broken_is_told_alone(broken: dict[str, float], told: str) -> None:
    problems = Clocks(**broken).problems()

    assert len(problems) == 1
    assert told in problems[0]


def test_all_that_is_broken_is_told_at_once() -> None:
    clocks = Clocks(
        redis_block_s=9, batch_deadline_s=99, renew_every_s=99, promised_s=1, claude_timeout_s=99, drain_s=99
    )

    assert len(clocks.problems()) == 7
