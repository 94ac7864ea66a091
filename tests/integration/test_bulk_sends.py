"""One template to many people: begun by who may, a few hundred at a time, paused and cancelled, each with a result."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from services.api.shapes import BulkRecipient, BulkRecipientPage, BulkSend, BulkSendPage
from services.sender.expand_bulk_sends import expand_bulk_sends
from shared.domain.errors import Rejected
from shared.domain.ids import new_id
from shared.store.bulk import BulkSends, BulkWork, Expansion
from shared.store.postgres import PostgresTransport
from tests.integration.erasing import ask as ask_erasure
from tests.integration.erasing import everything, naming, work_off
from tests.integration.lifecycle_rows import add_member
from tests.integration.send_api import HELLO, add_template
from tests.integration.sends import Sends
from tests.integration.test_api import Client, as_problem, client_of
from tests.world import World

BULK = "/api/whatsapp/bulk-sends"
PARCEL = {"body": {"1": "Ana", "2": "7"}}


class Campaign:
    """Somebody who runs workspace A, its hello template, and the dispatcher's side of it."""

    def __init__(self, client: Client, sends: Sends, template: UUID) -> None:
        self.client, self.sends, self.template = client, sends, template
        self.work = BulkWork(sends.service)

    def body(self, recipients: list[Any], **more: Any) -> dict[str, Any]:
        return {
            "channel_id": str(self.sends.world.channel_a),
            "template_id": str(self.template),
            "recipients": [one | {"values": PARCEL} | one for one in recipients],
        } | more

    async def ask(self, path: str, method: str = "GET", body: Any = None, **options: Any) -> Any:
        world = self.sends.world
        params = {"workspace_id": str(options.pop("workspace_id", world.workspace_a))} | options.pop("params", {})
        headers = {"idempotency-key": options.pop("key", None) or str(uuid4())}
        user = options.pop("user", world.owner_a)
        return await self.client.ask(path, method=method, user=user, params=params, json=body, headers=headers)

    async def begin(self, recipients: list[Any], **options: Any) -> BulkSend:
        answer = await self.ask(BULK, "POST", self.body(recipients), **options)
        assert answer.status_code == 202, answer.text
        return BulkSend.model_validate_json(answer.content)

    async def act(self, bulk: BulkSend, action: str) -> BulkSend:
        answer = await self.ask(f"{BULK}/{bulk.id}/{action}", "POST")
        assert answer.status_code == 200, answer.text
        return BulkSend.model_validate_json(answer.content)

    async def now(self, bulk: BulkSend) -> BulkSend:
        return BulkSend.model_validate_json((await self.ask(f"{BULK}/{bulk.id}")).content)

    async def recipients(self, bulk: BulkSend, **params: Any) -> list[BulkRecipient]:
        answer = await self.ask(f"{BULK}/{bulk.id}/recipients", params=params)
        return BulkRecipientPage.model_validate_json(answer.content).items

    async def results(self, bulk: BulkSend) -> list[str]:
        return [recipient.state for recipient in await self.recipients(bulk)]


@asynccontextmanager
async def campaign_of(sends: Sends, *, category: str = "marketing") -> AsyncIterator[Campaign]:
    await sends.prepare()
    async with client_of(sends.api) as client:
        yield Campaign(client, sends, await add_template(sends, "parcel", HELLO, category=category))


@pytest.fixture
async def sends(
    admin: psycopg.AsyncConnection, world: World, api_store: PostgresTransport, service_store: PostgresTransport
) -> Sends:
    return Sends(admin, world, api_store, service_store)


@pytest.fixture
async def campaign(sends: Sends) -> AsyncIterator[Campaign]:
    async with campaign_of(sends) as made:
        yield made


def phones(count: int) -> list[dict[str, str]]:
    return [{"wa_id": f"+44 7700 9{n:05}"} for n in range(count)]


async def test_each_recipient_gets_a_message_behind_replies_or_a_result_that_says_why_not(campaign: Campaign) -> None:
    sends = campaign.sends
    for n in (1, 2, 3):
        await sends.customer(n)
    contacts = {
        value: str(contact)
        for value, contact in await sends.rows(
            "select value, contact_id from public.contact_identities where kind = 'bsuid'"
        )
    }
    await sends.admin.execute("update public.contacts set opted_out_at = now() where id = %s", (contacts["US.2"],))
    await sends.admin.execute("update public.contacts set blocked_at = now() where id = %s", (contacts["US.3"],))

    bulk = await campaign.begin(
        [
            {"contact_id": contacts["US.1"]},
            {"contact_id": contacts["US.2"]},
            {"contact_id": contacts["US.3"]},
            {"wa_id": "+44 7700 900123", "values": {"body": {"1": "Bo", "2": "8"}}},
            {"wa_id": "12025550001"},  # the first again
            {"contact_id": str(new_id())},
        ]
    )
    assert (bulk.state, bulk.recipients, bulk.counts) == ("running", 6, {"waiting": 6})
    expansion = await campaign.work.expand(most=100)
    reply = await sends.send(
        conversation_id=(await sends.rows("select id from public.whatsapp_conversations limit 1"))[0][0]
    )

    assert expansion == Expansion(expanded=6, paused=0, finished=0, is_more=False)
    found = await campaign.recipients(bulk)
    assert [r.state for r in found] == ["queued", "opted_out", "blocked", "queued", "duplicate", "invalid"]
    rows = await sends.rows(
        "select m.content, m.sender_wa_id, m.sent_by, o.priority, o.is_marketing from public.whatsapp_messages m"
        " join app.outbox o on o.message_id = m.id where m.bulk_id = %s order by m.content",
        bulk.id,
    )
    assert rows == [
        ("Hello Ana, your parcel 7 is here.", "12025550001", None, 6, True),
        ("Hello Bo, your parcel 8 is here.", "447700900123", None, 6, True),
    ]
    claimed = (await sends.claim())["messages"]
    assert claimed[0]["message_id"] == reply["id"]
    await sends.finish(claimed, "accepted")
    claimed += (await sends.claim())["messages"]
    assert {m["message_id"] for m in claimed[1:]} <= {str(r.message_id) for r in found}
    # Nothing of what was to be said stays on the list.
    assert (
        await sends.rows("select 1 from public.bulk_recipients where payload is not null or content is not null") == []
    )


async def test_it_is_done_when_each_has_a_result(campaign: Campaign) -> None:
    bulk = await campaign.begin(phones(3))
    await campaign.work.expand(most=2)
    first = (await campaign.sends.claim())["messages"]
    await campaign.sends.finish(first[:1], "accepted")
    await campaign.sends.finish(
        first[1:], "failed", error={"code": 131026, "reason": "undeliverable", "sentence": "No."}
    )
    assert (await campaign.now(bulk)).counts == {"sent": 1, "failed": 1, "waiting": 1}

    assert (await campaign.work.expand(most=2)).expanded == 1
    assert (await campaign.work.expand(most=2)).finished == 0  # one is still under way
    await campaign.sends.finish((await campaign.sends.claim())["messages"], "accepted")
    assert (await campaign.work.expand(most=2)).finished == 1

    over = await campaign.now(bulk)
    assert (over.state, over.counts, over.finished_at is not None) == ("done", {"sent": 2, "failed": 1}, True)
    [failed] = await campaign.recipients(bulk, state="failed")
    assert failed.error is not None
    assert (failed.error.reason, failed.error.code) == ("undeliverable", 131026)
    for action in ("pause", "resume", "cancel"):
        assert as_problem(await campaign.ask(f"{BULK}/{bulk.id}/{action}", "POST"))[0] == 409


async def test_never_more_than_300_are_under_way(campaign: Campaign) -> None:
    bulk = await campaign.begin(phones(310))

    grown = [(await campaign.work.expand(most=150)).expanded for _ in range(3)]
    claimed = (await campaign.sends.claim(5))["messages"]
    await campaign.sends.finish(claimed, "accepted")
    grown.append((await campaign.work.expand(most=150)).expanded)

    assert (grown, len(claimed)) == ([150, 150, 0, 5], 5)
    assert (await campaign.now(bulk)).counts == {"waiting": 5, "queued": 300, "sent": 5}


async def test_a_dispatcher_expands_as_long_as_there_is_more_and_looks_again(campaign: Campaign) -> None:
    await campaign.begin(phones(130))
    told: list[None] = []

    pauses_s = [await expand_bulk_sends(bulk=campaign.work, tell=lambda: told.append(None)) for _ in range(3)]

    assert (pauses_s, len(told)) == ([0, 1, 1], 2)
    assert await campaign.sends.rows("select count(*) from app.outbox where kind = 'message'") == [(130,)]


async def test_pausing_holds_what_has_not_left_and_resuming_lets_it_go(campaign: Campaign) -> None:
    sends = campaign.sends
    bulk = await campaign.begin(phones(4))
    await campaign.work.expand(most=3)
    [leaving] = (await sends.claim(1))["messages"]

    paused = [await campaign.act(bulk, "pause") for _ in range(2)]
    assert [(p.state, p.pause_reason) for p in paused] == [("paused", "by_person")] * 2
    assert (await sends.claim())["messages"] == []
    assert (await campaign.work.expand(most=3)).expanded == 0
    await sends.finish([leaving], "accepted")
    assert (await campaign.now(bulk)).counts == {"sent": 1, "queued": 2, "waiting": 1}
    waiting = await campaign.recipients(bulk, state="queued")
    assert (await sends.message(str(waiting[0].message_id)))["sending"]["reason"] == "bulk_paused"
    await sends.admin.execute("update public.bulk_sends set created_at = created_at - interval '5 days'")
    assert (await sends.tend())["too_old"] == 0

    resumed = [await campaign.act(bulk, "resume") for _ in range(2)]
    assert [(r.state, r.pause_reason) for r in resumed] == [("running", None)] * 2
    assert (await campaign.work.expand(most=3)).expanded == 1
    assert len((await sends.claim())["messages"]) == 3
    assert (await sends.message(str(waiting[0].message_id)))["sending"] is None


async def test_a_pause_in_the_midst_leaves_nothing_that_may_go(campaign: Campaign) -> None:
    bulk = await campaign.begin(phones(60))

    async def expand() -> None:
        while (await campaign.work.expand(most=5)).expanded:
            pass

    await asyncio.gather(expand(), expand(), campaign.act(bulk, "pause"))

    assert await campaign.sends.rows("select count(*) from app.outbox where state <> 'held'") == [(0,)]
    assert (await campaign.now(bulk)).state == "paused"


async def test_cancelling_ends_it_and_nothing_more_leaves(campaign: Campaign) -> None:
    sends = campaign.sends
    bulk = await campaign.begin(phones(4))
    await campaign.work.expand(most=3)
    [leaving] = (await sends.claim(1))["messages"]
    await campaign.act(bulk, "pause")

    cancelled = [await campaign.act(bulk, "cancel") for _ in range(2)]

    assert [c.state for c in cancelled] == ["cancelled"] * 2
    await sends.finish([leaving], "accepted")
    assert (await sends.claim())["messages"] == []
    assert (await campaign.work.expand(most=3)).expanded == 0
    assert Counter(await campaign.results(bulk)) == {"sent": 1, "failed": 2, "cancelled": 1}
    assert await sends.rows(
        "select distinct error ->> 'reason' from public.whatsapp_messages where status = 'failed'"
    ) == [("cancelled",)]


async def test_it_stops_by_itself_when_nothing_of_it_can_go(campaign: Campaign) -> None:
    sends = campaign.sends
    bulk = await campaign.begin(phones(3))
    await campaign.work.expand(most=2)
    await sends.admin.execute("update public.whatsapp_templates set category = 'marketing'")

    stopped = []
    for change, back in (
        ("update public.whatsapp_templates set status = 'paused'", "set status = 'approved'"),
        ("update public.whatsapp_channels set state = 'paused'", "set state = 'connected'"),
        ("update public.whatsapp_channels set marketing_paused_at = now()", "set marketing_paused_at = null"),
        ("delete from app.channel_tokens", None),
    ):
        await sends.admin.execute(change.encode())
        assert (await campaign.work.expand(most=2)).paused == 1
        assert await sends.rows("select count(*) from app.outbox where state = 'held'") == [(2,)]
        now = await campaign.now(bulk)
        stopped.append((now.state, now.pause_reason))
        if back:
            await sends.admin.execute(f"{change.split(' set ')[0]} {back}".encode())
            await campaign.act(bulk, "resume")

    assert stopped == [
        ("paused", "template_not_approved"),
        ("paused", "channel_paused"),
        ("paused", "marketing_paused"),
        ("paused", "channel_not_connected"),
    ]


async def test_values_that_do_not_fit_refuse_the_whole(campaign: Campaign) -> None:
    body = campaign.body(
        [
            {"wa_id": "+44 7700 900123"},
            {"wa_id": "12"},
            {},
            {"wa_id": "+447700900124", "values": {"body": {"1": "Ana"}}},
        ]
    )

    answer = await campaign.ask(BULK, "POST", body)

    assert as_problem(answer) == (422, "not_valid")
    assert [(p["field"], p["code"]) for p in answer.json()["problems"]] == [
        ("recipients[1].wa_id", "bad_format"),
        ("recipients[2]", "recipient"),
        ("recipients[3].values.body", "wrong_count"),
    ]
    empty = await campaign.ask(BULK, "POST", campaign.body([]))
    assert [p["field"] for p in empty.json()["problems"]] == ["recipients"]
    assert await campaign.sends.rows("select 1 from public.bulk_sends") == []


async def test_the_database_takes_no_list_that_the_api_would_not_make(campaign: Campaign) -> None:
    good = {
        "wa_id": "447700900123",
        "payload": {"type": "template", "template": {"name": "parcel", "language": {"code": "en_US"}}},
    }
    text = {"type": "text", "text": {"body": "No window for me"}}
    lists = {
        "nobody": [],
        "no list": None,
        "a text": [good, good | {"payload": text}],
        "more than it says": [good | {"payload": good["payload"] | text | {"type": "template"}}],
        "another template": [
            good | {"payload": {"type": "template", "template": {"name": "x", "language": {"code": "en_US"}}}}
        ],
        "no payload": [{"wa_id": "447700900123"}],
        "two people": [good | {"contact_id": str(new_id())}],
        "no number": [good | {"wa_id": "+44"}],
    }
    begin = BulkSends(campaign.sends.api).begin
    world = campaign.sends.world

    codes = {}
    for name, recipients in lists.items():
        bulk = campaign.body([]) | {"id": str(new_id()), "recipients": recipients}
        with pytest.raises(Rejected) as refused:
            await begin(world.workspace_a, bulk, request_id=name, digest="00", as_user=campaign.sends.person)
        codes[name] = refused.value.code
    bulk = campaign.body([]) | {"id": str(new_id()), "recipients": [good]}
    await begin(world.workspace_a, bulk, request_id="good", digest="00", as_user=campaign.sends.person)

    assert codes == dict.fromkeys(lists, "recipients_not_valid")


async def test_marketing_that_goes_on_leaves_a_paused_bulk_send_alone(campaign: Campaign) -> None:
    sends = campaign.sends
    bulk = await campaign.begin(phones(2))
    await campaign.work.expand(most=2)
    await sends.admin.execute("update public.whatsapp_channels set marketing_paused_at = now()")
    assert (await sends.claim())["messages"] == []
    await sends.tend()
    await campaign.act(bulk, "pause")

    world = sends.world
    await sends.admin.execute("update public.whatsapp_channels set marketing_paused_at = null")
    await sends.admin.execute("select app.release_marketing(%s, %s)", (world.workspace_a, world.channel_a))
    assert (await sends.claim())["messages"] == []
    await campaign.act(bulk, "resume")

    assert len((await sends.claim())["messages"]) == 2


async def test_a_key_stands_for_one_bulk_send_and_templates_must_be_approved(campaign: Campaign) -> None:
    both = await asyncio.gather(*(campaign.begin(phones(2), key="once") for _ in range(3)))
    other = await campaign.ask(BULK, "POST", campaign.body(phones(1)), key="once")
    await campaign.sends.admin.execute("update public.whatsapp_templates set status = 'paused'")
    again = await campaign.begin(phones(2), key="once")
    refused = await campaign.ask(BULK, "POST", campaign.body(phones(2)))
    unknown = await campaign.ask(BULK, "POST", campaign.body(phones(2), template_id=str(new_id())))

    assert {bulk.id for bulk in (*both, again)} == {both[0].id}
    assert as_problem(other) == (409, "idempotency_key_reused")
    assert as_problem(refused) == (422, "template_not_approved")
    assert as_problem(unknown) == (404, "template_not_found")


async def test_only_those_who_run_a_workspace_send_in_bulk(campaign: Campaign, admin: psycopg.AsyncConnection) -> None:
    world = campaign.sends.world
    bulk = await campaign.begin(phones(1))
    admin_user, agent = [await add_member(admin, world.workspace_a, role) for role in ("admin", "agent")]
    calls = [
        ("POST", BULK, campaign.body(phones(1))),
        ("GET", BULK, None),
        ("GET", f"{BULK}/{bulk.id}", None),
        ("GET", f"{BULK}/{bulk.id}/recipients", None),
        *(("POST", f"{BULK}/{bulk.id}/{action}", None) for action in ("pause", "resume", "cancel")),
    ]

    for method, path, body in calls:
        assert as_problem(await campaign.ask(path, method, body, user=None))[0] == 401
        for user in (world.stranger, world.owner_b):
            assert as_problem(await campaign.ask(path, method, body, user=user))[0] == 404
        assert as_problem(await campaign.ask(path, method, body, user=agent)) == (403, "role_may_not_send_bulk")
        assert (await campaign.ask(path, method, body, user=admin_user)).status_code in (200, 202)
        if path != BULK:
            elsewhere = await campaign.ask(path, method, body, user=world.owner_b, workspace_id=world.workspace_b)
            assert as_problem(elsewhere)[0] == 404


async def test_pages_go_through_all_of_them(campaign: Campaign) -> None:
    bulks = [await campaign.begin(phones(5)) for _ in range(3)]
    await campaign.work.expand(most=100)

    first = BulkSendPage.model_validate_json((await campaign.ask(BULK, params={"limit": 2})).content)
    rest = BulkSendPage.model_validate_json(
        (await campaign.ask(BULK, params={"limit": 2, "cursor": str(first.next_cursor)})).content
    )
    page = json.loads((await campaign.ask(f"{BULK}/{bulks[0].id}/recipients", params={"limit": 3})).content)
    last = await campaign.recipients(bulks[0], limit=3, after=page["next_cursor"])

    assert [b.id for b in (*first.items, *rest.items)] == [b.id for b in reversed(bulks)]
    assert rest.next_cursor is None
    assert [r["n"] for r in page["items"]] + [r.n for r in last] == [1, 2, 3, 4, 5]


async def test_expansions_side_by_side_give_nobody_two(campaign: Campaign) -> None:
    await campaign.begin(phones(40))
    await campaign.begin(phones(40))  # the same people, of another bulk send

    while sum(e.expanded for e in await asyncio.gather(*(campaign.work.expand(most=7) for _ in range(4)))):
        pass

    assert await campaign.sends.rows(
        "select count(*), count(distinct (bulk_id, contact_id)), count(distinct contact_id)"
        " from public.whatsapp_messages"
    ) == [(80, 80, 40)]


async def test_erasing_somebody_takes_them_off_every_list(campaign: Campaign, world: World) -> None:
    sends = campaign.sends
    await sends.customer(1)
    ((contact,),) = await sends.rows("select id from public.contacts")
    await campaign.begin([{"contact_id": str(contact)}, {"wa_id": "+44 7700 900123"}])
    await campaign.work.expand(most=1)
    later = await campaign.begin(
        [{"wa_id": "+1 202 555 0001"}, {"contact_id": str(contact)}, {"wa_id": "447700900124"}]
    )
    await campaign.act(later, "pause")

    await ask_erasure(sends.admin, world.workspace_a, contact, world.owner_a)
    await work_off(sends.service)

    left = naming(
        {k: v for k, v in (await everything(sends.admin)).items() if k.startswith("public.bulk")},
        "12025550001",
        str(contact),
    )
    assert left == {}
    assert await campaign.results(later) == ["erased", "erased", "waiting"]
    await campaign.act(later, "resume")
    assert (await campaign.work.expand(most=9)).expanded == 1


async def test_ten_thousand_are_taken_at_once(campaign: Campaign) -> None:
    bulk = await campaign.begin(phones(10_000))

    assert (bulk.recipients, bulk.counts) == (10_000, {"waiting": 10_000})
    assert as_problem(await campaign.ask(BULK, "POST", campaign.body(phones(10_001))))[0] == 422
