"""No call begins that might outlast its lease, and a renewal whose answer came too late counts for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.sender.leases import Leases
from shared.settings.clocks import Clocks

CLOCKS = Clocks()  # lease 20 s, send timeout 10 s


class Rows:
    """The outbox, as far as renewal goes; answering takes `takes_s` of the test's clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.takes_s = 0.0
        self.renewed: list[int] = []

    async def renew(self, lease_tokens: Sequence[str], *, lease_s: float) -> None:
        assert lease_s == 20
        self.renewed.append(len(lease_tokens))
        self.now += self.takes_s


def made() -> tuple[Rows, Leases]:
    rows: Any = Rows()
    return rows, Leases(rows, CLOCKS, clock=lambda: rows.now)


async def test_a_call_begins_only_while_it_can_end_in_time() -> None:
    rows, leases = made()
    lease = leases.begin()  # its time runs from here, however long the claim takes
    rows.now = 3
    leases.hold(lease, 2)

    rows.now = 10
    assert leases.may_call(lease)
    rows.now = 10.001
    assert not leases.may_call(lease)


async def test_renewal_goes_on_until_every_row_is_recorded() -> None:
    rows, leases = made()
    first, second = leases.begin(), leases.begin()
    leases.hold(first, 2)
    leases.hold(second, 1)
    rows.now = 5

    await leases.renew()
    rows.now = 15
    assert leases.may_call(first)
    leases.settle(first)
    leases.settle(second)
    await leases.renew()
    leases.settle(first)
    await leases.renew()

    assert rows.renewed == [2, 1]


async def test_a_lease_that_has_ended_stays_ended() -> None:
    rows, leases = made()
    lease = leases.begin()
    leases.hold(lease, 1)

    rows.now, rows.takes_s = 19, 2  # the answer comes at 21
    await leases.renew()
    assert not leases.may_call(lease)
    await leases.renew()

    assert rows.renewed == [1]
