"""The daily budget: never overspent, whoever works or dies at it; less is asked before nothing is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from services.ai_worker.analyst import Analyst
from services.ai_worker.breaker import Breaker
from services.ai_worker.claude import Claude, connect
from services.ai_worker.models import Models
from services.ai_worker.prompt import Task
from services.api.shapes import AiBudget
from shared.settings.clocks import Clocks
from shared.store.analysis import AnalysisWork, Claimed
from shared.store.postgres import PostgresTransport
from tests.integration.lifecycle_rows import add_member
from tests.integration.test_analysis import MODEL, Office, finish_due, office, until, working
from tests.integration.test_api import Client, client_of
from tests.integration.test_channels import Manager
from tests.world import World

__all__ = ["office"]

CLOCKS = Clocks(poll_every_s=0.05, claude_timeout_s=20)
USUAL, CHEAP = "claude-sonnet-5-5", MODEL


async def budget(office: Office, usd: float | None, *, spent: float = 0, time_zone: str = "UTC") -> None:
    """Give both workspaces a budget, some of today's spent already."""
    await office.rows(
        "update public.workspaces set settings = %s, time_zone = %s returning 1",
        json.dumps({} if usd is None else {"ai_daily_budget_usd": usd}),
        time_zone,
    )
    if spent:
        await office.rows(
            "insert into app.ai_budget_days (workspace_id, day, spent_usd)"
            " select id, app.budget_day(time_zone, now()), %s from public.workspaces returning 1",
            spent,
        )


async def today(office: Office) -> dict[str, Any]:
    [day] = await office.rows("select * from app.ai_budget_days where spent_usd + reserved_usd > 0")
    return day


def analyst(office: Office, **more: Any) -> Analyst:
    """A worker with a dear model and a cheap one."""
    client = connect(api_key="key", base_url=office.claude.url, timeout_s=20)
    breaker = more.pop("breaker", None) or Breaker(failures_to_open=10**6)
    claude = Claude(client, model=Models(more.pop("usual", USUAL), cheap=CHEAP), timeout_s=20, breaker=breaker)
    return Analyst(claude=claude, rows=AnalysisWork(office.store), clocks=CLOCKS, slots=more.pop("slots", 8))


async def claim(office: Office) -> Claimed:
    """Claim as a worker that then dies."""
    prices = Claude(connect(api_key="k", base_url="http://127.0.0.1:9", timeout_s=1), model=MODEL, timeout_s=1)
    return await AnalysisWork(office.store).claim_due(
        limit=8, lease_s=20, most_messages=20, most_attempts=10, prices=prices.prices(Task.MESSAGES)
    )


async def test_two_workers_together_never_spend_more_than_the_day_has(office: Office) -> None:
    await budget(office, 0.005)
    for person in range(40):
        await office.record(f"Where is parcel {person}? I am waiting since Monday!", person=person)
    office.claude.fault(latency_ms=20)
    most = Decimal(0)

    async def nothing_goes() -> bool:
        nonlocal most
        [now] = await office.rows(
            "select coalesce(max(spent_usd + reserved_usd), 0) as used, coalesce(max(reserved_usd), 0) as reserved,"
            " (select count(*) from app.conversation_work where due_at < now() + interval '1 minute') as due"
            " from app.ai_budget_days"
        )
        # Who waits a second for what others have reserved need not do so here.
        await office.rows(
            "update app.conversation_work set due_at = now()"
            " where lease_token is null and due_at < now() + interval '1 minute' returning 1"
        )
        most = max(most, now["used"])
        return bool(now["due"] == 0 and now["reserved"] == 0)

    async with working(analyst(office, usual=CHEAP), analyst(office, usual=CHEAP)):
        await until(nothing_goes, within_s=30, what="all is analysed or put off")

    [sums] = await office.rows("select sum(cost_usd) as paid, count(*) as calls from app.analysis_attempts")
    day = await today(office)
    states = await office.states()
    assert most <= Decimal("0.005")
    assert day["spent_usd"] == sums["paid"] <= Decimal("0.005")
    assert sums["paid"] > Decimal("0.001")  # and it was put to use: what is left is less than one more may cost
    assert 0 < states.count(("pending", "over_budget")) == 40 - sums["calls"]
    assert await office.tries() == [int(state == "done") for state, _ in states]  # waiting is no try
    # What waits is due when the day is over, and has lost nothing.
    assert {(row["due_at"], row["lease_token"]) for row in await office.work()} == {
        (datetime.combine(datetime.now(UTC).date() + timedelta(days=1), datetime.min.time(), UTC), None)
    }


async def test_the_next_day_what_waited_is_analysed(office: Office) -> None:
    await budget(office, 0.01, spent=0.01)
    await office.record("Where is it?")
    await finish_due(analyst(office))
    assert await office.states() == [("pending", "over_budget")]

    await office.rows("update app.ai_budget_days set day = day - 1 returning 1")
    await office.rows("update app.conversation_work set due_at = now() returning 1")
    await finish_due(analyst(office))

    assert await office.states() == [("done", None)]


async def test_as_money_gets_short_less_is_asked_and_last_nothing(office: Office) -> None:
    asked: list[tuple[str, list[str | None], list[str | None]]] = []
    for person, spent in enumerate((0.0, 0.75, 0.90, 1.0)):
        await office.rows("delete from app.ai_budget_days returning 1")
        await budget(office, 1, spent=spent)
        await office.record("Bom dia! 😊", "My parcel is broken.", person=person)
        await finish_due(analyst(office))
        states = [(m["ai_state"], m["ai_reason"]) for m in (await office.messages())[-2:]]
        attempts = [a["model"] for a in (await office.attempts()) if a["outcome"] == "ok"]
        asked.append((states[0][1] or states[0][0], attempts[person:], [state for state, _ in states]))

    assert asked == [
        ("done", [USUAL], ["done", "done"]),
        ("small_talk", [USUAL], ["skipped", "done"]),
        ("small_talk", [CHEAP], ["skipped", "done"]),
        ("small_talk", [], ["skipped", "pending"]),
    ]


@pytest.mark.parametrize(("usd", "age_days"), [(0, 0), (0.000001, 3)])
async def test_without_money_it_is_off_at_once_and_what_waited_too_long_is_left(
    office: Office, usd: float, age_days: int
) -> None:
    await budget(office, usd)
    await office.record("Where is it?")
    await office.rows(
        "update public.whatsapp_messages set created_at = now() - make_interval(days => %s) returning 1", age_days
    )

    await finish_due(analyst(office))

    assert await office.states() == [("skipped", "over_budget")]
    assert await office.work() == await office.attempts() == []
    assert office.claude.calls == 0


async def test_a_crash_gives_its_reservation_back_when_the_lease_is_taken_over(office: Office) -> None:
    await budget(office, 1)
    await office.record("Where is it?")
    [dead] = (await claim(office)).work
    first = await today(office)

    await office.expire()
    [alive] = (await claim(office)).work

    reserved = await today(office)
    assert dead.context["reserved_usd"] > 0
    assert first["reserved_usd"] == reserved["reserved_usd"] == Decimal(str(alive.context["reserved_usd"]))
    assert reserved["spent_usd"] == 0
    assert await office.outcomes() == ["lost", None]


async def test_a_late_finish_is_paid_and_a_finish_that_comes_twice_is_paid_once(office: Office) -> None:
    await budget(office, 1)
    await office.record("Where is it?")
    [late] = (await claim(office)).work
    await office.expire()
    [current] = (await claim(office)).work
    rows = AnalysisWork(office.store)

    for work in (late, late, current, current):
        await rows.finish(
            work.lease,
            attempt={"id": work.attempt_id, "outcome": "overloaded", "cost_usd": "0.25"},
            results=[],
            failed={"reason": "overloaded", "given_up": [], "retry_in_ms": 60_000, "isolate": False},
            most_messages=20,
        )

    day = await today(office)
    assert (day["reserved_usd"], day["spent_usd"]) == (0, Decimal("0.5"))


async def test_what_is_given_back_reserves_nothing(office: Office) -> None:
    await budget(office, 1)
    await office.record("Where is it?")
    [work] = (await claim(office)).work

    await AnalysisWork(office.store).release([work.lease])

    assert await office.rows("select 1 from app.ai_budget_days where reserved_usd <> 0") == []
    assert await office.tries() == [0]


async def test_without_a_budget_what_is_spent_is_counted_all_the_same(office: Office) -> None:
    await budget(office, None)
    await office.record("Where is it?")

    await finish_due(analyst(office))

    day = await today(office)
    [call] = await office.attempts()
    assert (day["reserved_usd"], day["spent_usd"]) == (0, call["cost_usd"])
    assert call["budget_day"] == day["day"]


@pytest.mark.parametrize(
    "text", ["<" * 5000, '"\\\n' * 2000, "😀" * 4000, "tel 5550117 " * 400, "a@b.c " * 700, "é" * 9000]
)
async def test_what_is_reserved_is_enough_for_any_text(office: Office, text: str) -> None:
    await budget(office, 100)
    for _ in range(3):
        await office.record(text[:4096])
    await finish_due(analyst(office))

    assert [a["outcome"] for a in await office.attempts()] == ["ok", "ok"]  # messages, then all of it


@pytest.mark.parametrize(
    ("time_zone", "at", "day", "ends"),
    [
        # Europe/Berlin: summer time ends (25 h), begins (23 h).
        ("Europe/Berlin", "2026-10-24T22:00Z", date(2026, 10, 25), "2026-10-25T23:00Z"),
        ("Europe/Berlin", "2026-10-25T22:59Z", date(2026, 10, 25), "2026-10-25T23:00Z"),
        ("Europe/Berlin", "2026-10-25T23:00Z", date(2026, 10, 26), "2026-10-26T23:00Z"),
        ("Europe/Berlin", "2026-03-28T23:00Z", date(2026, 3, 29), "2026-03-29T22:00Z"),
        ("Europe/Berlin", "2026-03-29T21:59Z", date(2026, 3, 29), "2026-03-29T22:00Z"),
        # Where summer time begins at midnight, a day begins at 1 o'clock.
        ("America/Santiago", "2026-09-06T03:59Z", date(2026, 9, 5), "2026-09-06T04:00Z"),
        ("America/Santiago", "2026-09-06T04:00Z", date(2026, 9, 6), "2026-09-07T03:00Z"),
        ("Pacific/Kiritimati", "2026-11-24T10:00Z", date(2026, 11, 25), "2026-11-25T10:00Z"),
        ("America/Sao_Paulo", "2026-11-24T02:59Z", date(2026, 11, 23), "2026-11-24T03:00Z"),
        ("Middle/Earth", "2026-11-24T23:59Z", date(2026, 11, 24), "2026-11-25T00:00Z"),
    ],
)
async def test_a_day_is_the_workspaces_own(office: Office, time_zone: str, at: str, day: date, ends: str) -> None:
    [found] = await office.rows(
        "select app.budget_day(%s, %s::timestamptz) as day, app.budget_day_ends(%s, %s) as ends",
        time_zone,
        at,
        time_zone,
        day,
    )

    assert found == {"day": day, "ends": datetime.fromisoformat(ends)}


# --- as people see and set it -----------------------------------------------------------------------------------------


@pytest.fixture
async def client(api_store: PostgresTransport) -> AsyncIterator[Client]:
    async with client_of(api_store) as client:
        yield client


async def test_a_bigger_budget_is_used_at_once_and_only_managers_see_or_set_it(
    office: Office, client: Client, world: World, admin: psycopg.AsyncConnection
) -> None:
    where = "/api/workspace/settings/ai-budget"
    owner = Manager(client, world.workspace_a, world.owner_a)
    agent = Manager(client, world.workspace_a, await add_member(admin, world.workspace_a, "agent"))
    await budget(office, 0.5, spent=0.5)
    await office.record("Where is it?")
    await finish_due(analyst(office))

    before = AiBudget.model_validate_json((await owner.ask("GET", where=where)).content)
    after = AiBudget.model_validate_json((await owner.ask("PATCH", body={"daily_budget_usd": 5}, where=where)).content)
    await finish_due(analyst(office))

    assert (before.step, before.deferred, before.spent_usd, before.daily_budget_usd) == ("cheaper_model", 1, 0.5, 0.5)
    assert (after.step, after.deferred, after.daily_budget_usd) == ("all", 0, 5)
    assert await office.states() == [("done", None)]
    for method, body in (("GET", None), ("PATCH", {"daily_budget_usd": 1})):
        assert await agent.refused(method, body=body, where=where) == (403, "role_may_not_manage")
    for wrong in ({"daily_budget_usd": -1}, {"daily_budget_usd": "5"}, {"enabled": None}, {"tone": "cold"}):
        assert (await owner.refused("PATCH", body=wrong, where=where))[0] == 422, wrong
    off = AiBudget.model_validate_json((await owner.ask("PATCH", body={"enabled": False}, where=where)).content)
    none = AiBudget.model_validate_json(
        (await owner.ask("PATCH", body={"daily_budget_usd": None}, where=where)).content
    )
    assert (off.step, off.enabled, off.daily_budget_usd) == ("off", False, 5)
    assert none.daily_budget_usd is None
    [audited] = await office.rows(
        "select count(*) as rows from public.audit_log where action = 'workspace.ai_budget_changed'"
    )
    assert audited["rows"] == 3


# --- Claude is out ----------------------------------------------------------------------------------------------------


async def test_while_claude_is_out_work_stays_due_and_untried_and_is_done_when_it_is_back(office: Office) -> None:
    breaker = Breaker(failures_to_open=2, pauses_s=(0.3,))
    office.claude.fault("overloaded")
    for person in range(12):
        await office.record("Where is it?", person=person)

    async with working(analyst(office, slots=2, breaker=breaker)):

        async def has_probed() -> bool:
            return office.claude.calls >= 4

        await until(has_probed, what="two failures and two probes")
        untried = await office.rows("select 1 from public.whatsapp_messages where ai_attempts = 0")
        assert len(untried) >= 6
        assert office.claude.calls <= 6
        office.claude.fault()
        await office.rows("update app.conversation_work set due_at = now() where lease_token is null returning 1")
        await office.all_end(within_s=15)

    assert await office.states() == [("done", None)] * 12
    assert await office.work() == []
    assert max(await office.tries()) <= 3
