"""Who may have how many calls in flight. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def share(slots: int, in_flight: Mapping[str, int], wants: Mapping[str, int]) -> dict[str, int]:
    """Return how many more calls each number may start; numbers that get none are left out.

    slots: of the process. in_flight, wants: by number. No number holds more calls than there are slots left free after
    all have their share: one alone takes half, two a third each. So a newcomer finds a slot at once, even while others'
    calls hang. Those that wait longest come first in `wants`: with more numbers than slots they get one each.
    """
    free = slots - sum(in_flight.values())
    if free <= 0:
        return {}

    def given(most: int) -> dict[str, int]:
        return {
            number: max(0, min(want, most - in_flight.get(number, 0))) for number, want in wants.items() if want > 0
        }

    low, high = 0, slots
    while low < high:  # the largest `most` that leaves at least as many free
        middle = (low + high + 1) // 2
        if middle <= free - sum(given(middle).values()):
            low = middle
        else:
            high = middle - 1
    shares = {number: count for number, count in given(low).items() if count}
    left = free - sum(shares.values())
    for number, want in wants.items():
        if left <= 0:
            break
        if want > 0 and number not in shares and not in_flight.get(number):
            shares[number] = 1
            left -= 1
    return shares
