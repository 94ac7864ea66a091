"""The sandbox posts webhooks as Meta does: same bytes, same signature, same persistence."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import APP_SECRET, STORY, Sandbox, free_port, start_sandbox, until

pytestmark = pytest.mark.usefixtures("calm")


def test_typed_text_becomes_metas_body(sandbox: Sandbox) -> None:
    wamid = sandbox.type("Olá", timestamp=1795183200)

    got = until(lambda: sandbox.webhook.about(wamid), what="the webhook has it")[0]

    assert got.signed
    assert got.content_type == "application/json"
    assert got.body == {
        "object": "whatsapp_business_account",
        "entry": [
            {
                "id": "318204775196043",
                "changes": [
                    {
                        "value": {
                            "messaging_product": "whatsapp",
                            "metadata": {
                                "display_phone_number": "12025550143",
                                "phone_number_id": "402776318915527",
                            },
                            "contacts": [
                                {
                                    "profile": {"name": "Ana Souza"},
                                    "wa_id": "5511987650001",
                                    "user_id": "BR.1234567890123456",
                                }
                            ],
                            "messages": [
                                {
                                    "from": "5511987650001",
                                    "from_user_id": "BR.1234567890123456",
                                    "id": wamid,
                                    "timestamp": "1795183200",
                                    "type": "text",
                                    "text": {"body": "Olá"},
                                }
                            ],
                        },
                        "field": "messages",
                    }
                ],
            }
        ],
    }


def test_non_ascii_and_slashes_are_escaped_before_signing(sandbox: Sandbox) -> None:
    wamid = sandbox.type("café 👋 https://example.com")

    got = until(lambda: sandbox.webhook.about(wamid))[0]

    assert got.signed
    assert rb'"caf\u00e9 \ud83d\udc4b https:\/\/example.com"' in got.raw
    assert got.raw.isascii()


@pytest.mark.parametrize(
    ("sender", "absent"),
    [
        ({"name": "Kestrel", "user_id": "US.9120047736618250"}, {"from", "wa_id"}),
        ({"name": "Maren", "wa_id": "12025550117"}, {"from_user_id", "user_id"}),
    ],
    ids=["no number", "no user id"],
)
def test_identity_a_sender_lacks_is_absent_not_null(sandbox: Sandbox, sender: dict[str, str], absent: set[str]) -> None:
    wamid = sandbox.type("hi", **{"from": sender})

    value = until(lambda: sandbox.webhook.about(wamid))[0].body["entry"][0]["changes"][0]["value"]

    assert not absent & (value["messages"][0].keys() | value["contacts"][0].keys())


def test_wamids_are_unique_and_look_like_metas(sandbox: Sandbox) -> None:
    wamids = {sandbox.type("again") for _ in range(20)}

    assert len(wamids) == 20
    for wamid in wamids:
        assert re.fullmatch(rb"\x1c\x18\x0d5511987650001\x15\x02\x00\x12\x18\x14[0-9A-F]{20}\x00", _unpacked(wamid))


def _unpacked(wamid: str) -> bytes:
    return base64.b64decode(wamid.removeprefix("wamid."))


def test_anything_but_200_is_tried_again_until_200(sandbox: Sandbox) -> None:
    sandbox.webhook.answers[:] = [503, 401, 204]

    wamid = sandbox.type("persistent")

    until(lambda: sandbox.deliveries(wamid)[0]["delivered_at"], what="delivered")
    record = sandbox.deliveries(wamid)[0]
    got = sandbox.webhook.about(wamid)
    assert (record["attempts"], record["last_status"]) == (4, 200)
    assert len({one.raw for one in got}) == 1
    # At once, then after 0.2 s and 0.5 s.
    gaps = [later.at - earlier.at for earlier, later in pairwise(got)]
    assert gaps[0] < 0.2 <= gaps[1] < 0.5 <= gaps[2]


def test_deliveries_since_lists_only_what_changed_since(sandbox: Sandbox) -> None:
    old = sandbox.type("old")
    until(lambda: sandbox.deliveries(old)[0]["delivered_at"])
    later = until(lambda: (at := time.time()) > _unix(sandbox.deliveries(old)[0]["changed_at"]) + 0.01 and at)
    new = sandbox.type("new")

    shown = sandbox.http.get("/sandbox/deliveries", params={"since": later}).json()["deliveries"]

    assert [one["wamid"] for one in shown] == [new]


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("concurrent", [True, False])
def test_duplicates_are_copies_of_the_same_bytes(sandbox: Sandbox, concurrent: bool) -> None:
    sandbox.faults(webhooks={"duplicate": 3, "concurrent_copies": concurrent, "shuffle_ms": 20})

    wamid = sandbox.type("thrice")

    until(lambda: all(one["delivered_at"] for one in sandbox.deliveries(wamid)))
    assert [one["copy"] for one in sandbox.deliveries(wamid)] == [0, 1, 2]
    assert len(sandbox.webhook.about(wamid)) == 3
    assert len({one.raw for one in sandbox.webhook.about(wamid)}) == 1


def test_dropped_attempts_never_reach_the_webhook(sandbox: Sandbox) -> None:
    sandbox.faults(webhooks={"drop_first": 2})

    wamid = sandbox.type("lost twice")

    until(lambda: sandbox.deliveries(wamid)[0]["delivered_at"])
    assert sandbox.deliveries(wamid)[0]["attempts"] == 3
    assert len(sandbox.webhook.about(wamid)) == 1


def test_any_body_is_signed_and_delivered(sandbox: Sandbox, webhook_example: dict[str, Any]) -> None:
    answer = sandbox.http.post("/sandbox/webhooks", json={"body": webhook_example})

    wamid = answer.json()["wamid"]
    got = until(lambda: sandbox.webhook.about(wamid))[0]
    assert answer.status_code == 202
    assert got.signed
    assert got.body == webhook_example


@pytest.fixture
def webhook_example() -> dict[str, Any]:
    status = {"id": "wamid.STATUS/1", "status": "delivered", "timestamp": "1795183200", "recipient_id": "12025550117"}
    value = {"messaging_product": "whatsapp", "statuses": [status], "extra": [None, 1.5, "ü\u0000"]}
    return {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"value": value, "field": "x"}]}]}


def test_lone_surrogates_get_through_as_they_are(sandbox: Sandbox) -> None:
    before = len(sandbox.webhook.received)

    answer = sandbox.http.post("/sandbox/webhooks", content=rb'{"body": {"odd": "\ud83d"}}')

    assert answer.status_code == 202
    until(lambda: len(sandbox.webhook.received) > before)
    assert sandbox.webhook.received[-1].raw == rb'{"odd":"\ud83d"}'
    assert sandbox.webhook.received[-1].signed


@pytest.mark.parametrize(
    "wrong",
    [
        {"from": {"name": "Nobody"}, "phone_number_id": "1", "text": "x"},
        {"from": {"wa_id": "12025550117"}, "phone_number_id": "1", "text": ""},
        {"from": {"wa_id": "not a number"}, "phone_number_id": "1", "text": "x"},
        {"from": {"wa_id": "12025550117"}, "text": "x"},
    ],
)
def test_unusable_message_is_refused(sandbox: Sandbox, wrong: dict[str, Any]) -> None:
    assert sandbox.http.post("/sandbox/messages", json=wrong).status_code == 422


@pytest.mark.parametrize("wrong", [{"claude": {"mode": "tired"}}, {"webhooks": {"duplicate": 0}}, {"weather": "bad"}])
def test_unknown_faults_are_refused(sandbox: Sandbox, wrong: dict[str, Any]) -> None:
    assert sandbox.http.put("/sandbox/faults", json=wrong).status_code == 422
    assert sandbox.http.get("/sandbox/faults").json()["claude"]["mode"] == "none"


def test_state_keeps_the_conversation(sandbox: Sandbox) -> None:
    wamid = sandbox.type("remember me")

    state = sandbox.http.get("/sandbox/state").json()

    bubble = next(one for one in state["messages"] if one["wamid"] == wamid)
    assert (bubble["text"], bubble["customer"]) == ("remember me", "BR.1234567890123456")
    assert state["channels"] == STORY["channels"]
    assert "password" not in json.dumps(state)


def test_page_lets_nothing_foreign_in(sandbox: Sandbox) -> None:
    page = sandbox.http.get("/")

    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    for path in ("/page/phone.css", "/page/phone.js", "/page/icon.svg"):
        assert sandbox.http.get(path).status_code == 200
    assert "innerHTML" not in sandbox.http.get("/page/phone.js").text


def test_logs_hold_no_text_names_or_numbers(sandbox: Sandbox) -> None:
    wamid = sandbox.type("a secret about herons")
    until(lambda: any(wamid in line and "webhook.delivered" in line for line in sandbox.output), what="logged")

    lines = [json.loads(line) for line in sandbox.output]

    told = "\n".join(sandbox.output)
    assert all({"event", "level", "at"} <= line.keys() for line in lines)
    for private in ("herons", "Ana", "5511987650001", "12025550143", APP_SECRET):
        assert private not in told


def test_refuses_to_start_naming_all_that_is_missing() -> None:
    process, output = start_sandbox({})

    assert process.wait(20) == 2
    line = json.loads(until(lambda: output and output[-1]))
    for name in ("SANDBOX_PORT", "SANDBOX_WEBHOOK_URL", "SANDBOX_APP_SECRET", "SANDBOX_STORY"):
        assert name in line["reason"]


def test_sigterm_stops_it_within_two_seconds_whatever_it_does(tmp_path: Path) -> None:
    story = tmp_path / "story.json"
    story.write_text(json.dumps(STORY), "utf-8")
    port = free_port()
    process, output = start_sandbox(
        {
            "SANDBOX_PORT": str(port),
            "SANDBOX_WEBHOOK_URL": f"http://127.0.0.1:{free_port()}/nobody-listens",
            "SANDBOX_APP_SECRET": APP_SECRET,
            "SANDBOX_STORY": str(story),
        }
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

        def is_up() -> bool:
            try:
                return http.get("/live").status_code == 200
            except httpx.TransportError:
                return False

        until(is_up, within_s=20)
        http.put("/sandbox/faults", json={"claude": {"mode": "timeout"}}).raise_for_status()
        http.post("/sandbox/webhooks", json={"body": {}}).raise_for_status()
        headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
        asked = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
        with pytest.raises(httpx.TimeoutException):
            http.post("/v1/messages", json=asked, headers=headers, timeout=0.2)

        started = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
        assert time.monotonic() - started < 2, "\n".join(output)
