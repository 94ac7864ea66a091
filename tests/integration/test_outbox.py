"""The outbox as a queue: what goes first, what waits, what is in doubt, what a status settles."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from shared.domain.errors import Conflict, Rejected
from shared.store.postgres import PostgresTransport
from shared.store.sending import Sending
from tests.integration.sends import Sends
from tests.world import World


@pytest.fixture
async def sends(
    admin: psycopg.AsyncConnection, world: World, api_store: PostgresTransport, service_store: PostgresTransport
) -> Sends:
    made = Sends(admin, world, api_store, service_store)
    await made.prepare()
    return made


async def test_a_message_is_queued_claimed_and_accepted_once(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send("Hello back", conversation_id=conversation)

    assert (sent["status"], sent["direction"], sent["sent_by"]) == ("queued", "outbound", str(sends.world.owner_a))
    claimed = (await sends.claim())["messages"]
    assert [m["message_id"] for m in claimed] == [sent["id"]]
    assert claimed[0]["wa_id"] == "12025550001"
    assert claimed[0]["user_id"] == "US.1"
    assert claimed[0]["payload"] == {"type": "text", "text": {"body": "Hello back"}}
    assert (await sends.claim())["messages"] == []

    assert await sends.finish(claimed, "accepted") == {"settled": 1, "lost": 0}
    assert await sends.finish(claimed, "accepted") == {"settled": 0, "lost": 0}

    row = await sends.message(sent["id"])
    assert (row["status"], row["wamid"], row["sending"]) == ("sent", f"wamid.out.{sent['id']}.1", None)
    assert (await sends.outbox(sent["id"]))["state"] == "done"
    assert await sends.rows("select service_messages, template_messages from public.channel_usage") == [(1, 0)]
    assert await sends.rows("select action from public.audit_log where subject_id = %s", sent["id"]) == [
        ("message.queued",)
    ]


async def test_a_status_before_the_answer_counts(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    [claimed] = (await sends.claim())["messages"]
    wamid = f"wamid.out.{sent['id']}.1"

    await sends.status("delivered", wamid=wamid)
    await sends.finish([claimed], "accepted")

    assert (await sends.message(sent["id"]))["status"] == "delivered"


async def test_a_status_settles_one_in_doubt_and_nothing_is_sent_again(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    [claimed] = (await sends.claim())["messages"]
    await sends.finish([claimed], "unknown", error={"reason": "unclear", "sentence": "Nobody knows."})
    assert (await sends.message(sent["id"]))["sending"]["state"] == "in_doubt"

    await sends.status("delivered", wamid="wamid.theirs", callback=f"{sent['id']}.1")
    await sends.hear_later()

    row = await sends.message(sent["id"])
    assert (row["status"], row["wamid"]) == ("delivered", "wamid.theirs")
    assert (row["sending"]["state"], row["sending"]["evidence"]) == ("settled", "status")
    assert (await sends.tend(grace_ms=0))["again"] == 0
    assert (await sends.claim())["messages"] == []
    assert await sends.rows("select outcome, evidence, wamid from app.send_attempts") == [
        ("accepted", "status", "wamid.theirs")
    ]


async def test_another_number_s_callback_settles_nothing(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    await sends.rows("update public.whatsapp_messages set channel_id = channel_id returning 1")
    [claimed] = (await sends.claim())["messages"]
    await sends.finish([claimed], "unknown", error={})

    await sends.status("delivered", wamid="wamid.x", callback=f"{uuid4()}.1")
    await sends.status("delivered", wamid="wamid.y", callback=f"{sent['id']}.2")
    await sends.status("delivered", wamid="wamid.z", callback="somebody else's")

    assert (await sends.message(sent["id"]))["wamid"] is None


async def test_doubt_ends_in_another_try_only_after_the_grace_and_while_intake_is_current(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    [claimed] = (await sends.claim())["messages"]
    await sends.finish([claimed], "unknown", error={"reason": "unclear"})

    assert (await sends.tend(grace_ms=0))["again"] == 0, "the number has heard nothing since"
    await sends.hear_later()
    assert (await sends.tend(grace_ms=0, current=False))["again"] == 0, "our intake lags"
    assert (await sends.tend(grace_ms=600_000))["again"] == 0, "the grace is not over"
    assert (await sends.tend(grace_ms=0))["again"] == 1

    row = await sends.message(sent["id"])
    assert (row["sending"]["reason"], row["sending"]["evidence"]) == ("no_status_came", "silence")
    [again] = (await sends.claim())["messages"]
    assert again["attempt"] == 2


async def test_a_dead_dispatcher_leaves_doubt_and_its_late_answer_settles_it(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    [claimed] = (await sends.claim(lease_ms=1))["messages"]
    await asyncio.sleep(0.01)

    assert (await sends.tend())["doubted"] == 1
    assert (await sends.message(sent["id"]))["sending"]["reason"] == "dispatcher_lost"
    assert (await sends.finish([claimed], "failed", error={"reason": "x"}))["lost"] == 1
    assert (await sends.message(sent["id"]))["status"] == "queued"

    assert (await sends.finish([claimed], "accepted"))["settled"] == 1
    assert (await sends.message(sent["id"]))["status"] == "sent"


async def test_marketing_in_doubt_waits_for_a_person(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    await sends.rows("update app.outbox set is_marketing = true where kind = 'message' returning 1")
    [claimed] = (await sends.claim())["messages"]
    await sends.finish([claimed], "unknown", error={})
    await sends.hear_later()

    assert (await sends.tend(grace_ms=0))["held"] == 1
    assert (await sends.message(sent["id"]))["sending"]["state"] == "held"
    await Sending(sends.api).resolve_doubt(
        sends.world.workspace_a,
        sent["id"],
        send_again=True,
        as_user=sends.person,  # type: ignore[arg-type]
    )
    assert [m["attempt"] for m in (await sends.claim())["messages"]] == [2]


async def test_one_conversation_goes_in_order_and_a_pair_holds_up_nobody_else(sends: Sends) -> None:
    first, second = await sends.customer(1), await sends.customer(2)
    texts = [await sends.send(str(n), conversation_id=first) for n in range(12)]
    other = await sends.send("other", conversation_id=second)

    got: list[str] = []
    for _ in range(30):
        claimed = (await sends.claim())["messages"]
        if not claimed:
            break
        lanes = [m["message_id"] for m in claimed]
        assert len(set(lanes) & {t["id"] for t in texts}) <= 1, "one at a time"
        got += lanes
        await sends.finish(claimed, "accepted")

    assert other["id"] in got
    ours = [m for m in got if m != other["id"]]
    assert ours == [t["id"] for t in texts[:10]], "a burst of ten, then it is repaid"
    waiting = await sends.rows("select wait_reason from app.outbox where state = 'waiting' order by place")
    assert waiting == [("pair",), ("behind",)]


async def test_doubt_holds_the_next_for_a_while_and_a_scheduled_one_holds_nobody(sends: Sends) -> None:
    conversation = await sends.customer()
    later = await sends.send(
        "later", conversation_id=conversation, send_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat()
    )
    first = await sends.send("first", conversation_id=conversation)
    second = await sends.send("second", conversation_id=conversation)
    assert later["send_at"]

    claimed = (await sends.claim())["messages"]
    assert [m["message_id"] for m in claimed] == [first["id"]]
    await sends.finish(claimed, "unknown", error={})
    assert (await sends.claim())["messages"] == []

    await sends.rows(
        "update app.outbox set doubt_since = now() - interval '31 seconds' where doubt_since is not null returning 1"
    )
    await sends.rows("update app.outbox set next_attempt_at = now() where wait_reason = 'behind' returning 1")
    await sends.tend()
    assert [m["message_id"] for m in (await sends.claim())["messages"]] == [second["id"]]


async def test_retries_wait_and_failures_are_told(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    claimed = (await sends.claim())["messages"]
    error = {"code": 131016, "reason": "unavailable", "title": "Service unavailable", "sentence": "It goes later."}
    await sends.finish(claimed, "retry", retry_in_ms=60_000, error=error)

    assert (await sends.message(sent["id"]))["sending"]["state"] == "retrying"
    found = await sends.claim()
    assert found["messages"] == []
    assert 50_000 < found["next_ms"] <= 60_000

    await sends.rows("update app.outbox set next_attempt_at = now() where state = 'waiting' returning 1")
    assert (await sends.tend())["ripened"] == 1
    claimed = (await sends.claim())["messages"]
    await sends.finish(claimed, "failed", error=error | {"code": 131047}, then="pause_channel")

    row = await sends.message(sent["id"])
    assert (row["status"], row["error"]["code"], row["sending"]) == ("failed", 131047, None)
    assert await sends.rows("select payload ->> 'then' from app.outbox where kind = 'aftermath'") == [
        ("pause_channel",)
    ]


async def test_too_old_is_failed_with_a_sentence(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    await sends.rows(
        "update app.outbox set expires_at = now() - interval '1 second' where kind = 'message' returning 1"
    )

    assert (await sends.claim())["messages"] == []
    assert (await sends.tend())["too_old"] == 1
    assert (await sends.message(sent["id"]))["error"]["reason"] == "too_old"


async def test_the_same_key_is_the_same_message_even_at_once(sends: Sends) -> None:
    conversation = await sends.customer()

    both = await asyncio.gather(*(sends.send("Once", conversation_id=conversation, key="k") for _ in range(4)))

    assert len({m["id"] for m in both}) == 1
    with pytest.raises(Conflict) as refused:
        await sends.send("Other", conversation_id=conversation, key="k")
    assert refused.value.code == "idempotency_key_reused"
    assert len(await sends.rows("select from app.outbox where kind = 'message'")) == 1


async def test_cancel_and_retry(sends: Sends) -> None:
    conversation = await sends.customer()
    sent = await sends.send(conversation_id=conversation)
    sending = Sending(sends.api)

    await sending.cancel(sends.world.workspace_a, sent["id"], as_user=sends.person)
    row = await sends.message(sent["id"])
    assert (row["status"], row["error"]["reason"]) == ("failed", "cancelled")
    assert (await sends.claim())["messages"] == []

    await sending.retry(
        sends.world.workspace_a, sent["id"], new_id=uuid4(), request_id="again", digest="00", as_user=sends.person
    )
    [claimed] = (await sends.claim())["messages"]
    assert (await sends.message(claimed["message_id"]))["retry_of"] == sent["id"]
    with pytest.raises(Conflict):
        await sending.cancel(sends.world.workspace_a, claimed["message_id"], as_user=sends.person)


async def test_somebody_new_is_written_to_by_phone_and_known_by_the_first_status(sends: Sends) -> None:
    template = {"type": "template", "template": {"name": "hello", "language": {"code": "en_US"}}}
    to = {"channel_id": sends.world.channel_a, "to": {"wa_id": "5511987654321"}}
    with pytest.raises(Rejected) as refused:
        await sends.send("Hi", **to)
    assert refused.value.code == "reply_window_closed"
    with pytest.raises(Rejected) as refused:
        await sends.send("Hi", message_type="template", payload=template, **to)
    assert refused.value.code == "template_not_approved"
    await sends.rows(
        "insert into public.whatsapp_templates (workspace_id, id, waba_id, template_name, language, category, status)"
        " select workspace_id, id, waba_id, 'hello', 'en_US', 'utility', 'approved' from public.whatsapp_channels"
        " returning 1"
    )

    sent = await sends.send("Hello", message_type="template", payload=template, **to)
    claimed = (await sends.claim())["messages"]
    assert claimed[0]["wa_id"] == "5511987654321"
    # Meta delivers to the number without its ninth digit.
    await sends.finish(claimed, "accepted", wa_id="551187654321")
    contacts = await sends.rows(
        "select distinct contact_id from public.contact_identities where value in ('5511987654321', '551187654321')"
    )
    assert len(contacts) == 1
    assert (await sends.message(sent["id"]))["status"] == "sent"
    assert await sends.rows(
        "select accepted from public.template_usage where workspace_id = %s", sends.world.workspace_a
    ) == [(1,)]


async def test_a_customer_s_message_asks_for_a_read_mark_once(sends: Sends) -> None:
    conversation = await sends.customer()
    await sends.customer()

    assert await sends.rows("select lane from app.outbox where kind = 'mark_read'") == [(conversation,)]
    claimed = await sends.service.call(
        "claim_chores", {"p_kinds": ["mark_read"], "p_most": 5, "p_lease_token": str(uuid4()), "p_lease_ms": 20_000}
    )
    assert str(conversation) in claimed


async def test_paused_and_held_numbers_send_nothing(sends: Sends) -> None:
    conversation = await sends.customer()
    await sends.send(conversation_id=conversation)
    await sends.service.call(
        "pause_channel",
        {
            "p_workspace_id": str(sends.world.workspace_a),
            "p_channel_id": str(sends.world.channel_a),
            "p_reason": "token",
        },
    )

    assert (await sends.claim())["messages"] == []
    with pytest.raises(Conflict) as refused:
        await sends.send(conversation_id=conversation)
    assert refused.value.code == "channel_paused"
    assert await sends.rows("select event, severity from public.account_events") == [("sending_paused", "critical")]
