"""The outbox where things change meanwhile: nothing stays for ever, nothing goes that must not go any more."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from shared.domain.errors import Conflict, ParleyError, Rejected
from shared.store.conversations import Conversations
from shared.store.postgres import PostgresTransport
from shared.store.sending import Sending
from tests.conftest import Database
from tests.integration.sends import Sends
from tests.world import World

TEMPLATE = {"type": "template", "template": {"name": "sale", "language": {"code": "en_US"}}}


@pytest.fixture
async def sends(
    admin: psycopg.AsyncConnection, world: World, api_store: PostgresTransport, service_store: PostgresTransport
) -> Sends:
    made = Sends(admin, world, api_store, service_store)
    await made.prepare()
    return made


async def with_template(sends: Sends, category: str = "marketing") -> UUID:
    found = await sends.rows(
        "insert into public.whatsapp_templates (workspace_id, id, waba_id, template_name, language, category, status)"
        " select workspace_id, gen_random_uuid(), waba_id, 'sale', 'en_US', %s, 'approved'"
        " from public.whatsapp_channels where id = %s returning id",
        category,
        sends.world.channel_a,
    )
    return UUID(str(found[0][0]))


async def contact_of(sends: Sends, conversation: UUID) -> UUID:
    found = await sends.rows("select contact_id from public.whatsapp_conversations where id = %s", conversation)
    return UUID(str(found[0][0]))


async def send_template(sends: Sends, **more: Any) -> dict[str, Any]:
    return await sends.send("Sale!", message_type="template", payload=TEMPLATE, **more)


async def test_what_was_in_doubt_and_is_tried_again_ends_when_too_old(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    await sends.finish((await sends.claim())["messages"], "unknown", error={"reason": "unclear"})
    await sends.hear_later()
    assert (await sends.tend(grace_ms=0))["again"] == 1
    await sends.rows("update app.outbox set expires_at = now() - interval '1 s' where kind = 'message' returning 1")

    assert (await sends.tend(grace_ms=0))["given_up"] == 1
    row = await sends.message(sent["id"])
    assert (row["status"], row["error"]["reason"], row["sending"]) == ("failed", "outcome_unknown", None)
    assert (await sends.outbox(sent["id"]))["finished_at"] is not None


async def test_what_became_of_a_doubt_stays_on_the_row(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    await sends.finish((await sends.claim())["messages"], "unknown", error={"reason": "unclear"})
    since = (await sends.message(sent["id"]))["sending"]["since"]
    await sends.hear_later()
    await sends.tend(grace_ms=0)
    await sends.finish((await sends.claim())["messages"], "retry", retry_in_ms=1, error={"reason": "transient"})
    await sends.rows("update app.outbox set next_attempt_at = now() where state = 'waiting' returning 1")
    await sends.tend()
    await sends.finish((await sends.claim())["messages"], "accepted")

    told = (await sends.message(sent["id"]))["sending"]
    assert (told["state"], told["evidence"], told["attempt"], told["since"]) == ("settled", "answer", 3, since)


async def test_a_conversation_begun_with_somebody_blocked_is_blocked(sends: Sends) -> None:
    conversation = await sends.customer()
    contact = await contact_of(sends, conversation)
    await with_template(sends, "utility")
    people = Conversations(sends.api)
    await people.block_contact(sends.world.workspace_a, contact, as_user=sends.person)
    await people.delete(sends.world.workspace_a, conversation, as_user=sends.person)

    with pytest.raises(Conflict) as refused:
        await send_template(sends, channel_id=sends.world.channel_a, contact_id=contact)

    assert refused.value.code == "contact_blocked"


@pytest.mark.parametrize("how", ["contact_blocked", "conversation_deleted", "opted_out"])
async def test_what_must_not_go_any_more_does_not(sends: Sends, how: str) -> None:
    conversation = await sends.customer()
    contact = await contact_of(sends, conversation)
    await with_template(sends)
    sent = await send_template(sends, conversation_id=conversation)
    people = Conversations(sends.api)
    if how == "opted_out":
        await sends.rows("update public.contacts set opted_out_at = now() where id = %s returning 1", contact)
    else:
        await people.block_contact(sends.world.workspace_a, contact, as_user=sends.person)
    if how == "conversation_deleted":  # while it waited for its time: what deleting calls off is what is due
        await sends.rows(
            "update app.outbox set state = 'waiting', wait_reason = 'scheduled' where kind = 'message' returning 1"
        )
        await people.delete(sends.world.workspace_a, conversation, as_user=sends.person)
        await sends.tend()

    assert (await sends.claim())["messages"] == []
    await sends.tend()

    row = await sends.message(sent["id"])
    assert (row["status"], row["error"]["reason"]) == ("failed", how)
    work = await sends.outbox(sent["id"])
    assert (work["state"], work["finished_at"] is not None) == ("cancelled", True)


async def test_what_is_called_off_elsewhere_is_finished_too(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    contact = await contact_of(sends, conversation)
    people = Conversations(sends.api)
    await people.block_contact(sends.world.workspace_a, contact, as_user=sends.person)
    await people.delete(sends.world.workspace_a, conversation, as_user=sends.person)

    work = await sends.outbox(sent["id"])
    assert (work["state"], work["finished_at"] is not None) == ("expired", True)


async def test_paused_marketing_waits_visibly_and_goes_on_when_its_number_does(sends: Sends) -> None:
    conversation = await sends.customer()
    await with_template(sends)
    sent = await send_template(sends, conversation_id=conversation)
    reply = await sends.send("But this goes", conversation_id=conversation)
    await sends.rows("update public.whatsapp_channels set marketing_paused_at = now() returning 1")

    assert (await sends.claim())["messages"] == []
    await sends.tend()
    assert (await sends.message(sent["id"]))["sending"]["reason"] == "marketing_paused"
    await sends.rows("update app.outbox set next_attempt_at = now() where wait_reason = 'behind' returning 1")
    await sends.tend()
    assert [m["message_id"] for m in (await sends.claim())["messages"]] == [reply["id"]]

    await sends.api.call(
        "resume_channel",
        {"p_workspace_id": str(sends.world.workspace_a), "p_channel_id": str(sends.world.channel_a)},
        as_user=sends.person,
    )
    await sends.tend()
    assert (await sends.message(sent["id"]))["sending"] is None
    assert [m["message_id"] for m in (await sends.claim())["messages"]] == [sent["id"]]


async def test_marketing_that_meta_puts_off_for_a_day_keeps_no_reply_waiting(sends: Sends) -> None:
    conversation = await sends.customer()
    await with_template(sends)
    await send_template(sends, conversation_id=conversation)
    error = {"code": 131049, "reason": "marketing_capped"}
    await sends.finish((await sends.claim())["messages"], "retry", retry_in_ms=86_400_000, error=error)
    reply = await sends.send("Yes, we are open", conversation_id=conversation)

    assert [m["message_id"] for m in (await sends.claim())["messages"]] == [reply["id"]]


@pytest.mark.parametrize(
    ("message_type", "payload"),
    [
        ("text", TEMPLATE),  # a template that nobody looked up
        ("unknown", TEMPLATE),
        ("text", {"type": "text", "text": {"body": "Hi"}, "to": "4915110000000"}),  # somebody else
        ("text", {"type": "text", "text": {"body": "Hi"}, "category": "utility"}),  # Direct Send, but for its ttl
        ("image", {"type": "image", "image": {"link": "https://x"}, "category": "utility", "ttl_seconds": 60}),
        ("text", {"type": "text", "text": {"body": "Hi"}, "category": "marketing", "ttl_seconds": 60}),
        ("text", {"type": "text"}),
        ("text", []),
    ],
)
async def test_a_payload_is_what_its_type_says_and_nothing_more(sends: Sends, message_type: str, payload: Any) -> None:
    conversation = await sends.customer()

    with pytest.raises(Rejected) as refused:
        await sends.send("Hi", conversation_id=conversation, message_type=message_type, payload=payload)

    assert refused.value.code == "payload_not_valid"


async def test_whoever_cannot_be_addressed_is_told_so_before(sends: Sends) -> None:
    conversation = await sends.customer()
    with pytest.raises(ParleyError) as refused:
        await sends.send(channel_id=sends.world.channel_a)
    assert refused.value.code == "contact_not_found"
    await sends.rows("delete from public.contact_identities returning 1")

    with pytest.raises(Conflict) as unreachable:
        await sends.send(conversation_id=conversation)

    assert unreachable.value.code == "contact_unreachable"


async def test_a_retry_asked_for_again_is_the_same_whatever_became_of_the_first(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    await sends.finish((await sends.claim())["messages"], "failed", error={"reason": "undeliverable"})

    async def retry(key: str) -> str:
        answer = await Sending(sends.api).retry(
            sends.world.workspace_a,
            UUID(sent["id"]),
            new_id=uuid4(),
            request_id=key,
            digest="00",
            as_user=sends.person,
        )
        return str(json.loads(answer)["id"])

    again = await retry("k")
    await sends.status("delivered", wamid="wamid.late", callback=f"{sent['id']}.1")

    assert (await sends.message(sent["id"]))["status"] == "delivered"
    assert await retry("k") == again
    with pytest.raises(Conflict):
        await retry("another")


async def test_two_read_marks_of_one_conversation_that_must_wait_become_one(sends: Sends) -> None:
    await sends.customer()
    claim = {"p_kinds": ["mark_read"], "p_most": 5, "p_lease_token": str(uuid4()), "p_lease_ms": 20_000}
    claimed = json.loads(await sends.service.call("claim_chores", claim))
    await sends.customer()
    claimed += json.loads(await sends.service.call("claim_chores", claim))
    results = [
        {"workspace_id": c["workspace_id"], "id": c["id"], "lease_token": claim["p_lease_token"], "outcome": "retry"}
        for c in claimed
    ]

    assert json.loads(await sends.service.call("finish_chores", {"p_results": results})) == 2
    assert await sends.rows("select state from app.outbox where kind = 'mark_read' order by state") == [
        ("done",),
        ("due",),
    ]


async def test_what_meta_looks_at_first_says_so_until_it_is_sent(sends: Sends) -> None:
    conversation = await sends.customer()
    await with_template(sends)
    sent = await send_template(sends, conversation_id=conversation)
    await sends.finish((await sends.claim())["messages"], "held")
    row = await sends.message(sent["id"])
    assert (row["status"], row["sending"]["state"], row["sending"]["reason"]) == ("queued", "held", "held")

    await sends.status("sent", wamid=row["wamid"], callback=f"{sent['id']}.1")

    row = await sends.message(sent["id"])
    assert (row["status"], row["sending"]) == ("sent", None)


async def test_uses_of_a_template_are_counted_where_templates_look(sends: Sends) -> None:
    conversation = await sends.customer()
    template = await with_template(sends)
    await send_template(sends, conversation_id=conversation)
    claimed = (await sends.claim())["messages"]
    await sends.finish(claimed, "accepted")
    await sends.finish(claimed, "accepted")

    assert await sends.rows("select template_id, accepted from public.template_usage") == [(template, 1)]


async def test_a_file_that_arrives_unseen_or_never_keeps_no_message(sends: Sends) -> None:
    conversation = await sends.customer()
    media = uuid4()
    await sends.rows(
        "insert into public.media (workspace_id, id, uploaded_by, kind, state, mime_type)"
        " values (%s, %s, %s, 'image', 'stored', 'image/png') returning 1",
        sends.world.workspace_a,
        media,
        sends.world.owner_a,
    )
    picture = {"type": "image", "image": {"id": f"parley:{media}"}}
    sent = await sends.send(conversation_id=conversation, message_type="image", payload=picture)
    assert (await sends.outbox(sent["id"]))["wait_reason"] == "media"

    async def look_in_10_s() -> list[dict[str, Any]]:
        await sends.rows(
            "update app.outbox set next_attempt_at = next_attempt_at - interval '10 s'"
            " where wait_reason = 'media' returning 1"
        )
        await sends.tend()
        return list((await sends.claim())["messages"])

    # Its upload runs out of time: it is asked for again.
    await sends.rows("update app.outbox set expires_at = now() where kind = 'media_upload' returning 1")
    await sends.tend()
    assert await look_in_10_s() == []
    states = await sends.rows("select state from app.outbox where kind = 'media_upload' order by place")
    assert states == [("expired",), ("due",)]

    # Meta has it, and whoever let those go that waited did not see this one yet.
    await sends.rows(
        "insert into app.media_uploads (workspace_id, media_id, channel_id, meta_id, expires_at)"
        " values (%s, %s, %s, '77', now() + interval '30 days') returning 1",
        sends.world.workspace_a,
        media,
        sends.world.channel_a,
    )
    assert [m["files"] for m in await look_in_10_s()] == [{str(media): "77"}]


async def test_many_behind_one_customer_do_not_keep_others_waiting(sends: Sends) -> None:
    busy, other = await sends.customer(1), await sends.customer(2)
    for n in range(90):
        await sends.send(str(n), conversation_id=busy)
    reply = await sends.send("Somebody else", conversation_id=other)
    await sends.rows(
        "update app.send_pairs set free_at = now() + interval '1 hour', burst_from = '-infinity'"
        " where lane = %s returning 1",
        busy,
    )

    for _ in range(50):  # a slow number claims one at a time
        if await sends.claim(1) and (await sends.message(reply["id"]))["id"] in await _attempted(sends):
            break
    assert await _attempted(sends) == {reply["id"]}
    # What stands behind does not come back all at once either.
    soon = await sends.rows(
        "select count(*) from app.outbox where wait_reason = 'behind' and next_attempt_at < now() + interval '4 s'"
    )
    assert soon[0][0] < 10


async def _attempted(sends: Sends) -> set[str]:
    return {str(row[0]) for row in await sends.rows("select message_id from app.send_attempts")}


async def test_statuses_and_results_of_the_same_messages_do_not_deadlock(sends: Sends, database: Database) -> None:
    conversations = [await sends.customer(n) for n in range(2)]
    ids = sorted([(await sends.send(conversation_id=c))["id"] for c in conversations])
    claimed = {m["message_id"]: m for m in (await sends.claim())["messages"]}
    await sends.status("sent", wamid="wamid.first", callback=f"{ids[0]}.1")
    first = await psycopg.AsyncConnection.connect(database.url())
    async with first:
        # As a dispatcher would that records an unclear answer of both: the first message is locked, then the second.
        await first.execute("select from public.whatsapp_messages where id = %s for no key update", (ids[0],))

        async def record() -> None:
            told = [("delivered", "wamid.first", f"{ids[0]}.1"), ("sent", "wamid.other", f"{ids[1]}.1")]
            await sends.statuses(told, at=datetime.now(UTC))

        recording = asyncio.create_task(record())
        await asyncio.sleep(0.3)
        await first.execute("select from public.whatsapp_messages where id = %s for no key update nowait", (ids[1],))
        await first.commit()
        await recording
    assert claimed.keys() == set(ids)
