"""The sandbox answers the Graph exchanges on file as Meta does, and only those who may ask."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import ROOT, until
from .meta_graph import (
    ACCOUNT,
    NUMBER,
    OTHER_ACCOUNT,
    PIXEL,
    Meta,
    meta,
    running,
    words,
)

__all__ = ["meta", "running"]  # fixtures

# --- the exchanges on file ------------------------------------------------------------------------------------------

FIXTURES = ROOT / "tests" / "fixtures" / "graph"
# What the sandbox cannot be made to answer, and why.
CANNOT = {
    "send_response_unexpected_user_id_ok": "shows a user id in the answer to a phone send, which Meta says it does not",
    "conversation_analytics_ok": "prices before July 2025; nothing sent here is that old, so data_points is empty",
    "health_status_ok": "additional_info of a limited account: made up there, and no account here is ever limited",
}
# The exchange contradicts another one on the same template (parameters once given, once not), or asks with a body that
# cannot cause the error: asked in the same way with a body that can.
PLAIN = {
    "send_template_accepted_ok": "plain_note",
    "send_template_held_ok": "plain_held",
    "send_marketing_messages_ok": "plain_held",
}
CREATE: dict[str, dict[str, Any]] = {
    "template_create_ok": {"name": "trip_reminder_v4"},  # the one on file is there already
    "template_create_auth_ok": {"name": "verify_code_v2"},
    "template_create_error_exists": {"name": "plain_note", "components": [words("We are open.")]},
    "template_create_error_leading_variable": {"components": [words("{{1}} is your table at our place.")]},
    "template_create_error_limit": {"components": [words("We are open.")]},
    "template_create_error_ratio": {"components": [words("Hi {{1}} and {{2}} and {{3}}!")]},
    "template_create_error_too_long": {"components": [words("w" * 1025)]},
}


def exchanges() -> list[Any]:
    files = sorted(path for path in FIXTURES.glob("*.json") if path.name != "MANIFEST.json")
    return [pytest.param(json.loads(path.read_text("utf-8")), id=path.stem) for path in files]


@pytest.mark.parametrize("exchange", exchanges())
def test_exchange_on_file_gets_the_documented_answer(
    meta: Meta, exchange: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    if name in CANNOT:
        pytest.skip(CANNOT[name])
    expected = exchange["response"]
    meta.behave(window="off", most_templates=0 if name == "template_create_error_limit" else 6000)
    _prepare(meta, name, expected)

    answer = _ask_as_on_file(meta, name, exchange["request"])

    assert answer.status_code == expected["status"]
    if "_text" in expected["body"]:
        assert answer.text == expected["body"]["_text"]
    elif "_binary" in expected["body"]:
        assert answer.headers["content-type"] == expected["headers"]["Content-Type"]
        assert answer.headers["content-disposition"].startswith("inline;filename=")
    else:
        found = answer.json()
        assert answer.headers["content-type"] == expected["headers"]["Content-Type"]
        assert answer.headers["facebook-api-version"] == "v26.0"
        if exchange["request"].get("body", {}).get("type") == "template" and "messages" in found:
            # Meta's page shows it with every template, some of the exchanges do not.
            found["messages"][0].pop("message_status")
            expected["body"]["messages"][0].pop("message_status", None)
        assert _shape(found) == _shape(expected["body"])
        assert _codes(found) == _codes(expected["body"])


def _prepare(meta: Meta, name: str, expected: dict[str, Any]) -> None:
    """Bring about what the exchange presupposes."""
    if name.startswith("error_"):
        body = expected["body"]
        if "_text" in body:
            mode = "html" if body["_text"] else "empty"
            meta.break_({"mode": mode, "http": expected["status"]})
        else:
            meta.break_({"code": body["error"]["code"], "http": expected["status"]})
    elif name.startswith("block_users"):
        meta.writes("12025550162")
    elif name == "template_analytics_ok":
        meta.ask("POST", f"{ACCOUNT}?is_enabled_for_insights=true").raise_for_status()
    elif name == "subscribed_apps_get_ok":
        override = {"override_callback_uri": "https://hooks.example.com/wa/a", "verify_token": "made-up"}
        meta.ask("POST", f"{ACCOUNT}/subscribed_apps", json=override).raise_for_status()
    elif name == "template_list_page1_ok":
        meta.http.post(
            "/sandbox/graph/templates/1180337429165502", json={"event": "QUALITY", "quality": "GREEN"}
        ).raise_for_status()
    if name in ("analytics_ok", "pricing_analytics_ok", "template_analytics_ok"):
        parameters = [{"type": "text", "text": "Maren"}, {"type": "text", "text": "24 Nov"}]
        template = {"name": "trip_reminder_v3", "language": {"code": "en_US"}}
        template["components"] = [{"type": "body", "parameters": parameters}]
        wamid = meta.say(type="template", text=None, template=template).json()["messages"][0]["id"]
        until(lambda: len(meta.statuses(wamid)) == 3)


def _ask_as_on_file(meta: Meta, name: str, asked: dict[str, Any]) -> httpx.Response:
    path = asked["url"].removeprefix("https://graph.facebook.com/v26.0/")
    query = {key: str(value) for key, value in asked.get("query", {}).items()}
    body = copy.deepcopy(asked.get("body"))
    if name in PLAIN:
        body["template"] = {"name": PLAIN[name], "language": {"code": "en_US"}, "components": []}
    if name in CREATE:
        body |= CREATE[name]
    if name.startswith("media_download"):
        if name.endswith("404"):
            meta.behave(media_url_s=0)
        url = meta.ask("GET", "7301884420196655").json()["url"]
        return meta.http.get(url, headers={"Authorization": "Bearer good"})
    if name == "media_upload_ok":
        form = {"messaging_product": "whatsapp", "type": "image/jpeg"}
        return meta.ask("POST", path, data=form, files={"file": ("green-l.jpg", PIXEL, "image/jpeg")})
    if name == "template_list_empty_ok":
        query["name"] = "no_such_name"
    elif name == "template_list_page1_ok":
        query["status"] = "APPROVED"
    elif name == "template_list_page2_ok":
        first = meta.ask("GET", path, params={"limit": "12"}).json()
        query = {"limit": "12", "after": first["paging"]["cursors"]["after"]}
    if "analytics" in name:
        now = int(time.time())
        query = {
            key: value.replace("1795096800", str(now - 3600)).replace("1795183200", str(now + 3600))
            for key, value in query.items()
        }
    return meta.ask(asked["method"], path, params=query or None, json=body)


def _shape(found: Any) -> Any:
    """Return the keys, all the way down; of a list its first element stands for all."""
    if isinstance(found, dict):
        return {key: _shape(value) for key, value in found.items() if key not in ("components", "clicked", "tier")}
    if isinstance(found, list):
        return [_shape(found[0])] if found else []
    return None


def _codes(found: Any) -> tuple[Any, ...]:
    error = found.get("error", {}) if isinstance(found, dict) else {}
    return error.get("code"), error.get("error_subcode"), error.get("is_transient"), error.get("type")


def test_every_exchange_is_accounted_for() -> None:
    assert len(exchanges()) == 139
    assert set(CANNOT) | set(PLAIN) | set(CREATE) <= {Path(f"{one.id}.json").stem for one in exchanges()}


# --- who may ask ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "path", "status", "code", "subcode"),
    [
        ("wrong", f"{NUMBER}", 401, 190, None),
        ("old", f"{NUMBER}", 401, 190, 463),
        ("elsewhere", f"{NUMBER}", 403, 200, None),
        ("managing", "7301884420196655", 403, 10, None),
        ("good", "999", 400, 100, 33),
        ("good", f"{NUMBER}/weather", 400, 2500, None),
    ],
)
def test_wrong_token_or_object_is_refused_as_meta_does(
    meta: Meta, token: str, path: str, status: int, code: int, subcode: int | None
) -> None:
    answer = meta.ask("GET", path, token=token)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error.get("error_subcode")) == (status, code, subcode)


@pytest.mark.parametrize(
    ("asked", "served"), [("/v26.0", "v26.0"), ("/v21.0", "v21.0"), ("/v19.0", "v21.0"), ("", "v21.0")]
)
def test_expired_version_is_served_as_the_oldest_alive(meta: Meta, asked: str, served: str) -> None:
    answer = meta.ask("GET", NUMBER, version=f"/graph{asked}")

    assert (answer.status_code, answer.headers["facebook-api-version"]) == (200, served)


def test_version_that_does_not_exist_is_an_unknown_path(meta: Meta) -> None:
    assert meta.ask("GET", NUMBER, version="/graph/v27.0").json()["error"]["code"] == 2500


def test_debug_token_tells_scopes_accounts_and_validity(meta: Meta) -> None:
    good, old, unknown = (
        meta.ask("GET", "debug_token", params={"input_token": token}).json()["data"]
        for token in ("elsewhere", "old", "no such token")
    )

    assert good["is_valid"]
    assert "whatsapp_business_messaging" in good["scopes"]
    assert {"scope": "whatsapp_business_messaging", "target_ids": [OTHER_ACCOUNT]} in good["granular_scopes"]
    assert (old["is_valid"], old["error"]["code"], unknown["is_valid"]) == (False, 190, False)
