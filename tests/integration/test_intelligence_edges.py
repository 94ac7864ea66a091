"""Corners where understanding customers goes wrong quietly: what overlaps, what is dear, what a person had decided."""

from __future__ import annotations

import json
import time

import pytest

from services.ai_worker.conversation_analysis import _new_name, _share
from services.ai_worker.prompt import Task
from shared.domain.ids import new_id
from shared.store.backfill import Backfill
from tests.integration.test_analysis import Office, working
from tests.integration.test_backfill import batches, budget, claude_of, passed_over, run, wanted
from tests.integration.test_contact_intelligence import Agent, Practice, agent, office, practice

__all__ = ["agent", "office", "practice"]

LETTERS = ("Hi", "Good morning", "How much is a vase?")


async def test_a_thumbs_down_during_the_call_is_read_next(practice: Practice) -> None:
    await practice.record(*LETTERS)
    await practice.store_messages_only()
    work = await practice.claim()
    await practice.reply("That is too late for us to change.")
    await practice.rows(
        "select app.want_conversation_analysis(workspace_id, id) from public.whatsapp_conversations"
    )  # as the trigger on a reaction does

    following = await practice.finish(work)

    assert following is not None
    assert following.context["task"] == "conversation_analysis"
    assert len(following.context["messages"]) == len(work.context["messages"]) + 1


async def test_undoing_a_score_undoes_it_although_it_was_confirmed_since(practice: Practice, agent: Agent) -> None:
    await practice.record(*LETTERS)
    await practice.store_messages_only()
    await practice.finish(await practice.claim(), score=70)
    [change] = [row for row in await practice.ai_changes() if row["action"] == "contact.scored"]
    await practice.rows(  # the next reading comes to the same, which is no change
        "insert into public.contact_scores (workspace_id, contact_id, attempt_id, score, reasons, half_life_days)"
        " select workspace_id, contact_id, attempt_id + 1, score, reasons, half_life_days"
        " from public.contact_scores returning 1"
    )

    undone = await agent.ask("POST", "/api/workspace/ai-changes/undo", json={"changes": [change["id"]]})

    assert undone == {"undone": [change["id"]], "left": []}
    assert (await practice.contact())["ai_score"] is None


async def test_what_a_person_decided_outlives_a_merge(practice: Practice) -> None:
    await practice.record_all({1: ["Hi"], 2: ["Hello"]})
    old, new = [row["id"] for row in await practice.rows("select id from public.contacts order by id")]
    for contact, choice, stage, source in [(old, False, "lost", "user"), (new, True, "lead", "ai")]:
        await practice.rows(
            "update public.contacts set tag_choices = %s, tags = app.tags_set(%s), lifecycle_stage = %s,"
            " stage_source = %s where id = %s returning 1",
            *[json.dumps({"spam": {"source": source, "is_set": choice}})] * 2,
            *(stage, source, contact),
        )

    await practice.rows("select app.merge_contacts(%s, %s, array[%s::uuid])", practice.world.workspace_a, new, old)

    contact = await practice.contact()
    assert (contact["tags"], contact["lifecycle_stage"], contact["stage_source"]) == ([], "lost", "user")


async def test_what_was_spoken_is_part_of_the_conversation(practice: Practice) -> None:
    await practice.record(*LETTERS)
    await practice.rows(
        "update public.whatsapp_messages set message_type = 'audio', content = null,"
        " transcript = 'Ten vases, please' where content = 'Good morning' returning 1"
    )
    await practice.store_messages_only()

    work = await practice.claim()

    assert [m["content"] for m in work.context["messages"]] == ["Hi", "Ten vases, please", "How much is a vase?"]


@pytest.mark.parametrize("name", ["Maria 5511998877665", "call +49 170 1234567", "ana@example.org", "ID AB1234567"])
def test_nobodys_number_becomes_the_name_of_a_list(name: str) -> None:
    assert _new_name(name) == ""


def test_a_number_larger_than_any_float_is_no_crash() -> None:
    assert _share(json.loads("1" + "0" * 400)) == 0


async def test_a_batch_leaves_money_for_who_writes_now(office: Office) -> None:
    await passed_over(office, "Where is my parcel?", people=40)
    await budget(office, 0.02)

    contexts, _ = await Backfill(office.store).make_batch(
        await wanted(office),
        batch_id=new_id(),
        most_requests=100,
        most_messages=20,
        prices=claude_of(office).prices(Task.MESSAGES),
    )

    [day] = await office.rows("select reserved_usd / 0.02 as held from app.ai_budget_days")
    assert 5 < len(contexts) < 40
    assert 0.6 < day["held"] < 0.8


async def test_a_batch_made_in_pieces_is_made_of_all(office: Office) -> None:
    await passed_over(office, "Where is my parcel?", people=20)
    await budget(office, 0.02)

    left, until = await (await batches(office)).run(lambda done: None)

    assert (left, until) == (0, None)


async def test_workers_of_another_version_are_not_asked_without_end(office: Office) -> None:
    await office.record("Where is my parcel?")
    about = await wanted(office, version="message_analysis-nobodys")

    async with working(office.analyst()):
        status, said = await run(office, about=about)

    assert status == 1
    assert "Do they run this version?" in said
    assert office.claude.calls < 10


async def test_many_conversations_are_fed_one_by_one_by_key(office: Office) -> None:
    await passed_over(office, "Where is my parcel?")
    await office.rows(
        "with v as (insert into public.whatsapp_conversations"
        "   (workspace_id, id, channel_id, group_id, next_seq, last_message_at)"
        "  select workspace_id, gen_random_uuid(), channel_id, gen_random_uuid()::text, 2, now()"
        "  from public.whatsapp_conversations,"
        "   generate_series(1, 3000) returning workspace_id, id, channel_id)"
        " insert into public.whatsapp_messages (workspace_id, id, conversation_id, channel_id, direction, message_type,"
        "  content, status, seq, sent_at, ai_state, ai_reason, origin)"
        " select workspace_id, gen_random_uuid(), id, channel_id, 'inbound', 'text', 'Hello?', 'delivered', 1, now(),"
        "  'skipped', 'history', 'live' from v returning 1"
    )
    store, about = Backfill(office.store), await wanted(office)
    started = time.monotonic()
    await store.scope(about, most_messages=20)
    once = time.monotonic() - started

    started = time.monotonic()
    fed = await store.feed(about, most_waiting=64)

    assert fed.conversations == 64
    assert time.monotonic() - started < 10 * once + 1  # not 64 times


async def test_a_voice_note_that_is_taken_back_leaves_no_copy_in_a_batch(office: Office) -> None:
    await passed_over(office, "Hello", "Where is my parcel?")
    await office.rows(
        "update public.whatsapp_messages set message_type = 'audio', content = null, transcript = 'It is Ana'"
        " where content = 'Hello' returning 1"
    )
    await Backfill(office.store).make_batch(
        await wanted(office),
        batch_id=new_id(),
        most_requests=9,
        most_messages=20,
        prices=claude_of(office).prices(Task.MESSAGES),
    )
    kept = "select 1 from app.ai_batch_requests where strpos(context::text, 'It is Ana') > 0"
    assert len(await office.rows(kept)) == 1

    await office.rows(
        "update public.whatsapp_messages set content = null, revoked_at = now()"
        " where message_type = 'audio' returning 1"
    )

    assert await office.rows(kept) == []
