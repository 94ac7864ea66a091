"""The sandbox as Meta's Graph API, with a story of its own, for the tests that talk to it."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from .conftest import APP_SECRET, Webhook, free_port, start_sandbox, until

NUMBER, SECOND, SLOW, TRIAL = "402776318915527", "402776318915990", "519038827741206", "519038827741999"
ACCOUNT, OTHER_ACCOUNT = "318204775196043", "274419083365128"
MAREN, KESTREL = "12025550117", "US.9120047736618250"
VERSION, GOOD = "/graph/v26.0", "good"
BODY_TEXT = "Hi {{1}}, your paddle trip starts on {{2}}. See you there!"
AUTUMN_BUTTONS = [
    {"type": "QUICK_REPLY", "text": "Stop promos"},
    {"type": "URL", "text": "Shop", "url": "https://example.com/{{1}}"},
]
COUPON_BUTTONS = [{"type": "QUICK_REPLY", "text": "Thanks"}, {"type": "COPY_CODE", "example": "PADDLE20"}]


def _known(name: str, *components: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"waba_id": ACCOUNT, "name": name, "components": list(components)} | more


def words(text: str) -> dict[str, Any]:
    return {"type": "BODY", "text": text}


def template(name: str, *components: dict[str, Any]) -> dict[str, Any]:
    template = {"name": name, "language": {"code": "en_US"}, "components": list(components)}
    return {"type": "template", "text": None, "template": template}


def _header(form: str) -> dict[str, Any]:
    return {"type": "HEADER", "format": form}


def buttons(*buttons: dict[str, Any]) -> dict[str, Any]:
    return {"type": "BUTTONS", "buttons": list(buttons)}


CARD = {"components": [_header("IMAGE"), buttons({"type": "QUICK_REPLY", "text": "This one"})]}
TEMPLATES = [
    _known("trip_reminder_v3", words(BODY_TEXT), id="1180337429165502"),
    _known(
        "autumn_sale",
        _header("IMAGE"),
        words("Hi {{1}}, take {{2}} off today."),
        buttons(*AUTUMN_BUTTONS),
        category="MARKETING",
    ),
    _known("verify_code", {"type": "BODY"}, buttons({"type": "OTP"}), category="AUTHENTICATION"),
    _known("tents_carousel", words("Hi {{1}}, look."), {"type": "CAROUSEL", "cards": [CARD, CARD]}),
    _known("coupon_nov", words("Use {{1}} for {{2}} off."), buttons(*COUPON_BUTTONS)),
    _known("refund_done", words("We sent {{1}} back on {{2}}."), language="en_US"),
    _known("survey_after_trip", words("How was it?"), buttons({"type": "FLOW", "text": "Tell us"})),
    _known("invoice_ready", _header("DOCUMENT"), words("Invoice {{1}} is here.")),
    _known("meet_here", _header("LOCATION"), words("We meet here, {{1}}.")),
    _known(
        "lto_cape_may",
        words("Only today."),
        {"type": "LIMITED_TIME_OFFER"},
        buttons({"type": "COPY_CODE", "example": "PADDLE20"}),
    ),
    _known("order_ready_named", words("Hi {{first_name}}, {{order_no}} is ready."), parameter_format="NAMED"),
    _known("plain_note", words("We are open.")),
    _known("plain_held", words("We are open."), category="MARKETING"),
    _known("resting", words("We are open."), status="PAUSED"),
    _known("gone", words("We are open."), status="DISABLED"),
]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
MEDIA = [
    {"phone_number_id": NUMBER, "id": f"7301884420196{tail}", "mime_type": kind, "content": "AAAA"}
    for tail, kind in [
        ("655", "image/jpeg"),
        ("700", "image/jpeg"),
        ("701", "audio/ogg; codecs=opus"),
        ("702", "video/mp4"),
        ("703", "application/pdf"),
        ("704", "image/webp"),
    ]
]
CHANNEL = {"workspace": "Harbor & Pine", "waba_id": ACCOUNT, "verified_name": "Harbor & Pine Outfitters"}
STORY: dict[str, Any] = {
    "channels": [
        CHANNEL
        | {"phone_number_id": NUMBER, "display_phone_number": "12025550143", "throughput": 1000}
        | {"username": "harborandpine"},
        CHANNEL | {"phone_number_id": SECOND, "display_phone_number": "12025550188"},
        {"waba_id": OTHER_ACCOUNT, "phone_number_id": SLOW, "display_phone_number": "442079460321", "throughput": 20},
        {"waba_id": OTHER_ACCOUNT, "phone_number_id": TRIAL, "display_phone_number": "15550100200"}
        | {"allowed_recipients": [MAREN]},
    ],
    "customers": [
        {"name": "Maren Holt", "wa_id": MAREN, "user_id": "US.4471902683351774", "username": "@maren"},
        {"name": "Kestrel", "user_id": KESTREL},
        {"name": "Hidden", "wa_id": "12025550170", "user_id": "US.5550170", "hides_number": True},
        {"name": "Gone", "wa_id": "12025550171", "refuses": 131026},
        {"name": "Quiet", "wa_id": "12025550172", "user_id": "US.5550172", "stopped_marketing": True},
        {"name": "Luz", "wa_id": "5491155500117", "user_id": "AR.1", "other_numbers": ["541115550117"]},
        {"name": "Unread", "wa_id": "12025550173", "user_id": "US.5550173", "reads": False},
    ],
    "meta": {
        "app_name": "Harbor Inbox",
        "tokens": [
            {"token": "good"},
            {"token": "elsewhere", "accounts": [OTHER_ACCOUNT]},
            {"token": "managing", "scopes": ["whatsapp_business_management"]},
            {"token": "old", "expires_at": 1},
        ],
        "templates": TEMPLATES,
        "media": MEDIA,
        "behaviour": {
            **{f"{step}_ms": 0 for step in ("sent", "delivered", "read", "played", "hold", "review", "pause", "batch")},
            "jitter": 0,
        },
    },
}


@dataclass(frozen=True)
class Meta:
    """The sandbox's Graph API under test, and our webhook."""

    http: httpx.Client
    webhook: Webhook
    url: str

    def ask(self, method: str, path: str, *, token: str = GOOD, version: str = VERSION, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} | more.pop("headers", {})
        return self.http.request(method, f"{version}/{path}", headers=headers, **more)

    def say(self, to: str | None = MAREN, number: str = NUMBER, **more: Any) -> httpx.Response:
        who = {"recipient": to} if to and to[:2].isalpha() else {"to": to}
        body = {"messaging_product": "whatsapp", "type": "text", "text": {"body": "hi"}} | who | more
        return self.ask("POST", f"{number}/messages", json={key: value for key, value in body.items() if value})

    def create(self, name: str, **changes: Any) -> httpx.Response:
        """Create a template that is fine unless the changes are not."""
        asked = {"name": name, "language": "en_US", "category": "UTILITY", "components": [words("We are open today.")]}
        return self.ask("POST", f"{ACCOUNT}/message_templates", json=asked | changes)

    def behave(self, **changes: Any) -> None:
        self.http.put("/sandbox/graph/behaviour", json=changes).raise_for_status()

    def break_(self, *faults: dict[str, Any], **others: Any) -> None:
        self.http.put("/sandbox/faults", json={"graph": list(faults)} | others).raise_for_status()

    def writes(self, person: dict[str, Any] | str = MAREN, number: str = NUMBER, ago: timedelta = timedelta()) -> None:
        asked = {
            "phone_number_id": number,
            "customer": {"wa_id": person} if isinstance(person, str) else person,
            "at": (datetime.now(UTC) - ago).isoformat(),
        }
        self.http.post("/sandbox/graph/windows", json=asked).raise_for_status()

    def accepted(self, **query: Any) -> list[dict[str, Any]]:
        return list(self.http.get("/sandbox/accepted", params=query).raise_for_status().json()["accepted"])

    def told(self, field: str = "messages") -> list[dict[str, Any]]:
        """List the values of every change our webhook got since the test began."""
        return [
            change["value"]
            for got in list(self.webhook.received)
            for entry in got.body["entry"]
            for change in entry["changes"]
            if change["field"] == field
        ]

    def statuses(self, wamid: str) -> list[dict[str, Any]]:
        found = [one for value in self.told() for one in value.get("statuses", [])]
        return [one for one in found if one["id"] == wamid]


@pytest.fixture(scope="module")
def running(webhook: Webhook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meta]:
    story = tmp_path_factory.mktemp("graph") / "story.json"
    story.write_text(json.dumps(STORY), "utf-8")
    port = free_port()
    process, output = start_sandbox(
        {
            "SANDBOX_PORT": str(port),
            "SANDBOX_WEBHOOK_URL": webhook.url,
            "SANDBOX_APP_SECRET": APP_SECRET,
            "SANDBOX_STORY": str(story),
        }
    )
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as http:

        def is_up() -> bool:
            assert process.poll() is None, "\n".join(output)
            try:
                return http.get("/live").status_code == 200
            except httpx.TransportError:
                return False

        until(is_up, within_s=20, what="the sandbox answers")
        yield Meta(http, webhook, url)
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


@pytest.fixture
def meta(running: Meta) -> Meta:
    """The same as the story left it: nothing sent, nobody blocked, all windows closed, no faults."""
    running.break_()
    running.http.post("/sandbox/graph/reset").raise_for_status()
    until(lambda: running.http.get("/sandbox/deliveries").json()["pending"] == 0, what="nothing under way")
    running.webhook.answers.clear()
    running.webhook.received.clear()
    return running
