"""Templates from draft to approval and on, against the real database and Meta's stand-in."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from deploy.local.postgres import Postgres
from services.api.template_shapes import MessageTemplatePage, TemplateAnalytics, TemplatePreview
from services.sender.chores import Again, Done, Failed
from services.sender.graph import Graph, open_graph
from services.sender.submit_template import SubmitTemplate
from services.sender.template_executors import template_executors
from shared.domain.ids import new_id
from shared.settings.clocks import Clocks
from shared.storage.folder import FolderStorage
from shared.store.postgres import PostgresTransport, postgres_transport
from shared.store.templates import TemplateWork
from tests.conftest import Database
from tests.contract.conftest import until, webhook
from tests.contract.meta_graph import ACCOUNT, PIXEL, TEMPLATES, Meta, meta, running
from tests.integration.template_desk import BODY, Desk, definition, valid
from tests.integration.test_api import Client, as_problem, client_of
from tests.world import WABA_A, build_world

__all__ = ["meta", "running", "webhook"]  # fixtures


@dataclass(frozen=True)
class Servers:
    """One database for this module, emptied before each test: making one takes longer than most tests here."""

    admin: psycopg.AsyncConnection
    service: PostgresTransport
    client: Client
    graph: Graph


@pytest.fixture(scope="module")
async def servers(postgres_server: Postgres, running: Meta) -> AsyncIterator[Servers]:
    clocks = dataclasses.replace(Clocks(), send_timeout_s=2.0, send_connect_timeout_s=1.0)
    async with AsyncExitStack() as opened:
        name = "test_templates"
        root = await opened.enter_async_context(
            await psycopg.AsyncConnection.connect(postgres_server.url(), autocommit=True)
        )
        await root.execute("create database test_templates template template_parley strategy file_copy")
        database = Database(postgres_server, name)
        admin = await opened.enter_async_context(await psycopg.AsyncConnection.connect(database.url(), autocommit=True))
        service = await opened.enter_async_context(
            postgres_transport(database.url("test_service"), service_role="service_role", max_connections=8)
        )
        api = await opened.enter_async_context(
            postgres_transport(database.url("test_api"), service_role=None, max_connections=4)
        )
        client = await opened.enter_async_context(client_of(api))
        graph = await opened.enter_async_context(open_graph(f"{running.url}/graph/v26.0", clocks=clocks, connections=4))
        yield Servers(admin, service, client, graph)


@pytest.fixture
async def desk(servers: Servers, meta: Meta, tmp_path: Path) -> Desk:
    await servers.admin.execute("truncate public.workspaces cascade")
    world = await build_world(servers.admin)
    await servers.admin.execute(
        "insert into app.channel_tokens (workspace_id, channel_id, token_sealed, key_id)"
        " select workspace_id, id, 'sealed', 'key' from public.whatsapp_channels"
    )
    executors = template_executors(
        graph=servers.graph, store=servers.service, storage=FolderStorage(tmp_path, None), upload_timeout_s=5
    )
    return Desk(servers.admin, world, servers.service, servers.client, meta, executors)


# --- the flow as drawn ----------------------------------------------------------------------------------------------


async def test_a_template_goes_from_draft_to_approval(desk: Desk) -> None:
    draft = await desk.created()
    before = (draft["status"], draft["submitted_at"], draft["meta_id"], draft["body_content"])
    sent = await desk.submitted(draft)
    await desk.hear()

    approved = await desk.read(draft)

    assert before == ("pending", None, None, BODY["text"])
    assert (sent["status"], sent["busy"], sent["draft"]) == ("pending", None, None)
    assert sent["submitted_at"] is not None
    assert (approved["status"], approved["category"], approved["meta_id"]) == ("approved", "utility", sent["meta_id"])
    assert approved["meta_id"]
    actions = await desk.rows("select action, source from public.audit_log order by id")
    assert actions == [("template.created", "user"), ("template.submitted", "user"), ("template.accepted", "meta")]


async def test_a_rejected_template_says_why_and_is_pending_once_edited(desk: Desk) -> None:
    draft = await desk.created(name="reject_scam_note")
    await desk.submitted(draft)
    await desk.hear()
    rejected = await desk.read(draft)
    # The last word of this one is by hand.
    edited = await desk.edited(rejected, text="We are open today, as always.")
    await desk.sync()  # Meta still shows the old one as rejected
    still = await desk.read(draft)
    sent = await desk.submitted(edited)
    await desk.hear(times=2, later_s=2)
    reviewed = await desk.read(draft)

    assert rejected["status"] == "rejected"
    assert rejected["reject_reason"].startswith("SCAM: The content looks like a scam.")
    for one in (edited, still):
        assert (one["status"], one["submitted_at"]) == ("pending", None)
        assert one["draft"]["body_content"] == "We are open today, as always."
        assert one["body_content"] == BODY["text"]
    assert (sent["draft"], sent["body_content"]) == (None, "We are open today, as always.")
    assert sent["submitted_at"] is not None
    assert reviewed["status"] == "rejected"  # its name decides at the stand-in, again


@pytest.mark.parametrize(
    ("name", "field", "expected"),
    [
        ("pause_note", "message_template_quality_update", {"status": "paused", "quality": "red"}),
        ("disable_note", "message_template_status_update", {"status": "disabled"}),
        (
            "recategor_note",
            "template_category_update",
            {"status": "approved", "category": "marketing", "previous_category": "utility"},
        ),
        ("promo_note", "message_template_status_update", {"status": "approved", "category": "marketing"}),
    ],
)
async def test_what_meta_does_to_an_approved_template_is_seen(
    desk: Desk, name: str, field: str, expected: dict[str, Any]
) -> None:
    if name == "recategor_note":
        desk.meta.behave(pause_ms=1_050)  # Meta's times are whole seconds, and one is said to follow the other
    draft = await desk.created(name=name)
    await desk.submitted(draft)
    await desk.hear(field, times=2 if name == "disable_note" else 1)

    told = await desk.read(draft)
    await desk.work()  # the re-reading that the webhooks asked for
    read = await desk.read(draft)

    assert {key: told[key] for key in expected} == expected
    assert {key: read[key] for key in expected} == expected
    if name == "pause_note":
        ends = datetime.fromisoformat(read["paused_until"]) - datetime.now(UTC)
        assert timedelta(hours=2.9) < ends < timedelta(hours=3.1)
    assert desk.outcomes == [Done()]


async def test_a_paused_template_is_let_go_by_hand(desk: Desk) -> None:
    draft = await desk.created(name="pause_note")
    await desk.submitted(draft)
    await desk.hear("message_template_quality_update")
    paused = await desk.read(draft)

    async def unpause(template: dict[str, Any]) -> httpx.Response:
        return await desk.ask("POST", f"/{template['id']}/unpause", json={"version": template["version"]})

    going = valid(await unpause(paused), 202)
    await desk.work()
    await desk.hear(times=3, later_s=2)
    approved = await desk.read(draft)
    again = valid(await unpause(approved), 202)
    never = await unpause(await desk.created(name="never_sent"))

    assert (going["busy"], going["status"]) == ("unpausing", "paused")
    assert (approved["busy"], approved["status"], approved["paused_until"]) == (None, "approved", None)
    assert again["busy"] is None
    assert as_problem(never) == (409, "template_not_paused")


async def test_an_approved_template_is_sent_as_it_is_until_meta_accepts_the_edit(desk: Desk) -> None:
    draft = await desk.created()
    await desk.submitted(draft)
    await desk.hear()
    approved = await desk.read(draft)

    other_category = as_problem(await desk.edit(approved, category="MARKETING"))
    edited = await desk.edited(approved, text="We start a little later today.")
    sent = await desk.submitted(edited)
    await desk.hear(times=2, later_s=2)
    again = await desk.read(draft)
    too_soon = await desk.edit(again, text="We start much later today.")

    assert other_category == (422, "template_category_fixed")
    assert (edited["status"], edited["body_content"]) == ("approved", BODY["text"])
    assert sent["status"] == "pending"
    assert (again["status"], again["body_content"]) == ("approved", "We start a little later today.")
    assert again["next_edit_at"] is not None
    assert as_problem(too_soon) == (409, "template_edit_limit")
    # The tenth of a month: the next is taken 30 days after the first.
    await desk.admin.execute(
        "update public.whatsapp_templates set next_edit_at = now(),"
        " edits = array(select now() - n * interval '2 days' from generate_series(1, 9) n)"
    )
    nine_before = await desk.rows(
        "select app.next_template_edit_at(edits || now()) - now() > interval '11 days',"
        " app.next_template_edit_at(edits || now()) - now() < interval '13 days' from public.whatsapp_templates"
    )
    assert nine_before == [(True, True)]


async def test_a_draft_is_given_up_and_a_template_deleted_and_written_again(desk: Desk) -> None:
    draft = await desk.created(name="reject_note")
    await desk.submitted(draft)
    await desk.hear()
    rejected = await desk.read(draft)
    edited = await desk.edited(rejected, text="Another text.")

    given_up = valid(
        await desk.ask("PUT", f"/{draft['id']}", json={"version": edited["version"], "definition": None}), 200
    )
    going = valid(await desk.delete(given_up), 202)
    meanwhile = as_problem(await desk.edit(going, text="Too late for this."))
    await desk.work()
    gone = await desk.read(draft)
    again = await desk.created(name="reject_note", text="A new start.")
    sent = await desk.submitted(again)

    assert (given_up["status"], given_up["draft"]) == ("rejected", None)
    assert (going["busy"], going["status"]) == ("deleting", "rejected")
    assert meanwhile == (409, "template_busy")
    assert (gone["status"], gone["busy"]) == ("deleted", None)
    assert await desk.names(status="deleted") == []
    assert (again["id"], again["status"], again["submitted_at"]) == (draft["id"], "pending", None)
    assert (sent["status"], sent["body_content"]) == ("pending", "A new start.")
    assert sent["meta_id"] != rejected["meta_id"]


async def test_the_name_of_an_approved_template_is_blocked_once_it_is_deleted(desk: Desk) -> None:
    draft = await desk.created()
    await desk.submitted(draft)
    await desk.hear()
    valid(await desk.delete(await desk.read(draft)), 202)
    await desk.work()

    refused = await desk.create()
    other = await desk.create(name="trip_reminder_2")

    assert as_problem(refused) == (409, "template_name_blocked")
    assert valid(other, 201)["status"] == "pending"
    assert valid(await desk.delete(other.json()), 202)["status"] == "deleted"  # at once: Meta never knew it


# --- answers that are lost, and refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_template_whose_creation_was_not_answered_is_not_created_twice(desk: Desk, is_slow: bool) -> None:
    draft = await desk.created(name="pending_note")
    faults: list[dict[str, Any]] = [
        {"mode": "reply_lost", "times": 1, "for": {"path": "message_templates"}},
        # The reading back fails, too: the next attempt begins with it.
        {"mode": "html", "times": 1, "for": {"path": "message_templates"}},
    ]
    desk.meta.break_(*faults[: 2 if is_slow else 1])

    sent = await desk.submitted(draft)
    first = desk.outcomes
    if is_slow:
        await desk.work()
        sent = await desk.read(draft)

    assert isinstance(first[0], Again if is_slow else Done)
    assert desk.calls("POST", "message_templates") == 1
    assert (sent["status"], sent["busy"], sent["draft"]) == ("pending", None, None)
    assert sent["meta_id"]


class _Dies(TemplateWork):
    """Records nothing: its dispatcher is gone once Meta has answered."""

    async def finish_submit(self, *_: Any, **__: Any) -> None:
        raise ConnectionResetError


async def test_a_dispatcher_that_dies_once_meta_has_the_template_does_not_make_another_create_it(desk: Desk) -> None:
    draft = await desk.created(name="pending_note")
    valid(await desk.submit(draft), 202)
    living = desk.executors["template_submit"]
    assert isinstance(living, SubmitTemplate)
    desk.executors["template_submit"] = dataclasses.replace(living, templates=_Dies(desk.service))
    with pytest.raises(ConnectionResetError):
        await desk.work()
    desk.executors["template_submit"] = living
    await desk.admin.execute("update app.outbox set lease_until = now() - interval '1 second'")

    await desk.work()

    assert desk.calls("POST", "message_templates") == 1
    sent = await desk.read(draft)
    assert (sent["status"], sent["busy"], sent["draft"]) == ("pending", None, None)
    assert sent["meta_id"]


async def test_a_chore_that_ended_without_a_word_keeps_nobody_from_going_on(desk: Desk) -> None:
    draft = await desk.created(name="pending_note")
    going = valid(await desk.submit(draft), 202)
    await desk.admin.execute("update app.outbox set state = 'failed'")

    sent = await desk.submitted(going)

    assert (sent["busy"], sent["draft"]) == (None, None)
    assert sent["meta_id"]


async def test_an_edit_that_was_not_answered_is_not_made_twice(desk: Desk) -> None:
    draft = await desk.created()
    await desk.submitted(draft)
    await desk.hear()
    desk.meta.behave(review_ms=60_000)
    approved = await desk.read(draft)
    edited = await desk.edited(approved, text="We start a little later today.")
    desk.meta.break_({"mode": "reply_lost", "times": 1, "for": {"path": approved["meta_id"]}})

    sent = await desk.submitted(edited)

    assert desk.calls("POST", approved["meta_id"]) == 1
    assert (sent["status"], sent["draft"], sent["body_content"]) == ("pending", None, "We start a little later today.")


async def test_a_refusal_is_shown_and_the_draft_can_be_mended(desk: Desk) -> None:
    desk.meta.create("taken_name", components=[{"type": "BODY", "text": "Somebody else's."}])
    draft = await desk.created(name="taken_name")
    taken = await desk.submitted(draft)
    desk.meta.break_({"mode": "error", "code": 190, "times": 1, "for": {"path": "message_templates"}})
    other = await desk.submitted(await desk.created(name="no_access"))
    mended = await desk.submitted(other)

    assert (taken["draft_error"]["reason"], taken["busy"]) == ("template_exists", None)
    assert taken["draft_error"]["details"].startswith("Content in this language already exists")
    assert taken["body_content"] == "Somebody else's."  # and now we know it, so the draft would be an edit of it
    assert taken["meta_id"]
    assert (other["draft_error"]["reason"], other["submitted_at"]) == ("auth", None)
    assert (mended["draft_error"], mended["draft"]) == (None, None)
    assert mended["meta_id"]


async def test_a_busy_meta_is_tried_again(desk: Desk) -> None:
    draft = await desk.created(name="pending_note")
    desk.meta.behave(template_creates_per_hour=0)
    sent = await desk.submitted(draft)
    waiting = desk.outcomes
    desk.meta.behave()
    await desk.work()

    assert sent["busy"] == "submitting"
    assert isinstance(waiting[0], Again)
    assert waiting[0].error.reason == "rate_limit_waba"
    assert (await desk.read(draft))["meta_id"]


async def test_a_headers_sample_goes_through_metas_upload(desk: Desk, tmp_path: Path) -> None:
    media_id = new_id()
    key = f"{desk.world.workspace_a}/2026/11/{media_id}"
    header = {"format": "IMAGE", "handle": f"parley:{media_id}"}
    missing = as_problem(await desk.create(name="pending_photo", header=header))
    (tmp_path / key).parent.mkdir(parents=True)
    (tmp_path / key).write_bytes(PIXEL)
    await desk.admin.execute(
        "insert into public.media (workspace_id, id, kind, mime_type, state, size_bytes, storage_key, uploaded_by)"
        " values (%s, %s, 'image', 'image/png', 'stored', %s, %s, %s)",
        (desk.world.workspace_a, media_id, len(PIXEL), key, desk.world.owner_a),
    )

    sent = await desk.submitted(await desk.created(name="pending_photo", header=header))

    assert missing == (422, "media_not_ready")
    assert desk.calls("POST", "app/uploads") == 1
    handle = sent["components"][0]["example"]["header_handle"][0]
    assert handle.startswith("4::")
    assert sent["meta_id"]


# --- syncs ----------------------------------------------------------------------------------------------------------


async def test_a_sync_finds_all_templates_and_those_that_are_gone(desk: Desk) -> None:
    draft = await desk.created()
    await desk.submitted(draft)
    await desk.hear()
    began_s = int(time.time())
    desk.meta.behave(template_creates_per_hour=1_000)
    for n in range(110):
        desk.meta.create(f"many_{n:03}").raise_for_status()
    desk.meta.ask("DELETE", f"{ACCOUNT}/message_templates?name=trip_reminder").raise_for_status()
    until(lambda: int(time.time()) > began_s)  # Meta's times are whole seconds

    await desk.sync()

    names = dict(await desk.rows("select template_name, status from public.whatsapp_templates"))
    assert len(names) == 1 + 110 + len(TEMPLATES)
    assert names["trip_reminder"] == "deleted"
    assert names["resting"] == "paused"
    assert (await desk.names(q="RINK", status="approved"), await desk.names(q="order_ready")) == (
        [],
        ["order_ready_named"],
    )
    (kept,) = (await desk.ask("GET", params={"q": "verify_code"})).json()["items"]
    assert (kept["category"], kept["components"][1]["buttons"][0]["type"], kept["submitted_at"]) == (
        "authentication",
        "OTP",
        None,
    )
    page = MessageTemplatePage.model_validate((await desk.ask("GET")).json())
    assert [(one.waba_id, one.sync_error) for one in page.accounts] == [(WABA_A, None)]


async def test_a_cursor_that_went_bad_begins_the_list_anew(desk: Desk) -> None:
    desk.meta.behave(template_creates_per_hour=1_000)
    for n in range(110):
        desk.meta.create(f"many_{n:03}").raise_for_status()
    desk.meta.break_({"mode": "error", "code": 131059, "skip": 1, "times": 1, "for": {"path": "message_templates"}})

    await desk.sync()

    assert desk.outcomes == [Done()]
    assert await desk.rows("select count(*) from public.whatsapp_templates where template_name like 'many%%'") == [
        (110,)
    ]


async def test_a_sync_that_fails_marks_nothing_deleted_and_says_why(desk: Desk) -> None:
    await desk.sync()
    desk.meta.break_({"mode": "error", "code": 190, "times": 1, "for": {"path": "message_templates"}})

    await desk.ask("POST", "/sync")
    outcomes = await desk.work()

    assert isinstance(outcomes[0], Failed)
    assert await desk.rows("select count(*) from public.whatsapp_templates where status = 'deleted'") == [(0,)]
    page = (await desk.ask("GET")).json()
    assert page["accounts"][0]["sync_error"]["reason"] == "auth"
    assert page["accounts"][0]["synced_at"] is not None


async def test_syncs_are_scheduled_once_an_hour_for_accounts_with_a_connected_number(desk: Desk) -> None:
    work = TemplateWork(desk.service)

    at_once = await asyncio.gather(*(work.schedule_syncs() for _ in range(4)))
    later = await work.schedule_syncs()
    again = await desk.ask("POST", "/sync")

    assert (sum(at_once), later, again.status_code) == (2, 0, 202)
    assert await desk.rows("select count(*) from app.outbox where kind = 'template_sync'") == [(2,)]
    await desk.admin.execute(
        "update public.template_accounts set next_sync_at = now(), calls = 150, calls_from = now()"
    )
    await desk.admin.execute("update app.outbox set state = 'done'")
    await desk.admin.execute(
        "update public.whatsapp_channels set state = 'disconnected' where id = %s", [desk.world.channel_b]
    )
    assert await work.schedule_syncs() == 1
    # The account's calls of this hour are used up: it waits for the next.
    (waits,) = await desk.rows(
        "select next_attempt_at > now() + interval '50 minutes' from app.outbox where state = 'due'"
    )
    assert waits == (True,)


async def test_what_webhooks_tell_within_seconds_is_read_in_one_go(desk: Desk) -> None:
    for n in range(3):
        await desk.submitted(await desk.created(name=f"note_{n}"))
    await desk.hear(times=3)

    too_early = await desk.work(hurry=False)
    await desk.work()

    assert too_early == []
    assert desk.outcomes == [Done()]
    assert desk.calls("GET", "message_templates") == 0


AT = datetime(2026, 11, 20, 14, 0, tzinfo=UTC)
CHANGES_AT = AT + timedelta(days=1)
_ITEM = {
    "id": "1180337429165502", "name": "trip", "language": "en_US", "category": "UTILITY",
    "components": [{"type": "BODY", "text": "Hi"}], "quality_score": {"score": "GREEN"},
}  # fmt: skip


def _told(seconds: int, **value: Any) -> tuple[str, Any]:
    names = {
        "message_template_id": 1180337429165502,
        "message_template_name": "trip",
        "message_template_language": "en_US",
    }
    at = (AT + timedelta(seconds=seconds)).isoformat()
    field = value.pop("field", "message_template_status_update")
    event = {
        "n": 1,
        "waba_id": WABA_A,
        "field": field,
        "event": value.get("event", ""),
        "sent_at": at,
        "received_at": at,
    }
    return "webhook", event | {"payload": names | value}


def _read(seconds: int, **item: Any) -> tuple[str, Any]:
    return "sync", ((AT + timedelta(seconds=seconds)).isoformat(), _ITEM | item)


_HISTORY = [
    _told(0, event="REJECTED", reason="SCAM", rejection_info={"reason": "Looks like one."}),
    _read(20, status="REJECTED", rejected_reason="SCAM"),
    _told(30, event="APPROVED", reason="NONE"),
    _told(30, event="PAUSED", other_info={"title": "FIRST_PAUSE"}),
    _told(40, field="message_template_quality_update", previous_quality_score="GREEN", new_quality_score="RED"),
    _read(50, status="PAUSED", correct_category="MARKETING", quality_score={"score": "YELLOW"}),
    _told(
        45, field="template_category_update", new_category="UTILITY", correct_category="MARKETING",
        category_update_timestamp=int(CHANGES_AT.timestamp()),
    ),
]  # fmt: skip


async def test_webhooks_and_syncs_come_to_the_same_in_any_order(desk: Desk) -> None:
    query = (
        "select status, reject_reason, paused_until, quality, category, correct_category, category_changes_at,"
        " body_content, components, facts from public.whatsapp_templates"
    )
    shuffle = random.Random(5)
    outcomes = {}
    for upto in (2, 4, len(_HISTORY)):
        seen = set()
        orders = list(itertools.permutations(_HISTORY[:upto])) if upto < 4 else []
        orders = orders or [shuffle.sample(_HISTORY[:upto], upto) for _ in range(12)]
        for order in orders:
            await desk.admin.execute("truncate public.whatsapp_templates cascade")
            for kind, what in order:
                await _learn(desk, kind, what)
            seen.add(str(await desk.rows(query)))
        assert len(seen) == 1, seen
        (outcomes[upto],) = await desk.rows(query)

    assert outcomes[2][:2] == ("rejected", "SCAM: Looks like one.")
    assert outcomes[4][:3] == ("paused", None, AT + timedelta(hours=3, seconds=30))
    last = outcomes[len(_HISTORY)]
    assert last[:2] == ("paused", None)
    assert last[2:7] == (
        AT + timedelta(hours=3, seconds=30), "yellow", "utility", "marketing", CHANGES_AT,
    )  # fmt: skip


async def _learn(desk: Desk, kind: str, what: Any) -> None:
    if kind == "webhook":
        event = what | {"workspace_id": str(desk.world.workspace_a)}
        await desk.admin.execute("select app.record_account_events(%s)", (json.dumps([event]),))
    else:
        read_at, item = what
        await desk.admin.execute(
            "select public.merge_templates(%s, %s, %s, %s)",
            (desk.world.workspace_a, WABA_A, read_at, json.dumps([item])),
        )


# --- what people are told -------------------------------------------------------------------------------------------


async def test_all_that_meta_would_refuse_is_told_at_once(desk: Desk) -> None:
    answer = await desk.create(
        name="Bad Name",
        category="SPAM",
        body={"text": "{{1}} is here", "examples": {}},
        buttons=[{"type": "URL", "text": "w" * 26, "url": "nowhere"}],
    )

    problem = answer.json()
    assert as_problem(answer) == (422, "not_valid")
    assert {(one["field"], one["code"]) for one in problem["problems"]} >= {
        ("definition.name", "bad_format"),
        ("definition.category", "unsupported"),
        ("definition.body.text", "placeholder_at_edge"),
        ("definition.body.examples", "missing"),
        ("definition.buttons[0].text", "too_long"),
        ("definition.buttons[0].url", "bad_format"),
    }
    assert problem["hint"] == problem["problems"][0]["message"]
    renamed = await desk.created()
    answer = await desk.ask(
        "PUT",
        f"/{renamed['id']}",
        json={"version": renamed["version"], "definition": definition("other", language="de")},
    )
    assert [one["field"] for one in answer.json()["problems"]] == ["definition.name", "definition.language"]


async def test_a_request_made_twice_is_one_template(desk: Desk) -> None:
    first, second = await asyncio.gather(desk.create("one"), desk.create("one"))
    other = await desk.create("one", name="another")
    same_name = await desk.create("two")

    assert valid(first, 201) == valid(second, 201)
    assert as_problem(other) == (409, "idempotency_key_reused")
    assert as_problem(same_name) == (409, "template_exists")
    assert as_problem(await desk.ask("POST", json={"definition": definition("x")})) == (422, "idempotency_key_missing")


async def test_of_two_people_who_edit_at_once_one_is_told(desk: Desk) -> None:
    draft = await desk.created()

    answers = await asyncio.gather(
        desk.edit(draft, text="What the first wrote."), desk.edit(draft, text="What the second wrote.")
    )
    stale = await desk.submit(draft)

    lost = next(one for one in answers if one.status_code != 200)
    won = next(one for one in answers if one.status_code == 200)
    assert as_problem(lost) == (409, "template_changed")
    assert as_problem(stale) == (409, "template_changed")
    assert (await desk.read(draft))["body_content"] == won.json()["body_content"]
    # Pressing twice is one submission.
    twice = await asyncio.gather(desk.submit(won.json()), desk.submit(won.json()))
    assert [one.status_code for one in twice] == [202, 202]
    assert await desk.rows("select count(*) from app.outbox where kind = 'template_submit'") == [(1,)]


async def test_owners_and_admins_write_agents_use_and_viewers_read(desk: Desk) -> None:
    draft = await desk.created()
    people: dict[str, UUID] = {}
    for role in ("admin", "agent", "viewer"):
        people[role] = new_id()
        await desk.admin.execute(
            "insert into public.workspace_members (workspace_id, user_id, role) values (%s, %s, %s)",
            (desk.world.workspace_a, people[role], role),
        )
    people |= {"stranger": desk.world.stranger, "neighbour": desk.world.owner_b}

    found = {}
    for role, user in people.items():
        writes = await desk.create(user=user, name=f"by_{role}")
        reads = await desk.ask("GET", f"/{draft['id']}", user=user)
        syncs = await desk.ask("POST", "/sync", user=user)
        counts = await desk.ask("POST", "/analytics/enable", user=user, json={"waba_id": WABA_A})
        found[role] = tuple(one.status_code for one in (writes, reads, syncs, counts))

    assert found == {
        "admin": (201, 200, 202, 202),
        "agent": (403, 200, 202, 403),
        "viewer": (403, 200, 403, 403),
        "stranger": (404, 404, 404, 404),
        "neighbour": (404, 404, 404, 404),
    }


async def test_without_a_connected_number_nothing_is_submitted(desk: Desk) -> None:
    draft = await desk.created()
    await desk.admin.execute("delete from app.channel_tokens")

    assert as_problem(await desk.submit(draft)) == (409, "channel_not_connected")
    assert as_problem(await desk.ask("POST", "/sync")) == (409, "channel_not_connected")


async def test_the_list_is_paged_and_filtered(desk: Desk) -> None:
    for n in range(5):
        await desk.created(name=f"note_{n}", language="de" if n == 2 else "en_US")

    met, cursor = [], {}
    while True:
        page = (await desk.ask("GET", params={"limit": 2} | cursor)).json()
        met += [one["template_name"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}

    assert met == [f"note_{n}" for n in (4, 3, 2, 1, 0)]
    assert await desk.names(language="de") == ["note_2"]
    assert await desk.names(status="approved") == []
    assert await desk.names(q="TRIP STARTS", category="utility", limit=1) == ["note_4"]
    assert as_problem(await desk.ask("GET", params={"cursor": "x"})) == (422, "bad_cursor")


async def test_a_preview_shows_samples_or_values(desk: Desk) -> None:
    draft = await desk.created()

    sample = await desk.ask("POST", "/preview", json={"definition": definition()})
    filled = await desk.ask(
        "POST", "/preview", json={"template_id": draft["id"], "values": {"body": {"1": "Ana", "2": "today"}}}
    )
    short = await desk.ask("POST", "/preview", json={"template_id": draft["id"], "values": {"body": {"1": "Ana"}}})
    unclear = await desk.ask("POST", "/preview", json={})

    shown = [TemplatePreview.model_validate_json(one.content) for one in (sample, filled, short)]
    assert shown[0].preview.body == "Hi Maren, your trip starts on 24 Nov. See you there!"
    assert shown[1].preview.body == "Hi Ana, your trip starts on today. See you there!"
    assert [one.problems for one in shown[:2]] == [[], []]
    assert shown[2].problems
    assert as_problem(unclear) == (422, "not_valid")


# --- counting -------------------------------------------------------------------------------------------------------


async def test_uses_are_counted_and_metas_statistics_read(desk: Desk) -> None:
    await desk.submitted(await desk.created(name="plain_words", text="We are open today."))
    await desk.hear()
    (template,) = (await desk.ask("GET", params={"q": "plain_words"})).json()["items"]
    for _ in range(3):
        await desk.admin.execute("select app.count_template_use(%s, %s)", (desk.world.workspace_a, template["id"]))
    said = {"name": "plain_words", "language": {"code": "en_US"}}
    wamid = desk.meta.say(type="template", text=None, template=said).json()["messages"][0]["id"]
    until(lambda: len(desk.meta.statuses(wamid)) == 3, what="statuses")
    path = f"/{template['id']}/analytics"
    before = TemplateAnalytics.model_validate_json((await desk.ask("GET", path)).content)

    asked = await desk.ask("POST", "/analytics/enable", json={"waba_id": WABA_A})
    await desk.work()
    after = TemplateAnalytics.model_validate_json((await desk.ask("GET", path)).content)

    assert (before.state, [(day.accepted, day.sent) for day in before.days]) == ("off", [(3, None)])
    assert (asked.status_code, asked.json()["state"]) == (202, "asked")
    assert (after.state, after.error) == ("on", None)
    assert [(day.accepted, day.sent, day.delivered, day.read) for day in after.days] == [(3, 1, 1, 1)]
    read = await desk.read(template)
    assert read["usage_count"] == 3
    assert read["last_used_at"] is not None
    assert await desk.rows("select usage_count from public.whatsapp_templates where id = %s", template["id"]) == [(3,)]


@pytest.mark.parametrize(
    ("code", "state", "says"),
    [(200005, "unavailable", "European"), (200007, "off", "not switched on")],
)
async def test_why_there_are_no_statistics_is_said(desk: Desk, code: int, state: str, says: str) -> None:
    await desk.sync()
    desk.meta.break_({"mode": "error", "code": code, "times": 1, "for": {"path": "template_analytics"}})
    await desk.ask("POST", "/analytics/enable", json={"waba_id": WABA_A})

    await desk.work()

    (account,) = (await desk.ask("GET")).json()["accounts"]
    assert (account["analytics_state"], account["sync_error"]) == (state, None)
    assert account["analytics_error"]["code"] == code
    assert (says if says != "European" else "EU") in account["analytics_error"]["sentence"]
