"""What an agent reads when a message is not taken, and what tells one request from another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.sender.send_message import window_sentence
from shared.web.idempotency import digest_of

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ago", "sentence"),
    [
        (None, "The customer has not written yet; send a template to begin."),
        (timedelta(hours=24), "The customer last wrote 24 hours ago; send a template instead."),
        (timedelta(hours=31, minutes=59), "The customer last wrote 31 hours ago; send a template instead."),
        (timedelta(hours=71, minutes=59), "The customer last wrote 71 hours ago; send a template instead."),
        (timedelta(hours=72), "The customer last wrote 3 days ago; send a template instead."),
        (timedelta(days=400), "The customer last wrote 400 days ago; send a template instead."),
    ],
)
def test_a_closed_window_is_told_in_hours_then_in_days(ago: timedelta | None, sentence: str) -> None:
    assert window_sentence(NOW - ago if ago is not None else None, now=NOW) == sentence


def test_the_order_of_keys_makes_no_other_request() -> None:
    first = digest_of("send", {"a": 1, "b": [1, 2]})

    assert digest_of("send", {"b": [1, 2], "a": 1}) == first
    assert digest_of("send", {"a": 1, "b": [2, 1]}) != first
    assert digest_of("retry", {"a": 1, "b": [1, 2]}) != first
    assert len(bytes.fromhex(first)) == 32
