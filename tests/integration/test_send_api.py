"""What people send over HTTP: taken, refused with all there is to mend, taken once, taken back, sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import TypeAdapter

from shared.domain.ids import new_id
from shared.queue.bell import OutboxBell
from shared.queue.connection import connect
from shared.store.postgres import PostgresTransport
from shared.whatsapp.outbound import Content, message_type
from shared.whatsapp.outbound.template import Template
from tests.integration.lifecycle_rows import add_member
from tests.integration.send_api import HELLO, SEND, Desk, add_template, as_refusal, components_for, desk_of, taken
from tests.integration.sends import Sends
from tests.unit.whatsapp.contents import EVERY_CONTENT
from tests.world import World

HI = {"type": "text", "body": "Hi"}
CONTENT: TypeAdapter[Content] = TypeAdapter(Content)


@pytest.fixture
async def sends(
    admin: psycopg.AsyncConnection, world: World, api_store: PostgresTransport, service_store: PostgresTransport
) -> Sends:
    made = Sends(admin, world, api_store, service_store)
    await made.prepare()
    return made


async def add_file(sends: Sends, kind: str) -> UUID:
    """Insert an upload of workspace A."""
    media_id = new_id()
    await sends.admin.execute(
        "insert into public.media (workspace_id, id, kind, state, storage_key, uploaded_by)"
        " values (%s, %s, %s, 'stored', %s, %s)",
        (sends.world.workspace_a, media_id, kind, str(media_id), sends.world.owner_a),
    )
    return media_id


@pytest.fixture
async def desk(sends: Sends, empty_redis: str) -> AsyncIterator[Desk]:
    async with desk_of(sends, empty_redis) as made:
        yield made


async def test_everything_that_can_be_said_is_taken_as_it_will_go_out(desk: Desk) -> None:
    conversation = str(await desk.sends.customer())
    known = set()
    for content in EVERY_CONTENT:
        if isinstance(content, Template) and content.name not in known:
            category, components = components_for(
                max(
                    (c for c in EVERY_CONTENT if isinstance(c, Template) and c.name == content.name),
                    key=lambda c: len(c.body),
                )
            )
            await add_template(desk.sends, content.name, components, category=category)
            known.add(content.name)

    wrong = []
    for content in EVERY_CONTENT:
        if isinstance(content, Template) and content.name == "autumn_sale" and not content.body:
            continue  # a second one of that name, without what its template wants
        said = CONTENT.dump_python(content, mode="json")
        answer = await desk.ask(SEND, {"conversation_id": conversation, "content": said})
        if answer.status_code != 202:
            wrong.append((said, answer.json()))
            continue
        message = taken(answer)
        row = await desk.sends.message(str(message.id))
        expected = (message_type(content), content.graph(), "queued", "outbound", str(desk.sends.world.owner_a))
        stored = (row["message_type"], row["payload"], row["status"], row["direction"], row["sent_by"])
        if stored != expected or message.payload != content.graph():
            wrong.append((stored, expected))

    assert wrong == []


async def test_what_is_shown_of_a_message_is_what_the_customer_reads(desk: Desk) -> None:
    conversation = str(await desk.sends.customer())
    template = await add_template(desk.sends, "parcel", [*HELLO, {"type": "FOOTER", "text": "Casa Verde"}])
    shown = {}
    for name, body in {
        "text": {"content": HI},
        "caption": {"content": {"type": "image", "meta_id": "1", "caption": "Green"}},
        "no caption": {"content": {"type": "image", "meta_id": "1"}},
        "place": {"content": {"type": "location", "latitude": 1, "longitude": 2, "name": "Dock"}},
        "asked": {"content": {"type": "location_request_message", "body": "Where are you?"}},
        "filled": {"template": {"id": str(template), "values": {"body": {"1": "Ana", "2": "7"}}}},
        "by name": {
            "content": {
                "type": "template",
                "name": "parcel",
                "language": "en_US",
                "body": [{"text": "Bo"}, {"text": "8"}],
            }
        },
    }.items():
        shown[name] = (await desk.send({"conversation_id": conversation} | body)).content

    assert shown == {
        "text": "Hi",
        "caption": "Green",
        "no caption": None,
        "place": "Dock",
        "asked": "Where are you?",
        "filled": "Hello Ana, your parcel 7 is here.\nCasa Verde",
        "by name": "Hello Bo, your parcel 8 is here.\nCasa Verde",
    }


async def test_a_recipient_may_be_a_conversation_a_contact_or_a_number(desk: Desk) -> None:
    conversation = await desk.sends.customer()
    ((contact,),) = await desk.sends.rows("select id from public.contacts")
    channel = str(desk.sends.world.channel_a)
    template = await add_template(desk.sends, "hello", [{"type": "BODY", "text": "Hello."}])
    hello = {"template": {"id": str(template)}}

    to_conversation = await desk.send({"conversation_id": str(conversation)} | hello)
    to_contact = await desk.send({"channel_id": channel, "contact_id": str(contact)} | hello)
    to_number = await desk.send({"channel_id": channel, "to": {"kind": "phone", "number": "+1 202 555 0001"}} | hello)
    to_stranger = await desk.send({"channel_id": channel, "to": {"kind": "phone", "number": "+44 7700 900123"}} | hello)

    assert {m.conversation_id for m in (to_conversation, to_contact, to_number)} == {conversation}
    assert to_stranger.conversation_id != conversation
    assert (await desk.sends.message(str(to_stranger.id)))["sender_wa_id"] == "447700900123"
    assert to_stranger.template_id == template


async def test_what_whatsapp_would_refuse_is_refused_whole_and_by_field(desk: Desk) -> None:
    conversation = str(await desk.sends.customer())
    buttons = [{"id": str(n), "title": "A title of more than twenty" if n == 2 else f"B{n}"} for n in range(4)]

    answer = await desk.ask(
        SEND,
        {
            "conversation_id": conversation,
            "content": {"type": "button", "body": "", "buttons": buttons, "footer": "x" * 61},
            "reply_to": " ",
        },
    )

    assert as_refusal(answer) == (422, "not_valid")
    assert [(p["field"], p["code"]) for p in answer.json()["problems"]] == [
        ("content.body", "empty"),
        ("content.footer", "too_long"),
        ("content.buttons", "too_many"),
        ("content.buttons[2].title", "too_long"),
        ("reply_to", "empty"),
    ]
    assert answer.json()["hint"] == "The text is empty."
    assert await desk.sends.rows("select 1 from app.send_requests") == []


async def test_values_are_held_to_their_template(desk: Desk) -> None:
    conversation = str(await desk.sends.customer())
    template = str(await add_template(desk.sends, "parcel", HELLO))
    bare = str(await add_template(desk.sends, "bare", []))

    async def problems(**body: Any) -> tuple[str, list[tuple[str, str]]]:
        answer = await desk.ask(SEND, {"conversation_id": conversation} | body)
        members = answer.json()
        return members["code"], [(p["field"], p["code"]) for p in members.get("problems", ())]

    few = {"id": template, "values": {"body": {"1": "Ana", "9": "?"}}}
    assert await problems(template=few) == (
        "not_valid",
        [("template.values.body", "unknown_placeholder"), ("template.values.body", "wrong_count")],
    )
    by_name = {"type": "template", "name": "parcel", "language": "en_US", "header": {"type": "text", "text": "x"}}
    assert await problems(content=by_name) == (
        "not_valid",
        [("content.header", "not_allowed"), ("content.body", "wrong_count")],
    )
    assert await problems(content=by_name | {"name": "other"}) == ("template_not_approved", [])
    assert await problems(template={"id": bare}) == ("template_not_known", [])
    assert await problems(template={"id": str(new_id())}) == ("template_not_found", [])


async def test_each_refusal_has_its_code(desk: Desk) -> None:
    sends, world = desk.sends, desk.sends.world
    here = {"conversation_id": str(await sends.customer())}
    channel = {"channel_id": str(world.channel_a)}
    phone = {"to": {"kind": "phone", "number": "+1 202 555 0001"}}
    paused = str(await add_template(sends, "paused", HELLO, status="paused"))
    file = {"type": "image", "media_id": str(new_id())}
    far = (datetime.now(UTC) + timedelta(days=91)).isoformat()

    refusals = {
        "no key": await desk.refused(here | {"content": HI}, key=None),
        "long key": await desk.refused(here | {"content": HI}, key="k" * 256),
        "nobody": await desk.refused({"content": HI}),
        "two people": await desk.refused(here | channel | phone | {"content": HI}),
        "a number without a channel": await desk.refused(phone | {"content": HI}),
        "a channel alone": await desk.refused(channel | {"content": HI}),
        "nothing": await desk.refused(here),
        "two things": await desk.refused(here | {"content": HI, "template": {"id": paused}}),
        "no number": await desk.refused(channel | {"to": {"kind": "phone", "number": "12"}, "content": HI}),
        "no such type": await desk.refused(here | {"content": {"type": "telepathy"}}),
        "unknown key": await desk.refused(here | {"content": HI | {"bold": True}}),
        "no such conversation": await desk.refused({"conversation_id": str(new_id()), "content": HI}),
        "no such contact": await desk.refused(channel | {"contact_id": str(new_id()), "content": HI}),
        "no such channel": await desk.refused({"channel_id": str(world.channel_b)} | phone | {"content": HI}),
        "no such answer": await desk.refused(here | {"content": HI, "reply_to": str(new_id())}),
        "no such wamid": await desk.refused(here | {"content": HI, "reply_to": "wamid.none"}),
        "no such file": await desk.refused(here | {"content": file}),
        "not approved": await desk.refused(
            here | {"template": {"id": paused, "values": {"body": {"1": "Ana", "2": "7"}}}}
        ),
        "too far": await desk.refused(here | {"content": HI, "send_at": far}),
        "not seen": await desk.refused(here | {"content": HI, "seen_seq": 0}),
    }

    assert refusals == {
        "no key": (422, "idempotency_key_missing"),
        "long key": (422, "idempotency_key_missing"),
        **dict.fromkeys(
            (
                "nobody",
                "two people",
                "a number without a channel",
                "a channel alone",
                "nothing",
                "two things",
                "no number",
            ),
            (422, "not_valid"),
        ),
        **dict.fromkeys(("no such type", "unknown key"), (422, "not_valid")),
        "no such conversation": (404, "conversation_not_found"),
        "no such contact": (404, "contact_not_found"),
        "no such channel": (404, "channel_not_found"),
        "no such answer": (404, "reply_target_not_found"),
        "no such wamid": (404, "reply_target_not_found"),
        "no such file": (422, "media_not_ready"),
        "not approved": (422, "template_not_approved"),
        "too far": (422, "send_at_not_valid"),
        "not seen": (409, "new_message"),
    }
    assert await sends.rows("select 1 from app.outbox where kind = 'message'") == []


async def test_a_malformed_body_says_where(desk: Desk) -> None:
    answer = await desk.ask(
        SEND, {"conversation_id": "?", "content": {"type": "button", "body": "x", "buttons": [{"id": "1"}]}}
    )

    assert as_refusal(answer) == (422, "not_valid")
    assert [(p["field"], p["code"]) for p in answer.json()["problems"]] == [
        ("conversation_id", "uuid_parsing"),
        ("content.button.buttons[0].title", "missing"),
    ]


async def test_a_key_stands_for_one_message(desk: Desk) -> None:
    here = {"conversation_id": str(await desk.sends.customer())}

    first = await desk.send(here | {"content": HI}, key="once")
    again = await desk.send({"content": HI} | here, key="once")
    other = await desk.refused(here | {"content": HI | {"body": "Ho"}}, key="once")
    both = await asyncio.gather(*(desk.send(here | {"content": HI}, key="twice") for _ in range(6)))

    assert (again, other) == (first, (409, "idempotency_key_reused"))
    assert len({message.id for message in both}) == 1
    assert await desk.sends.rows("select count(*) from app.outbox where kind = 'message'") == [(2,)]
    # Another workspace's keys are its own.
    world = desk.sends.world
    assert (
        await desk.refused(here | {"content": HI}, key="once", user=world.owner_b, workspace_id=world.workspace_b)
    ) == (404, "conversation_not_found")


async def test_a_closed_window_says_since_when_and_what_may_be_sent(desk: Desk) -> None:
    sends, world = desk.sends, desk.sends.world
    conversation = await sends.customer()
    for name, category, status in (
        ("hello", "utility", "approved"),
        ("sale", "marketing", "approved"),
        ("code", "authentication", "approved"),
        ("draft", "utility", "pending"),
    ):
        await add_template(sends, name, HELLO, category=category, status=status)
    before = await desk.send({"conversation_id": str(conversation), "content": HI})
    taken(await desk.ask(f"/api/whatsapp/messages/{before.id}/cancel"), 200)
    await sends.admin.execute(
        "update public.whatsapp_conversations set last_inbound_at = now() - interval '31 hours 5 minutes',"
        " window_expires_at = now() - interval '7 hours 5 minutes'"
    )

    answer = await desk.ask(SEND, {"conversation_id": str(conversation), "content": HI})
    await sends.admin.execute("update public.contacts set opted_out_at = now()")
    opted_out = await desk.ask(SEND, {"conversation_id": str(conversation), "content": HI})
    to = {"channel_id": str(world.channel_a), "to": {"kind": "phone", "number": "+447700900123"}}
    stranger = await desk.ask(SEND, to | {"content": HI})
    known = await desk.ask(SEND, to | {"to": {"kind": "bsuid", "user_id": "US.1"}, "content": HI})
    retried = await desk.ask(f"/api/whatsapp/messages/{before.id}/retry")

    assert as_refusal(answer) == as_refusal(stranger) == (422, "reply_window_closed")
    told = answer.json()
    assert told["hint"] == "The customer last wrote 31 hours ago; send a template instead."
    assert datetime.fromisoformat(told["last_inbound_at"]) < datetime.now(UTC) - timedelta(hours=31)
    assert [template["template_name"] for template in told["templates"]] == ["hello", "sale"]
    assert [template["template_name"] for template in opted_out.json()["templates"]] == ["hello"]
    assert stranger.json()["hint"] == "The customer has not written yet; send a template to begin."
    assert stranger.json()["last_inbound_at"] is None
    assert {template["template_name"] for template in stranger.json()["templates"]} == {"hello", "sale"}
    assert known.json()["hint"] == retried.json()["hint"] == told["hint"]
    assert retried.json()["templates"] == opted_out.json()["templates"]
    assert await sends.rows("select count(*) from public.contacts") == [(1,)]  # a refusal makes nobody


async def test_a_message_may_be_scheduled_while_the_window_is_open_then(desk: Desk) -> None:
    here = {"conversation_id": str(await desk.sends.customer())}
    soon, late = (datetime.now(UTC) + timedelta(hours=hours) for hours in (3, 25))

    scheduled = await desk.send(here | {"content": HI, "send_at": soon.isoformat()})
    too_late = await desk.ask(SEND, here | {"content": HI, "send_at": late.isoformat()})

    assert scheduled.send_at == soon
    assert (await desk.sends.outbox(str(scheduled.id)))["wait_reason"] == "scheduled"
    assert as_refusal(too_late) == (422, "reply_window_closed")
    assert "closed by then" in too_late.json()["hint"]


async def test_an_answer_quotes_a_message_by_our_id_or_metas(desk: Desk) -> None:
    here = {"conversation_id": str(await desk.sends.customer())}
    ((message_id, wamid),) = await desk.sends.rows("select id, wamid from public.whatsapp_messages")

    answers = [await desk.send(here | {"content": HI, "reply_to": to}) for to in (str(message_id), wamid)]

    assert [answer.reply_to_wamid for answer in answers] == [wamid, wamid]


async def test_a_file_of_ours_goes_as_what_it_was_uploaded(desk: Desk) -> None:
    sends = desk.sends
    here = {"conversation_id": str(await sends.customer())}
    picture, sound = [await add_file(sends, kind) for kind in ("image", "audio")]
    missing = str(new_id())
    template = await add_template(
        sends, "look", [{"type": "HEADER", "format": "VIDEO"}, {"type": "BODY", "text": "Look."}]
    )
    header = {"type": "video", "media_id": str(picture)}

    message = await desk.send(here | {"content": {"type": "image", "media_id": str(picture), "caption": "Green"}})
    wrong = {
        "video": await desk.ask(SEND, here | {"content": {"type": "video", "media_id": str(picture)}}),
        "voice": await desk.ask(SEND, here | {"content": {"type": "audio", "media_id": str(sound), "is_voice": True}}),
        "header": await desk.ask(SEND, here | {"template": {"id": str(template), "values": {"header": header}}}),
    }

    assert message.payload == {"type": "image", "image": {"id": f"parley:{picture}", "caption": "Green"}}
    assert [media.id for media in message.media] == [picture]
    outbox = await sends.outbox(str(message.id))
    assert (outbox["wait_reason"], outbox["payload"]) == ("media", {"media_ids": [str(picture)]})
    assert await sends.rows("select payload ->> 'media_id' from app.outbox where kind = 'media_upload'") == [
        (str(picture),)
    ]
    assert {name: (as_refusal(answer), answer.json()["problems"][0]["code"]) for name, answer in wrong.items()} == (
        dict.fromkeys(wrong, ((422, "not_valid"), "wrong_kind"))
    )
    assert wrong["voice"].json()["hint"] == "The file was uploaded as audio; upload it as voice note to send it so."
    assert await desk.refused(here | {"content": {"type": "sticker", "media_id": missing}}) == (422, "media_not_ready")


async def test_a_group_takes_texts_and_files_and_nothing_else(desk: Desk) -> None:
    sends = desk.sends
    group = await sends.customer(1)
    await sends.admin.execute("update public.whatsapp_conversations set contact_id = null, group_id = 'G1'")
    contact = await sends.customer(2)
    ask = {"type": "location_request_message", "body": "Where are you?"}

    text = await desk.send({"conversation_id": str(group), "content": HI})
    refused = await desk.ask(SEND, {"conversation_id": str(group), "content": ask})
    taken_by_one = await desk.send({"conversation_id": str(contact), "content": ask})

    assert (text.conversation_id, taken_by_one.conversation_id) == (group, contact)
    assert as_refusal(refused) == (422, "not_valid")
    assert [(p["field"], p["code"]) for p in refused.json()["problems"]] == [("content", "not_in_groups")]
    [claimed] = [m for m in (await sends.claim())["messages"] if m["message_id"] == str(text.id)]
    assert claimed["group_id"] == "G1"


async def test_a_message_is_taken_back_and_sent_again(desk: Desk) -> None:
    here = {"conversation_id": str(await desk.sends.customer())}
    message = await desk.send(here | {"content": HI})
    path = f"/api/whatsapp/messages/{message.id}"

    assert await desk.refused(None, f"{path}/retry") == (409, "message_not_failed")
    cancelled = [taken(await desk.ask(f"{path}/cancel", key=None), 200) for _ in range(2)]
    assert [(c.status, c.error.reason if c.error else None) for c in cancelled] == [("failed", "cancelled")] * 2
    assert (await desk.sends.claim())["messages"] == []

    assert await desk.refused(None, f"{path}/retry", key=None) == (422, "idempotency_key_missing")
    again = [taken(await desk.ask(f"{path}/retry", key="again")) for _ in range(2)]
    assert again[0].id == again[1].id != message.id
    assert (again[0].retry_of, again[0].content, again[0].status) == (message.id, "Hi", "queued")
    [claimed] = (await desk.sends.claim())["messages"]
    assert claimed["message_id"] == str(again[0].id)
    assert await desk.refused(None, f"/api/whatsapp/messages/{again[0].id}/cancel") == (409, "message_not_queued")


@pytest.mark.parametrize(("send_again", "status"), [(True, "queued"), (False, "failed")])
async def test_a_person_decides_about_a_message_in_doubt(desk: Desk, send_again: bool, status: str) -> None:
    message = await desk.send({"conversation_id": str(await desk.sends.customer()), "content": HI})
    path = f"/api/whatsapp/messages/{message.id}/resolve"
    assert await desk.refused({"send_again": True}, path) == (409, "message_not_in_doubt")
    await desk.sends.finish((await desk.sends.claim())["messages"], "unknown", error={"reason": "reply_lost"})

    resolved = taken(await desk.ask(path, {"send_again": send_again}), 200)

    assert resolved.status == status
    assert len((await desk.sends.claim())["messages"]) == send_again


async def test_typing_is_shown(desk: Desk) -> None:
    conversation = str(await desk.sends.customer())

    answer = await desk.ask("/api/whatsapp/typing", {"conversation_id": conversation})

    assert (answer.status_code, answer.json()) == (202, {})
    assert await desk.sends.rows("select lane::text from app.outbox where kind = 'typing'") == [(conversation,)]


async def test_who_may_not_send_is_told_so(desk: Desk, admin: psycopg.AsyncConnection) -> None:
    sends, world = desk.sends, desk.sends.world
    conversation = str(await sends.customer())
    agent, viewer = [await add_member(admin, world.workspace_a, role) for role in ("agent", "viewer")]
    message = (await desk.send({"conversation_id": conversation, "content": HI}, user=agent)).id
    calls = {
        SEND: {"conversation_id": conversation, "content": HI},
        f"/api/whatsapp/messages/{message}/cancel": None,
        f"/api/whatsapp/messages/{message}/retry": None,
        f"/api/whatsapp/messages/{message}/resolve": {"send_again": True},
        "/api/whatsapp/typing": {"conversation_id": conversation},
    }

    for path, body in calls.items():
        assert (await desk.refused(body, path, signed_in=False)) == (401, "token_missing")
        assert (await desk.refused(body, path, user=viewer)) == (403, "role_may_not_write")
        for stranger in (world.stranger, world.owner_b):
            assert (await desk.refused(body, path, user=stranger))[0] == 404
        # In a workspace of their own, what is not in it does not exist.
        assert (await desk.refused(body, path, user=world.owner_b, workspace_id=world.workspace_b))[0] == 404


async def test_nothing_goes_to_the_blocked_nor_through_a_number_that_cannot(desk: Desk) -> None:
    sends = desk.sends
    here = {"conversation_id": str(await sends.customer()), "content": HI}
    refusals = []
    for change, back in (
        ("update public.whatsapp_conversations set status = 'blocked'", "set status = 'open'"),
        ("update public.whatsapp_conversations set status = 'archived'", "set status = 'open'"),
        (
            "update public.whatsapp_channels set state = 'paused', paused_reason = 'token_expired'",
            "set state = 'connected'",
        ),
        ("delete from app.channel_tokens", None),
    ):
        await sends.admin.execute(change)
        refusals.append(await desk.refused(here))
        if back:
            await sends.admin.execute(f"{change.split(' set ')[0]} {back}")

    assert refusals == [
        (409, "contact_blocked"),
        (409, "conversation_not_open"),
        (409, "channel_paused"),
        (409, "channel_not_connected"),
    ]
    assert await sends.rows("select 1 from app.outbox where kind = 'message'") == []


async def test_dispatchers_hear_of_it_at_once(desk: Desk, empty_redis: str) -> None:
    here = {"conversation_id": str(await desk.sends.customer()), "content": HI}
    async with connect(empty_redis, timeout_s=2, max_connections=2) as redis:
        heard = OutboxBell(redis).listen()
        await anext(heard)  # it listens from here on
        ring = asyncio.ensure_future(anext(heard))
        await desk.send(here)
        await asyncio.wait_for(ring, 2)


async def test_a_message_is_taken_though_nobody_can_be_woken(sends: Sends) -> None:
    async with desk_of(sends, "redis://127.0.0.1:9/0") as desk:
        taken_anyway = await desk.send({"conversation_id": str(await sends.customer()), "content": HI})

    assert taken_anyway.status == "queued"
