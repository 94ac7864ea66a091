"""Who may have how many calls in flight. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def most_at_once(slots: int, in_flight: Mapping[str, int], wants: Mapping[str, int]) -> dict[str, int]:
    """Return how many calls each number that wants more may have in flight, those it has included.

    slots: of the process. in_flight, wants (how many more): by number. No number holds more calls than there are slots
    left free after all have their share: one alone takes half, two a third each. So a newcomer finds a slot at once,
    even while others' calls hang. Those that wait longest come first in `wants`: with more numbers than slots they get
    one each, while there are any.
    """
    free = slots - sum(in_flight.values())

    def given(most: int) -> int:
        return sum(max(0, min(want, most - in_flight.get(number, 0))) for number, want in wants.items())

    low, high = 0, slots
    while low < high:  # the largest `most` that leaves at least as many free
        middle = (low + high + 1) // 2
        if middle <= free - given(middle):
            low = middle
        else:
            high = middle - 1
    allowed = {number: low for number, want in wants.items() if want > 0}
    left = free - given(low)
    for number in allowed:
        if left <= 0:
            break
        if low == 0 and not in_flight.get(number):
            allowed[number] = 1
            left -= 1
    return allowed
