"""Backfill: what was passed over is analysed for the price that was said, once, whoever stops in between."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from services.ai_worker.backfill import Run
from services.ai_worker.backfill_batches import Batches
from services.ai_worker.claude import Claude, connect
from services.ai_worker.message_analysis import instructions
from shared.domain.errors import Unavailable
from shared.domain.ids import new_id
from shared.settings.clocks import Clocks
from shared.store.backfill import Backfill, Wanted
from shared.store.webhooks import Webhooks
from tests.conftest import Database
from tests.integration.test_analysis import MODEL, ROOT, Office, finish_due, office, until, working
from tests.world import PHONE_B, WABA_B, World, received, text_message, webhook

__all__ = ["office"]

LONG_AGO = datetime.now(UTC) - timedelta(days=30)


async def passed_over(office: Office, *texts: str, people: int = 1) -> None:
    """Record messages that nobody analysed, as a history sync brings them."""
    for person in range(people):
        await office.record(*texts, person=person)
    await office.rows("update public.whatsapp_messages set ai_state = 'skipped', ai_reason = 'history' returning 1")
    await office.rows("delete from app.conversation_work returning 1")


async def wanted(office: Office, **more: Any) -> Wanted:
    [row] = await office.rows("select distinct workspace_id from public.whatsapp_messages")
    return Wanted(row["workspace_id"], more.pop("since", LONG_AGO), **more)


def claude_of(office: Office) -> Claude:
    return Claude(connect(api_key="key", base_url=office.claude.url, timeout_s=10), model=MODEL, timeout_s=10)


async def run(office: Office, *, agree: bool = True, about: Wanted | None = None, **how: bool) -> tuple[int, str]:
    """Run the command in this process; return its exit status and what it said."""
    said = io.StringIO()
    about = about or await wanted(office)
    command = Run(
        backfill=Backfill(office.store),
        claude=claude_of(office),
        wanted=about,
        console=Console(file=said, width=200),
        look_every_s=0.02,
    )
    status = await command.run(
        is_batch=how.get("is_batch", False), is_dry=how.get("is_dry", False), confirm=lambda: agree
    )
    return status, said.getvalue()


async def batches(office: Office) -> Batches:
    return Batches(
        backfill=Backfill(office.store), claude=claude_of(office), wanted=await wanted(office), look_every_s=0.02
    )


async def budget(office: Office, usd: float) -> None:
    await office.rows(
        "update public.workspaces set settings = %s returning 1", json.dumps({"ai_daily_budget_usd": usd})
    )


async def nothing_is_reserved(office: Office) -> bool:
    return await office.rows("select 1 from app.ai_budget_days where reserved_usd <> 0") == []


async def is_sent(office: Office) -> None:
    """Wait until Anthropic has a batch, and we know it."""

    async def noted() -> bool:
        return bool(await office.rows("select 1 from app.ai_batches where state = 'sent'"))

    await until(noted, what="a batch is sent")


async def command(office: Office, database: Database, *options: str) -> asyncio.subprocess.Process:
    """Start the command as an operator does, for the workspace with messages."""
    workspace_id = (await wanted(office)).workspace_id
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.ai_worker", "backfill", "--workspace", str(workspace_id), "--since", "30d"),
        *options,
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database.url("test_service"),
            "REDIS_URL": "redis://127.0.0.1:9/0",  # not needed
            "ANTHROPIC_API_KEY": "key",
            "ANTHROPIC_BASE_URL": office.claude.url,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_the_command_killed_and_run_again_ends_with_all_analysed_and_paid_once(
    office: Office, database: Database
) -> None:
    await passed_over(office, "Where is it?", people=3)
    office.claude.http.put("/sandbox/faults", json={"batches": {"hold": True}}).raise_for_status()
    unasked = await command(office, database, "--batch")
    said, _ = await unasked.communicate()
    killed = await command(office, database, "--batch", "--yes")
    await is_sent(office)
    killed.kill()
    await killed.wait()
    office.claude.fault()

    again = await command(office, database, "--batch", "--yes")
    told, _ = await again.communicate()

    assert (unasked.returncode, again.returncode) == (1, 0)
    assert b"3 messages in 3 conversations" in said
    assert b"add --yes" in said
    assert b"3 in batches" in told
    assert b"Where is it" not in said + told
    assert await office.states() == [("done", None)] * 3
    assert office.claude.calls == 3


@pytest.mark.parametrize("is_batch", [False, True])
async def test_the_price_is_said_first_and_nothing_is_done_until_somebody_agrees(
    office: Office, is_batch: bool
) -> None:
    await passed_over(office, "Where is it?", "Hello?", people=3)

    dry, said = await run(office, is_dry=True, is_batch=is_batch)
    refused, _ = await run(office, agree=False, is_batch=is_batch)

    assert (dry, refused) == (0, 1)
    assert "6 messages in 3 conversations: 3 calls to claude-haiku-5-5." in said
    assert "prices of 2026-11-23" in said
    assert ("half the price" in said) == is_batch
    assert office.claude.calls == 0
    assert await office.states() == [("skipped", "history")] * 6


@pytest.mark.parametrize("is_batch", [False, True])
async def test_what_it_costs_is_what_was_said(office: Office, is_batch: bool) -> None:
    await passed_over(office, "Where is my parcel?", "I have waited since Monday!", people=6)
    _, said = await run(office, is_dry=True, is_batch=is_batch)
    about, most = (Decimal(part.split()[0].rstrip(",")) for part in said.split("$")[1:3])

    async with working(office.analyst(clocks=Clocks(poll_every_s=0.05))):
        status, _ = await run(office, is_batch=is_batch)
        await office.all_end()

    [paid] = await office.rows("select sum(cost_usd) as usd, count(*) as calls from app.analysis_attempts")
    assert status == 0
    assert await office.states() == [("done", None)] * 12
    assert paid["calls"] == office.claude.calls == 6
    assert paid["usd"] / 4 < about < paid["usd"] * 4
    assert paid["usd"] <= most
    assert await nothing_is_reserved(office)


async def test_a_batch_costs_half(office: Office) -> None:
    await passed_over(office, "Where is my parcel?", people=2)
    await run(office, is_batch=True)
    await office.rows("update public.whatsapp_messages set ai_state = 'pending' returning 1")
    await office.rows("delete from public.message_analyses returning 1")
    await office.rows(
        "insert into app.conversation_work (workspace_id, conversation_id, due_at)"
        " select workspace_id, id, now() from public.whatsapp_conversations returning 1"
    )
    await finish_due(office.analyst())

    rows = await office.rows(
        "select batch_id is not null as batched, sum(input_tokens * 0.1 + output_tokens * 0.5"
        " + cache_read_tokens * 0.01"
        " + cache_write_tokens * 0.125) / 1000000 as full_usd, sum(cost_usd) as usd"
        " from app.analysis_attempts group by 1 order by 1"
    )
    [live, batched] = rows
    assert live["usd"] == pytest.approx(live["full_usd"], rel=Decimal("0.001"))
    assert batched["usd"] == pytest.approx(batched["full_usd"] / 2, rel=Decimal("0.001"))


async def test_a_batch_restores_what_was_redacted_and_sends_none_of_it(office: Office) -> None:
    office.claude.http.put("/sandbox/faults", json={"record_prompts": True}).raise_for_status()
    await passed_over(office, "Blue door, ana@example.com", people=2)

    await run(office, is_batch=True)

    [first, second] = await office.messages()
    assert "ana@example.com" in first["ai_summary"]
    assert "ana@example.com" in second["ai_summary"]
    calls = office.claude.record()["calls"]
    assert [call["in_batch"] for call in calls] == [True, True]
    assert "ana@example" not in json.dumps(calls)
    assert await office.rows("select 1 from app.ai_batch_requests") == []


async def test_a_fresh_message_does_not_wait_for_a_batch(office: Office) -> None:
    await passed_over(office, "Where is it?")
    office.claude.http.put("/sandbox/faults", json={"batches": {"hold": True}}).raise_for_status()
    async with asyncio.TaskGroup() as group:
        running = group.create_task((await batches(office)).run(lambda done: None))
        await is_sent(office)
        await office.record("And now?", person=0)

        await finish_due(office.analyst())

        assert [state for state, _ in await office.states()] == ["skipped", "done"]
        office.claude.fault()
        assert await running == (0, None)
    assert await office.states() == [("done", None)] * 2
    assert sorted(str(outcome) for outcome in await office.outcomes()) == ["ok", "ok"]


async def test_killed_while_it_waits_the_next_run_stores_the_results_and_pays_once(office: Office) -> None:
    await passed_over(office, "Where is it?", people=3)
    office.claude.http.put("/sandbox/faults", json={"batches": {"hold": True}}).raise_for_status()
    running = asyncio.create_task((await batches(office)).run(lambda done: None))
    backfill, workspace_id = Backfill(office.store), (await wanted(office)).workspace_id
    await is_sent(office)
    running.cancel()
    office.claude.fault()

    status, _ = await run(office, is_batch=True)

    assert status == 0
    assert await office.states() == [("done", None)] * 3
    assert await office.outcomes() == ["ok"] * 3
    assert office.claude.calls == 3
    assert await backfill.batches(workspace_id) == []


async def test_a_batch_whose_making_got_no_answer_is_lost_once_and_made_again(office: Office) -> None:
    await budget(office, 10)
    await passed_over(office, "Where is it?", people=3)
    office.claude.http.put("/sandbox/faults", json={"batches": {"reply_lost": True}}).raise_for_status()
    with pytest.raises(Unavailable):
        await run(office, is_batch=True)
    office.claude.fault()

    status, _ = await run(office, is_batch=True)

    assert status == 0
    assert await office.states() == [("done", None)] * 3
    assert sorted(map(str, await office.outcomes())) == ["lost"] * 3 + ["ok"] * 3
    assert await nothing_is_reserved(office)


@pytest.mark.parametrize(
    ("mode", "outcome", "states"),
    [
        ("refusal", "refused", ("failed", "refused")),
        ("nonsense", "nonsense", ("failed", "nonsense")),
        ("overloaded", "unreachable", ("skipped", "history")),
        ("timeout", "timeout", ("skipped", "history")),
    ],
)
async def test_what_fails_in_a_batch_is_given_up_or_wanted_again(
    office: Office, mode: str, outcome: str, states: tuple[str, str]
) -> None:
    await passed_over(office, "Where is it?")
    office.claude.fault(mode)

    status, _ = await run(office, is_batch=True)

    assert await office.states() == [states]
    assert await office.outcomes() == [outcome]
    assert status == int(states[0] == "skipped")


async def test_what_was_taken_back_meanwhile_is_kept_nowhere_and_not_stored(office: Office) -> None:
    await budget(office, 10)
    await passed_over(office, "My secret", people=2)
    office.claude.http.put("/sandbox/faults", json={"batches": {"hold": True}}).raise_for_status()
    running = asyncio.create_task((await batches(office)).run(lambda done: None))
    await is_sent(office)

    [first, _] = await office.messages()
    await office.rows(
        "update public.whatsapp_messages set content = null, revoked_at = now(), ai_reason = 'revoked'"
        " where id = %s returning 1",
        first["id"],
    )
    assert len(await office.rows("select 1 from app.ai_batch_requests")) == 1
    office.claude.fault()
    await running

    assert await office.states() == [("skipped", "revoked"), ("done", None)]
    assert len(await office.rows("select 1 from public.message_analyses")) == 1
    assert all(attempt["cost_usd"] > 0 for attempt in await office.attempts())  # it was paid all the same
    assert await nothing_is_reserved(office)


async def test_the_feed_stops_at_its_part_of_the_budget_and_goes_on_the_next_day(office: Office) -> None:
    await budget(office, 1)
    await passed_over(office, "Where is it?", people=2)
    await office.rows(
        "insert into app.ai_budget_days (workspace_id, day, spent_usd)"
        " select id, app.budget_day(time_zone, now()), 0.7 from public.workspaces returning 1"
    )

    for is_batch in (False, True):
        status, said = await run(office, is_batch=is_batch)
        assert (status, "2 messages left" in said) == (1, True)
    assert office.claude.calls == 0

    await office.rows("update app.ai_budget_days set day = day - 1 returning 1")
    status, _ = await run(office, is_batch=True)
    assert (status, await office.states()) == (0, [("done", None)] * 2)


async def test_only_so_many_conversations_wait_at_once(office: Office) -> None:
    await passed_over(office, "Where is it?", people=7)
    backfill, about = Backfill(office.store), await wanted(office)

    fed = [await backfill.feed(about, most_waiting=3) for _ in range(2)]

    assert [(one.conversations, one.waiting) for one in fed] == [(3, 3), (0, 3)]
    assert len(await office.work()) == 3


async def test_again_is_about_what_another_prompt_read_and_not_about_what_this_one_did(office: Office) -> None:
    await passed_over(office, "Where is it?", people=2)
    await run(office, is_batch=True)
    about = Wanted((await wanted(office)).workspace_id, LONG_AGO, instructions()[1])
    _, none = await run(office, is_batch=True, about=about)
    await office.rows("update public.message_analyses set prompt_version = 'message_analysis-old' returning 1")

    status, said = await run(office, is_batch=True, about=about)

    assert "0 messages" in none
    assert "2 messages" in said
    assert status == 0
    assert len(await office.rows("select 1 from public.message_analyses")) == 4


async def test_a_workspace_without_ai_or_that_is_not_there_is_told_so(office: Office) -> None:
    await passed_over(office, "Where is it?")
    await office.rows("update public.workspaces set settings = '{\"ai_enabled\": false}' returning 1")

    off, said_off = await run(office)
    unknown, said_unknown = await run(office, about=Wanted(new_id(), LONG_AGO))

    assert (off, unknown) == (1, 1)
    assert "switched off" in said_off
    assert "no such workspace" in said_unknown


async def test_a_backfill_lets_a_fresh_message_of_another_workspace_go_first(office: Office, world: World) -> None:
    await passed_over(office, "Where is it?", people=40)
    backfill, about = Backfill(office.store), await wanted(office)
    assert (await backfill.feed(about, most_waiting=64)).conversations == 40
    office.claude.fault(latency_ms=100)

    async with working(office.analyst(clocks=Clocks(poll_every_s=0.05), slots=4)):

        async def is_at_work() -> bool:
            return office.claude.calls >= 4

        await until(is_at_work, what="every slot is taken")
        fresh = text_message("And mine?", wamid="wamid.fresh", user_id="US.9999")
        await Webhooks(office.store).record(
            [received(webhook(fresh, phone_number_id=PHONE_B, waba_id=WABA_B))], settle_s=0
        )
        await office.all_end(within_s=20)

    attempts = await office.attempts()
    [turn] = [n for n, attempt in enumerate(attempts) if attempt["workspace_id"] == world.workspace_b]
    recorded = await office.rows("select created_at from public.whatsapp_messages where wamid = 'wamid.fresh'")
    before = [a for a in attempts[:turn] if a["started_at"] > recorded[0]["created_at"]]
    assert len(before) <= 4  # at most what was claimed with it
