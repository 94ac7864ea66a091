"""The status of a message is the greatest of what was reported, in whatever order."""

from __future__ import annotations

from functools import reduce
from itertools import permutations, product

import pytest

from shared.domain.message_status import RANK, MessageStatus, advance


def test_ranks_are_those_decided() -> None:
    assert dict(RANK) == {"queued": 0, "sent": 1, "failed": 2, "delivered": 3, "read": 4, "played": 5}


@pytest.mark.parametrize(("current", "reported"), list(product(MessageStatus, MessageStatus)))
def test_a_report_never_takes_a_status_back(current: MessageStatus, reported: MessageStatus) -> None:
    assert RANK[advance(current, reported)] == max(RANK[current], RANK[reported])


def test_late_delivered_does_not_undo_read() -> None:
    assert advance(MessageStatus.READ, "delivered") is MessageStatus.READ


def test_every_order_of_reports_ends_the_same() -> None:
    reports = ["sent", "delivered", "failed", "read", "warning"]

    assert {reduce(advance, order, MessageStatus.QUEUED) for order in permutations(reports)} == {MessageStatus.READ}


@pytest.mark.parametrize("reported", ["warning", "deleted", "READ", "read ", ""])
def test_an_unknown_status_moves_nothing(reported: str) -> None:
    assert advance(MessageStatus.SENT, reported) is MessageStatus.SENT
