"""Files, templates and analytics of the sandbox's Meta."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

import httpx
import pytest

from .conftest import APP_SECRET, VERIFY_TOKEN, until
from .meta_graph import (
    ACCOUNT,
    MAREN,
    NUMBER,
    PIXEL,
    SECOND,
    TEMPLATES,
    Meta,
    buttons,
    meta,
    running,
    words,
)

__all__ = ["meta", "running"]  # fixtures

# --- media ----------------------------------------------------------------------------------------------------------


def test_uploaded_file_comes_back_as_it_was_until_deleted(meta: Meta) -> None:
    content = PIXEL + b"\r\n--not-the-boundary\r\n\x00"
    form = {"messaging_product": "whatsapp"}

    media_id = meta.ask("POST", f"{NUMBER}/media", data=form, files={"file": ("a.png", content, "image/png")}).json()[
        "id"
    ]
    known = meta.ask("GET", media_id).json()
    got = meta.http.get(known["url"], headers={"Authorization": "Bearer good"})
    without_token = meta.http.get(known["url"])
    tampered = meta.http.get(known["url"][:-3] + "000", headers={"Authorization": "Bearer good"})
    other_number = meta.ask("GET", media_id, params={"phone_number_id": SECOND})
    deleted = meta.ask("DELETE", media_id)

    assert known["url"].startswith(meta.url)
    assert got.content == content
    assert (known["sha256"], known["file_size"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (without_token.status_code, tampered.status_code) == (401, 404)
    assert other_number.json()["error"]["error_subcode"] == 33
    assert deleted.json() == {"success": True}
    assert meta.ask("GET", media_id).json()["error"]["error_subcode"] == 33
    assert meta.http.get(known["url"], headers={"Authorization": "Bearer good"}).status_code == 404


@pytest.mark.parametrize(
    ("name", "mime_type", "size", "code"),
    [
        ("a.exe", "application/x-msdownload", 10, 100),
        ("a.png", "image/png", 5 * 1024 * 1024 + 1, 131053),
        ("a.webp", "image/webp", 500 * 1024 + 1, 131053),
        ("a.png", "image/png", 0, 100),
    ],
)
def test_upload_beyond_the_limits_is_refused(meta: Meta, name: str, mime_type: str, size: int, code: int) -> None:
    files = {"file": (name, b"x" * size, mime_type)}

    answer = meta.ask("POST", f"{NUMBER}/media", data={"messaging_product": "whatsapp"}, files=files)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_file_from_the_phone_arrives_with_an_id_that_works(meta: Meta) -> None:
    uploaded = meta.http.post(
        "/sandbox/media", params={"phone_number_id": NUMBER}, content=PIXEL, headers={"Content-Type": "image/png"}
    ).json()
    asked = {"from": {"wa_id": MAREN}, "phone_number_id": NUMBER, "media": {"id": uploaded["id"], "caption": "see"}}

    meta.http.post("/sandbox/messages", json=asked).raise_for_status()

    message = until(lambda: [value["messages"][0] for value in meta.told() if "messages" in value])[0]
    assert (message["type"], message["image"]["caption"]) == ("image", "see")
    assert base64.b64decode(message["image"]["sha256"]) == hashlib.sha256(PIXEL).digest()
    assert meta.http.get(message["image"]["url"], headers={"Authorization": "Bearer good"}).content == PIXEL
    assert meta.ask("GET", message["image"]["id"]).json()["mime_type"] == "image/png"


def test_sample_for_a_template_header_gets_a_handle(meta: Meta) -> None:
    query = {"file_length": "10", "file_type": "image/png", "file_name": "a.png"}

    session = meta.ask("POST", "902214467719385/uploads", params=query).json()["id"]
    handle = meta.ask("POST", session, content=b"0123456789", headers={"file_offset": "0"}).json()["h"]

    assert session.startswith("upload:")
    assert handle.startswith("4::")


def test_sample_may_come_in_pieces_and_is_refused_when_it_is_not_the_one_announced(meta: Meta) -> None:
    query = {"file_length": "10", "file_type": "image/png"}
    session = meta.ask("POST", "902214467719385/uploads", params=query).json()["id"]

    def piece(content: bytes, offset: int) -> httpx.Response:
        return meta.ask("POST", session, content=content, headers={"file_offset": str(offset)})

    assert piece(b"0123", 0).json() == {"id": session, "file_offset": 4}
    assert piece(b"0123", 0).status_code == 400
    assert meta.ask("GET", session).json()["file_offset"] == 4
    assert piece(b"4567890", 4).status_code == 400
    assert piece(b"456789", 4).json()["h"].startswith("4::")
    refused = meta.ask("POST", "902214467719385/uploads", params=query | {"file_type": "audio/ogg"})
    assert refused.json()["error"]["code"] == 100


# --- callbacks ------------------------------------------------------------------------------------------------------


def test_the_app_s_own_token_reads_where_webhooks_go(meta: Meta) -> None:
    app_id = "902214467719385"

    own = meta.ask("GET", f"{app_id}/subscriptions", token=f"{app_id}|{APP_SECRET}").json()["data"][0]
    other = meta.ask("GET", f"{app_id}/subscriptions")

    assert (own["object"], own["callback_url"]) == ("whatsapp_business_account", meta.webhook.url)
    assert "messages" in [field["name"] for field in own["fields"]]
    assert other.json()["error"]["code"] == 15


@pytest.mark.parametrize(("token", "status"), [(VERIFY_TOKEN, 200), ("another", 400)])
def test_an_override_on_this_machine_is_verified(meta: Meta, token: str, status: int) -> None:
    override = {"override_callback_uri": meta.webhook.url, "verify_token": token}

    account = meta.ask("POST", f"{ACCOUNT}/subscribed_apps", json=override)
    number = meta.ask("POST", NUMBER, json={"webhook_configuration": override})

    assert [account.status_code, number.status_code] == [status, status]
    shown = meta.ask("GET", NUMBER, params={"fields": "webhook_configuration"}).json()["webhook_configuration"]
    assert set(shown.values()) == ({meta.webhook.url} if status == 200 else set())
    if status == 400:
        assert account.json()["error"]["code"] == 2200


def test_bodies_are_kept_when_asked_for(meta: Meta) -> None:
    meta.behave(keep_bodies=True, window="off")

    answer = meta.say()
    meta.ask(
        "POST", f"{NUMBER}/media", data={"messaging_product": "whatsapp"}, files={"file": ("a", PIXEL, "image/png")}
    )

    said, uploaded = meta.http.get("/sandbox/graph/calls").json()["calls"][-2:]
    assert (said["request"]["text"], said["answer"]) == ({"body": "hi"}, answer.json())
    assert uploaded["request"]["file"] == {"filename": "a", "content_type": "image/png", "size": len(PIXEL)}


# --- templates ------------------------------------------------------------------------------------------------------


def _events(meta: Meta, name: str) -> list[str]:
    return [one["event"] for one in meta.told("message_template_status_update") if one["message_template_name"] == name]


@pytest.mark.parametrize(
    ("name", "events", "status", "code"),
    [
        ("welcome_note", ["APPROVED"], "APPROVED", None),
        ("reject_this", ["REJECTED"], "REJECTED", 132001),
        ("pause_this", ["APPROVED", "PAUSED"], "PAUSED", 132015),
        ("disable_this", ["APPROVED", "DISABLED"], "DISABLED", 132016),
        ("pending_this", [], "PENDING", 132001),
    ],
)
def test_review_goes_as_the_name_says(meta: Meta, name: str, events: list[str], status: str, code: int | None) -> None:
    created = meta.create(name).json()

    until(lambda: _events(meta, name) == events)
    sent = meta.say(type="template", text=None, template={"name": name, "language": {"code": "en_US"}})
    assert created["status"] == "PENDING"
    assert meta.ask("GET", created["id"]).json()["status"] == status
    assert sent.json().get("error", {}).get("code") == code


def test_pause_comes_with_a_red_quality_and_can_be_lifted(meta: Meta) -> None:
    template_id = meta.create("pause_this").json()["id"]
    quality = until(lambda: meta.told("message_template_quality_update"))[0]

    meta.ask("POST", f"{template_id}/unpause").raise_for_status()

    assert (quality["previous_quality_score"], quality["new_quality_score"]) == ("UNKNOWN", "RED")
    until(lambda: _events(meta, "pause_this") == ["APPROVED", "PAUSED", "APPROVED"])


def test_category_changes_with_notice_by_webhook(meta: Meta) -> None:
    meta.create("recategor_this")

    change = until(lambda: meta.told("template_category_update"))[0]

    assert (change["previous_category"], change["new_category"]) == ("UTILITY", "MARKETING")


@pytest.mark.parametrize(
    ("changes", "subcode"),
    [
        ({"name": "Not Allowed"}, None),
        ({"category": "UTILITY", "components": [{"type": "FOOTER", "text": "x"}]}, 2388072),
        ({"components": [words("We {{1}} open for you today.")]}, 2388072),
        ({"components": [words("Open."), {"type": "HEADER", "format": "TEXT", "text": "w" * 61}]}, 2388040),
        ({"components": [words("Open."), {"type": "HEADER", "format": "IMAGE"}]}, 2388047),
        ({"components": [words("Open."), {"type": "FOOTER", "text": "{{1}}"}]}, 2388073),
        (
            {"components": [words("Open."), buttons({"type": "URL", "text": "t" * 26, "url": "https://e.example"})]},
            2388040,
        ),
        (
            {
                "components": [
                    words("Open."),
                    buttons(
                        {"type": "QUICK_REPLY", "text": "a"},
                        {"type": "PHONE_NUMBER", "text": "b", "phone_number": "1"},
                        {"type": "QUICK_REPLY", "text": "c"},
                    ),
                ]
            },
            None,
        ),
        ({"category": "AUTHENTICATION", "components": [words("Your code")]}, 2388072),
    ],
)
def test_template_meta_would_not_take_is_refused(meta: Meta, changes: dict[str, Any], subcode: int | None) -> None:
    answer = meta.create(**({"name": "fresh"} | changes))

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error.get("error_subcode")) == (400, 100, subcode)
    assert error["error_user_msg"]


def test_list_filters_and_pages(meta: Meta) -> None:
    path = f"{ACCOUNT}/message_templates"
    seen: list[str] = []
    query: dict[str, str] = {"limit": "4", "fields": "name,status"}
    while True:
        page = meta.ask("GET", path, params=query).json()
        seen += [one["name"] for one in page["data"]]
        if "next" not in page["paging"]:
            break
        query["after"] = page["paging"]["cursors"]["after"]

    paused = meta.ask("GET", path, params={"status": "PAUSED"}).json()["data"]

    assert sorted(seen) == sorted(one["name"] for one in TEMPLATES)
    assert [one["name"] for one in paused] == ["resting"]


def test_approved_template_is_edited_once_a_day(meta: Meta) -> None:
    change = {"components": [words("We are closed today.")]}

    first = meta.ask("POST", "1180337429165502", json=change)
    until(lambda: meta.ask("GET", "1180337429165502").json()["status"] == "APPROVED")
    second = meta.ask("POST", "1180337429165502", json=change)

    assert first.json() == {"success": True}
    assert second.json()["error"]["error_user_title"] == "Too many edits"


def test_name_of_a_deleted_template_rests(meta: Meta) -> None:
    deleted = meta.ask("DELETE", f"{ACCOUNT}/message_templates", params={"name": "plain_note"})

    assert deleted.json() == {"success": True}
    assert meta.create("plain_note").json()["error"]["error_user_title"] == "Name not available"
    assert _events(meta, "plain_note") == ["DELETED"] or until(lambda: _events(meta, "plain_note") == ["DELETED"])


def test_analytics_count_what_was_really_sent(meta: Meta) -> None:
    meta.behave(window="off")
    for at in range(3):
        meta.say(f"120255501{at:02}").raise_for_status()
    until(lambda: meta.http.get("/sandbox/accepted").json()["statuses_waiting"] == 0)
    now = int(time.time())
    span = f"start({now - 3600}).end({now + 3600}).granularity(DAY)"

    volumes = meta.ask("GET", ACCOUNT, params={"fields": f"analytics.{span}"}).json()["analytics"]["data_points"]
    prices = meta.ask(
        "GET",
        ACCOUNT,
        params={"fields": f'pricing_analytics.{span}.dimensions(["PRICING_CATEGORY","PRICING_TYPE"])'},
    ).json()["pricing_analytics"]["data"][0]["data_points"]

    assert [(one["sent"], one["delivered"]) for one in volumes] == [(3, 3)]
    assert [(one["pricing_type"], one["pricing_category"], one["volume"], one["cost"]) for one in prices] == [
        ("FREE_CUSTOMER_SERVICE", "SERVICE", 3, 0)
    ]


def test_service_messages_cost_beyond_the_free_ones(meta: Meta) -> None:
    meta.behave(window="off", free_service_messages=1)

    meta.say()
    meta.say("12025550173")

    assert [one["pricing"]["type"] for one in meta.accepted()] == ["free_customer_service", "regular"]


def test_review_of_an_older_version_decides_nothing(meta: Meta) -> None:
    meta.behave(review_ms=200, jitter=0)
    template_id = meta.create("welcome_note").json()["id"]
    decide = f"/sandbox/graph/templates/{template_id}"
    meta.http.post(decide, json={"event": "REJECTED"}).raise_for_status()
    meta.behave(review_ms=600, jitter=0)

    meta.ask("POST", template_id, json={"components": [words("We are open tomorrow.")]}).raise_for_status()

    until(lambda: _events(meta, "welcome_note") == ["REJECTED", "APPROVED"])
    until(lambda: meta.http.get("/sandbox/accepted").json()["statuses_waiting"] == 0)
    assert _events(meta, "welcome_note") == ["REJECTED", "APPROVED"]
