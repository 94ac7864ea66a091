"""Slots are shared so that whoever comes new finds one."""

from __future__ import annotations

from services.sender.slots import share


def test_one_number_alone_takes_half() -> None:
    assert share(128, {}, {"a": 1000}) == {"a": 64}
    assert share(128, {"a": 64}, {"a": 1000}) == {}


def test_a_newcomer_finds_slots_while_others_hang() -> None:
    assert share(128, {"a": 64}, {"a": 1000, "b": 3}) == {"b": 3}
    assert share(128, {"a": 64}, {"a": 1000, "b": 1000}) == {"b": 32}
    assert share(128, {"a": 64, "b": 32}, {"c": 1000}) == {"c": 16}


def test_numbers_that_start_together_share_evenly() -> None:
    assert share(128, {}, {"a": 1000, "b": 1000, "c": 1000}) == {"a": 32, "b": 32, "c": 32}
    assert share(128, {"a": 10}, {"a": 1000, "b": 5}) == {"a": 51, "b": 5}


def test_with_more_numbers_than_slots_those_that_wait_longest_go() -> None:
    assert share(4, {}, dict.fromkeys("abcdef", 9)) == dict.fromkeys("abcd", 1)
    assert share(4, {"a": 2, "b": 1}, dict.fromkeys("abcdef", 9)) == {"c": 1}
    assert share(4, {"a": 4}, {"b": 1}) == {}


def test_never_more_than_wanted_nor_than_there_are() -> None:
    for slots in range(1, 40):
        for held in range(slots + 1):
            shares = share(slots, {"a": held}, {"b": 2, "a": 7, "c": 0})
            assert sum(shares.values()) <= slots - held
            assert shares.get("b", 0) <= 2
            assert "c" not in shares
            assert ("b" in shares) == (held < slots)
