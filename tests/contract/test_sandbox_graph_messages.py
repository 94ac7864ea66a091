"""Messages to the sandbox's Meta: what it refuses, at which rates, what it tells afterwards, how it breaks."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from shared.whatsapp.parse import parse_webhook

from .conftest import until
from .meta_graph import (
    ACCOUNT,
    KESTREL,
    MAREN,
    NUMBER,
    PIXEL,
    SLOW,
    STORY,
    TRIAL,
    VERSION,
    Meta,
    meta,
    running,
    template,
)

__all__ = ["meta", "running"]  # fixtures

# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"messaging_product": "banana"}, 100),
        ({"type": "carrier_pigeon"}, 131051),
        ({"to": None}, 131008),
        ({"to": "12"}, 131009),
        ({"text": {"body": ""}}, 131009),
        ({"text": {"body": "w" * 4097}}, 131009),
        ({"text": {"body": "hi", "foo": 1}}, 100),
        ({"foo": 1}, 100),
        ({"to": "12025550143"}, 131021),
        ({"biz_opaque_callback_data": "x" * 513}, 131009),
        ({"type": "image", "text": None, "image": {"id": "1"}}, 100),
        ({"type": "image", "text": None, "image": {"id": "7301884420196703"}}, 131053),
        ({"type": "location", "text": None, "location": {"latitude": 91, "longitude": 0}}, 131009),
        ({"type": "contacts", "text": None, "contacts": [{"name": {"formatted_name": "A"}}]}, 131009),
        (
            {
                "type": "reaction",
                "text": None,
                "reaction": {"message_id": "w", "emoji": "x"},
                "context": {"message_id": "w"},
            },
            131009,
        ),
        (template("nope"), 132001),
        (template("resting"), 132015),
        (template("gone"), 132016),
        (template("trip_reminder_v3"), 132000),
        (template("invoice_ready"), 132012),
    ],
)
def test_bad_message_is_refused_with_metas_code(meta: Meta, changes: dict[str, Any], code: int) -> None:
    meta.behave(window="off")

    answer = meta.say(**changes)

    assert answer.json()["error"]["code"] == code
    assert meta.accepted() == []


@pytest.mark.parametrize(
    "interactive",
    [
        {
            "type": "button",
            "body": {"text": "?"},
            "action": {"buttons": [{"type": "reply", "reply": {"id": str(at), "title": str(at)}} for at in range(4)]},
        },
        {
            "type": "button",
            "body": {"text": "?"},
            "action": {"buttons": [{"type": "reply", "reply": {"id": "a", "title": "t" * 21}}]},
        },
        {
            "type": "list",
            "body": {"text": "?"},
            "action": {"button": "See", "sections": [{"rows": [{"id": str(at), "title": "t"} for at in range(11)]}]},
        },
        {
            "type": "cta_url",
            "body": {"text": "?"},
            "action": {"name": "cta_url", "parameters": {"display_text": "Go", "url": "ftp://x"}},
        },
        {"type": "mystery", "body": {"text": "?"}, "action": {}},
    ],
)
def test_interactive_message_beyond_the_limits_is_refused(meta: Meta, interactive: dict[str, Any]) -> None:
    meta.behave(window="off")

    assert meta.say(type="interactive", text=None, interactive=interactive).json()["error"]["code"] == 131009


def test_outside_the_window_only_templates_go(meta: Meta) -> None:
    meta.writes(ago=timedelta(hours=25))
    template = {"name": "plain_note", "language": {"code": "en_US"}}

    late, with_template = meta.say(), meta.say(type="template", text=None, template=template)
    meta.writes(ago=timedelta(hours=23))
    in_time = meta.say()

    assert (late.status_code, late.json()["error"]["code"]) == (400, 131047)
    assert (with_template.status_code, in_time.status_code) == (200, 200)


def test_typed_message_opens_the_window(meta: Meta) -> None:
    asked = {"from": {"wa_id": MAREN, "name": "Maren"}, "phone_number_id": NUMBER, "text": "hello?"}

    before = meta.say()
    meta.http.post("/sandbox/messages", json=asked).raise_for_status()
    after = meta.say()

    assert (before.json()["error"]["code"], after.status_code) == (131047, 200)


def test_late_refusal_is_accepted_and_fails_by_webhook(meta: Meta) -> None:
    meta.behave(late_refusals=True, sent_ms=0, jitter=0)

    answer = meta.say(biz_opaque_callback_data="job-1")

    wamid = answer.json()["messages"][0]["id"]
    found = until(lambda: meta.statuses(wamid))
    assert [one["status"] for one in found] == ["failed"]
    assert found[0]["errors"][0]["code"] == 131047
    assert found[0]["biz_opaque_callback_data"] == "job-1"


def test_recipient_rules_of_the_story(meta: Meta) -> None:
    marketing = {"name": "plain_held", "language": {"code": "en_US"}}
    otp = {"name": "verify_code", "language": {"code": "en_US"}, "components": []}
    meta.behave(window="off")

    stopped = meta.say("12025550172", type="template", text=None, template=marketing)
    trial = meta.say("12025550199", number=TRIAL)
    code_to_user_id = meta.say(KESTREL, type="template", text=None, template=otp)
    unreachable = meta.say("12025550171")

    assert [one.json()["error"]["code"] for one in (stopped, trial, code_to_user_id)] == [131050, 131030, 131062]
    wamid = unreachable.json()["messages"][0]["id"]
    assert until(lambda: meta.statuses(wamid))[0]["errors"][0]["code"] == 131026


def test_only_a_registered_number_sends(meta: Meta) -> None:
    meta.behave(window="off")
    meta.ask("POST", f"{NUMBER}/deregister").raise_for_status()

    while_off = meta.say()
    short = meta.ask("POST", f"{NUMBER}/register", json={"messaging_product": "whatsapp", "pin": "123"})
    meta.ask("POST", f"{NUMBER}/register", json={"messaging_product": "whatsapp", "pin": "123456"}).raise_for_status()

    assert (while_off.json()["error"]["code"], short.json()["error"]["code"]) == (133010, 100)
    assert meta.say().status_code == 200


# --- rates ----------------------------------------------------------------------------------------------------------


def test_number_sends_its_tier_and_no_more(meta: Meta) -> None:
    meta.behave(window="off")

    codes = Counter(
        answer.json().get("error", {}).get("code")
        for answer in [meta.say(f"447700900{at:03}", number=SLOW) for at in range(60)]
    )

    # A second's worth at once, then 20 a second: how long the 60 took decides how many more.
    assert 20 <= codes[None] < 50
    assert set(codes) == {None, 130429}


def test_messages_in_count_against_the_rate(meta: Meta) -> None:
    meta.behave(window="off")
    message = {"from": "447700900001", "id": "w", "timestamp": "1", "type": "text", "text": {"body": "x"}}
    value = {"metadata": {"phone_number_id": SLOW}, "messages": [message] * 40}
    body = {"object": "whatsapp_business_account", "entry": [{"changes": [{"field": "messages", "value": value}]}]}

    meta.http.post("/sandbox/webhooks", json={"body": body}).raise_for_status()

    assert meta.say("447700900002", number=SLOW).json()["error"]["code"] == 130429
    assert meta.say("447700900002", number=NUMBER).status_code == 200


def test_pair_gets_a_burst_of_45_and_then_has_to_wait(meta: Meta) -> None:
    meta.behave(window="off")

    codes = [meta.say().json().get("error", {}).get("code") for _ in range(46)]

    assert codes == [None] * 45 + [131056]
    assert meta.say("12025550173").status_code == 200


# --- statuses -------------------------------------------------------------------------------------------------------


def test_statuses_come_signed_once_each_and_carry_our_data(meta: Meta) -> None:
    meta.writes()

    wamid = meta.say(biz_opaque_callback_data="job-7").json()["messages"][0]["id"]

    until(lambda: len(meta.statuses(wamid)) == 3)
    found = sorted(meta.statuses(wamid), key=lambda one: ["sent", "delivered", "read"].index(one["status"]))
    assert [one["status"] for one in found] == ["sent", "delivered", "read"]
    assert {one["biz_opaque_callback_data"] for one in found} == {"job-7"}
    assert {(one["recipient_id"], one["recipient_user_id"]) for one in found} == {(MAREN, "US.4471902683351774")}
    price = {"billable": False, "pricing_model": "PMP", "type": "free_customer_service", "category": "service"}
    assert [one.get("pricing") for one in found] == [price, price, None]
    assert all(got.signed for got in meta.webhook.received)
    assert [one["wamid"] for one in meta.accepted(biz_opaque_callback_data="job-7")] == [wamid]
    assert meta.accepted()[0]["states"].keys() == {"sent", "delivered", "read"}


def test_identity_in_statuses_follows_how_the_message_was_addressed(meta: Meta) -> None:
    meta.behave(window="off")

    by_user_id = meta.say("US.5550170").json()
    by_number = meta.say("+1 202 555 0170").json()

    assert by_user_id["contacts"] == [{"input": "US.5550170", "user_id": "US.5550170"}]
    assert by_number["contacts"] == [{"input": "+1 202 555 0170", "wa_id": "12025550170"}]
    hidden = until(lambda: meta.statuses(by_user_id["messages"][0]["id"]))[0]
    shown = until(lambda: meta.statuses(by_number["messages"][0]["id"]))[0]
    assert "recipient_id" not in hidden
    assert (hidden["recipient_user_id"], shown["recipient_id"]) == ("US.5550170", "12025550170")


def test_username_stands_on_delivered_and_read_only(meta: Meta) -> None:
    meta.writes()

    wamid = meta.say().json()["messages"][0]["id"]

    until(lambda: len(meta.statuses(wamid)) == 3)
    profiles = {value["statuses"][0]["status"]: value["contacts"][0]["profile"] for value in meta.told()}
    assert ("username" in profiles["sent"], profiles["read"]["username"]) == (False, "@maren")


@pytest.mark.parametrize(
    ("to", "content", "expected"),
    [
        (MAREN, {"type": "reaction", "reaction": {"message_id": "wamid.X", "emoji": "👍"}}, ["sent"]),
        (
            MAREN,
            {"type": "audio", "audio": {"id": "7301884420196701", "voice": True}},
            ["sent", "delivered", "read", "played"],
        ),
        ("12025550173", {"type": "text", "text": {"body": "hi"}}, ["sent", "delivered"]),
    ],
    ids=["reaction", "voice", "who does not show reading"],
)
def test_how_far_a_message_gets(meta: Meta, to: str, content: dict[str, Any], expected: list[str]) -> None:
    meta.behave(window="off")

    wamid = meta.say(to, **({"text": None} | content)).json()["messages"][0]["id"]

    until(lambda: len(meta.statuses(wamid)) >= len(expected))
    until(lambda: meta.http.get("/sandbox/accepted").json()["statuses_waiting"] == 0)
    assert {one["status"] for one in meta.statuses(wamid)} == set(expected)


def test_many_statuses_travel_in_one_body(meta: Meta) -> None:
    meta.behave(window="off", batch_ms=100, batch_size=50)

    wamids = [meta.say(f"1202555{at:04}").json()["messages"][0]["id"] for at in range(40)]

    until(lambda: all(len(meta.statuses(wamid)) == 3 for wamid in wamids))
    sizes = [len(got.body["entry"][0]["changes"]) for got in meta.webhook.received]
    assert max(sizes) > 1
    assert max(sizes) <= 50
    assert sum(sizes) == 120


def test_duplicates_and_shuffling_change_no_status(meta: Meta) -> None:
    meta.behave(window="off")
    meta.break_(webhooks={"duplicate": 2, "shuffle_ms": 20})

    wamid = meta.say().json()["messages"][0]["id"]

    until(lambda: len(meta.statuses(wamid)) == 6)
    assert Counter(one["status"] for one in meta.statuses(wamid)) == {"sent": 2, "delivered": 2, "read": 2}


def test_webhook_that_refuses_gets_its_statuses_again(meta: Meta) -> None:
    meta.writes()
    meta.webhook.answers[:] = [503, 503]

    wamid = meta.say().json()["messages"][0]["id"]

    until(lambda: meta.http.get("/sandbox/deliveries").json()["pending"] == 0 and meta.statuses(wamid))
    assert {one["status"] for one in meta.statuses(wamid)} == {"sent", "delivered", "read"}


def test_unsubscribed_account_gets_no_webhooks(meta: Meta) -> None:
    meta.behave(window="off")
    meta.ask("DELETE", f"{ACCOUNT}/subscribed_apps").raise_for_status()

    meta.say()
    typed = meta.http.post("/sandbox/messages", json={"from": {"wa_id": MAREN}, "phone_number_id": NUMBER, "text": "?"})

    until(lambda: meta.http.get("/sandbox/accepted").json()["statuses_waiting"] == 0)
    assert meta.webhook.received == []
    assert typed.status_code == 409
    assert meta.ask("GET", f"{ACCOUNT}/subscribed_apps").json() == {"data": []}


def test_our_parser_understands_everything_the_sandbox_says(meta: Meta) -> None:
    meta.behave(window="off", late_refusals=True)
    picture = meta.http.post(
        "/sandbox/media", params={"phone_number_id": NUMBER}, content=PIXEL, headers={"Content-Type": "image/png"}
    ).json()
    said: list[dict[str, Any]] = [
        {"text": "hi"},
        {"media": {"id": picture["id"], "caption": "look"}},
        {"location": {"latitude": 1.5, "longitude": 2.5, "name": "Dock"}},
        {"contacts": [{"name": {"formatted_name": "Ana"}, "phones": [{"phone": "+1"}]}]},
        {"interactive": {"type": "button_reply", "button_reply": {"id": "a", "title": "A"}}, "reply_to": "wamid.A"},
        {"button": {"payload": "STOP", "text": "Stop"}, "reply_to": "wamid.A"},
        {"reaction": {"message_id": "wamid.A", "emoji": "👍"}},
    ]
    for one in said:
        asked = {"from": STORY["customers"][0], "phone_number_id": NUMBER} | one
        meta.http.post("/sandbox/messages", json=asked).raise_for_status()
    for to in (MAREN, KESTREL, "US.5550170", "12025550171"):
        meta.say(to, biz_opaque_callback_data="x").raise_for_status()
    for template_name in ("approve_me", "reject_me", "pause_me", "disable_me", "recategor_me"):
        meta.create(template_name).raise_for_status()
    until(lambda: len(meta.told("message_template_status_update")) >= 7)
    until(lambda: meta.http.get("/sandbox/accepted").json()["statuses_waiting"] == 0)

    parsed = [parse_webhook(got.raw, now=datetime.now(UTC)) for got in list(meta.webhook.received)]

    assert [one.quarantined for one in parsed if one.quarantined] == []
    assert sum(one.items for one in parsed) == sum(len(one.events) for one in parsed)
    kinds = Counter(type(event).__name__ for one in parsed for event in one.events)
    assert not [kind for kind in kinds if kind in ("Kept", "Unsupported")], kinds


# --- faults ---------------------------------------------------------------------------------------------------------


def test_reply_lost_means_accepted_without_an_answer(meta: Meta) -> None:
    meta.writes()
    meta.break_({"mode": "reply_lost", "times": 1, "for": {"recipient": MAREN}})

    with pytest.raises(httpx.RemoteProtocolError):
        meta.say(biz_opaque_callback_data="job-9")

    [accepted] = meta.accepted(biz_opaque_callback_data="job-9")
    until(lambda: len(meta.statuses(accepted["wamid"])) == 3)
    assert accepted["reply_lost"]
    assert meta.say().status_code == 200


def test_reset_means_nothing_happened(meta: Meta) -> None:
    meta.writes()
    meta.break_({"mode": "reset", "times": 1})

    with pytest.raises(httpx.RemoteProtocolError):
        meta.say()

    assert meta.accepted() == []


def test_hanging_call_never_answers(meta: Meta) -> None:
    meta.writes()
    meta.break_({"mode": "hang"})

    with pytest.raises(httpx.ReadTimeout):
        meta.ask("POST", f"{NUMBER}/messages", json={}, timeout=0.3)

    assert meta.accepted() == []


def test_fault_hits_only_what_it_is_for_and_only_so_often(meta: Meta) -> None:
    meta.behave(window="off")
    meta.break_({"code": 131016, "skip": 1, "times": 2, "for": {"path": "/messages", "recipient": MAREN}})

    codes = [meta.say().json().get("error", {}).get("code") for _ in range(4)]

    assert codes == [None, 131016, 131016, None]
    meta.break_({"code": 131016, "for": {"path": "/messages", "recipient": MAREN}})
    assert meta.say("12025550173").status_code == 200
    assert meta.ask("GET", NUMBER).status_code == 200


def test_injected_code_can_come_by_webhook(meta: Meta) -> None:
    meta.behave(window="off")
    meta.break_({"code": 131049, "by": "webhook", "times": 1})

    wamid = meta.say().json()["messages"][0]["id"]

    found = until(lambda: meta.statuses(wamid))
    assert [(one["status"], one["errors"][0]["code"]) for one in found] == [("failed", 131049)]
    assert meta.accepted()[0]["failed_with"] == 131049


# --- read marks, blocks ---------------------------------------------------------------------------------------------


def test_read_mark_is_taken_and_sends_nothing(meta: Meta) -> None:
    body = {"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.A"}

    plain = meta.ask("POST", f"{NUMBER}/messages", json=body)
    typing = meta.ask("POST", f"{NUMBER}/messages", json=body | {"typing_indicator": {"type": "text"}})

    assert (plain.json(), typing.json()) == ({"success": True}, {"success": True})
    marks = meta.http.get("/sandbox/graph/read_marks").json()["read_marks"]
    assert [(one["message_id"], one["typing"]) for one in marks] == [("wamid.A", False), ("wamid.A", True)]
    assert meta.accepted() == []


def test_blocked_customer_neither_gets_nor_sends(meta: Meta) -> None:
    meta.writes()
    asked = {"messaging_product": "whatsapp", "block_users": [{"user": MAREN}]}

    blocked = meta.ask("POST", f"{NUMBER}/block_users", json=asked)
    listed = meta.ask("GET", f"{NUMBER}/block_users").json()
    refused = meta.say()
    typed = meta.http.post("/sandbox/messages", json={"from": {"wa_id": MAREN}, "phone_number_id": NUMBER, "text": "?"})
    unblocked = meta.ask("DELETE", f"{NUMBER}/block_users", json=asked)

    assert blocked.json()["block_users"]["added_users"] == [{"input": MAREN, "wa_id": MAREN}]
    assert listed["data"][0]["block_users"][0]["wa_id"] == MAREN
    assert (refused.json()["error"]["code"], typed.status_code) == (130403, 409)
    assert unblocked.json()["block_users"] == {"removed_users": [{"input": MAREN, "wa_id": MAREN}]}
    assert meta.ask("GET", f"{NUMBER}/block_users").json() == {"data": []}
    assert meta.say().status_code == 200


# --- at volume ------------------------------------------------------------------------------------------------------


async def test_no_message_and_no_status_is_lost_in_a_crowd(meta: Meta) -> None:
    meta.behave(window="off", throughput=False, batch_ms=20, batch_size=100)
    headers = {"Authorization": "Bearer good"}

    async with httpx.AsyncClient(base_url=meta.url, trust_env=False, headers=headers) as http:

        async def say(at: int) -> int:
            body = {
                "messaging_product": "whatsapp",
                "to": f"1303555{at:04}",
                "type": "text",
                "text": {"body": "hi"},
                "biz_opaque_callback_data": f"crowd-{at}",
            }
            return (await http.post(f"{VERSION}/{NUMBER}/messages", json=body)).status_code

        answers = []
        for start in range(0, 400, 8):
            answers += await asyncio.gather(*(say(at) for at in range(start, start + 8)))

    assert set(answers) == {200}
    assert len({one["biz_opaque_callback_data"] for one in meta.accepted()}) == 400
    until(lambda: sum(len(value["statuses"]) for value in meta.told()) == 1200, within_s=20)
    found = Counter((one["id"], one["status"]) for value in meta.told() for one in value["statuses"])
    assert set(found.values()) == {1}


def test_state_shows_both_directions(meta: Meta) -> None:
    meta.writes()
    template = {"name": "trip_reminder_v3", "language": {"code": "en_US"}}
    template["components"] = [
        {"type": "body", "parameters": [{"type": "text", "text": text} for text in ("Ana", "Tue")]}
    ]

    meta.say(type="template", text=None, template=template).raise_for_status()

    [shown] = meta.http.get("/sandbox/state").json()["outbound"]
    assert shown["content"]["body"] == "Hi Ana, your paddle trip starts on Tue. See you there!"


# --- found by changing the sandbox and seeing no test fail -------------------------------------------------------


def test_older_message_does_not_shorten_the_window(meta: Meta) -> None:
    meta.writes()
    meta.writes(ago=timedelta(hours=30))

    assert meta.say().status_code == 200


def test_message_refused_for_its_pair_uses_up_no_rate(meta: Meta) -> None:
    meta.behave(window="off", throughput=False)
    for _ in range(45):
        meta.say("447700900001", number=SLOW).raise_for_status()
    meta.behave(window="off")

    codes = [meta.say("447700900001", number=SLOW).json()["error"]["code"] for _ in range(40)]

    assert set(codes) == {131056}


def test_failed_status_names_no_contact(meta: Meta) -> None:
    meta.behave(window="off")

    meta.say("12025550171").raise_for_status()

    [value] = until(meta.told)
    assert "contacts" not in value
    assert value["statuses"][0]["recipient_id"] == "12025550171"


def test_held_template_says_so_and_goes_later(meta: Meta) -> None:
    meta.behave(window="off", hold_ms=150)

    answer = meta.say(**template("plain_held")).json()["messages"][0]

    assert answer["message_status"] == "held_for_quality_assessment"
    until(lambda: len(meta.statuses(answer["id"])) == 3)
    states = meta.accepted()[0]["states"]
    assert states["sent"] - states["held"] >= 0.1


@pytest.mark.parametrize(
    ("name", "components", "code"),
    [
        ("tents_carousel", [{"type": "body", "parameters": [{"type": "text", "text": "Ana"}]}], 132012),
        (
            "coupon_nov",
            [{"type": "body", "parameters": [{"type": "text", "text": "a\nb"}, {"type": "text", "text": "c"}]}],
            132018,
        ),
        ("verify_code", [{"type": "body", "parameters": [{"type": "text", "text": "1234"}]}], 131008),
        (
            "order_ready_named",
            [
                {
                    "type": "body",
                    "parameters": [
                        {"type": "text", "parameter_name": "who", "text": "A"},
                        {"type": "text", "parameter_name": "order_no", "text": "1"},
                    ],
                }
            ],
            132000,
        ),
        ("refund_done", [{"type": "body", "parameters": [{"type": "text", "text": "w" * 600}] * 2}], 132005),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    meta: Meta, name: str, components: list[dict[str, Any]], code: int
) -> None:
    assert meta.say(**template(name, *components)).json()["error"]["code"] == code


def test_registering_takes_the_right_pin_and_not_too_often(meta: Meta) -> None:
    def register(pin: str) -> Any:
        return meta.ask("POST", f"{NUMBER}/register", json={"messaging_product": "whatsapp", "pin": pin}).json()

    first, wrong = register("123456"), register("654321")
    more = [register("123456") for _ in range(9)]

    assert first == {"success": True}
    assert wrong["error"]["code"] == 133005
    assert more[-1]["error"]["code"] == 133016


def test_account_has_so_many_management_calls_an_hour(meta: Meta) -> None:
    meta.behave(management_calls_per_hour=2, window="off")

    codes = [meta.ask("GET", NUMBER).json().get("error", {}).get("code") for _ in range(3)]

    assert codes == [None, None, 80007]
    assert meta.say().status_code == 200
