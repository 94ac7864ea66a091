"""Slots are shared so that whoever comes new finds one."""

from __future__ import annotations

from services.sender.slots import most_at_once


def test_one_number_alone_takes_half() -> None:
    assert most_at_once(128, {}, {"a": 1000}) == {"a": 64}
    assert most_at_once(128, {"a": 64}, {"a": 1000}) == {"a": 64}


def test_a_newcomer_finds_slots_while_others_hang() -> None:
    assert most_at_once(128, {"a": 64}, {"b": 1000}) == {"b": 32}
    assert most_at_once(128, {"a": 64, "b": 32}, {"c": 1000}) == {"c": 16}


def test_who_holds_more_than_a_share_gets_no_more_until_it_holds_less() -> None:
    assert most_at_once(128, {"a": 64}, {"a": 1000, "b": 1000}) == {"a": 32, "b": 32}
    assert most_at_once(128, {"a": 42, "b": 41}, {"a": 1000, "b": 1000}) == {"a": 42, "b": 42}


def test_numbers_that_start_together_share_evenly() -> None:
    assert most_at_once(128, {}, {"a": 1000, "b": 1000, "c": 1000}) == {"a": 32, "b": 32, "c": 32}


def test_what_a_number_does_not_want_is_the_others() -> None:
    most = most_at_once(128, {"a": 10}, {"a": 1000, "b": 5})
    assert most["a"] == 10 + 51
    assert most["b"] >= 5


def test_with_more_numbers_than_slots_those_that_wait_longest_go() -> None:
    assert most_at_once(4, {}, dict.fromkeys("abcdef", 9)) == dict.fromkeys("abcd", 1) | dict.fromkeys("ef", 0)
    assert most_at_once(4, {"a": 2, "b": 1}, dict.fromkeys("abcd", 9)) == {"a": 0, "b": 0, "c": 1, "d": 0}
    assert most_at_once(4, {"a": 4}, {"b": 1}) == {"b": 0}


def test_never_more_together_than_there_are() -> None:
    for slots in range(1, 40):
        for held in range(slots + 1):
            wants = {"b": 2, "a": 7, "c": 0}
            most = most_at_once(slots, {"a": held}, wants)
            more = {"a": min(7, max(0, most["a"] - held)), "b": min(2, most["b"])}
            assert sum(more.values()) <= slots - held
            assert "c" not in most
            assert (more["b"] > 0) == (held < slots)
