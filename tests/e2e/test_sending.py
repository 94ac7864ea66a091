"""An agent answers, and the customer's phone shows it: from POST /send over the outbox to Meta's stand-in and back."""

from __future__ import annotations

import io
import secrets
from typing import Any

from PIL import Image

from tests.e2e.conftest import Stack, until

NOBODY_YET = "12025550164"  # has never written


async def become(stack: Stack, status: str, sent: dict[str, Any]) -> dict[str, Any]:
    """Wait until a message has that status; return it as the API shows it then."""
    found: dict[str, Any] = {}

    async def is_so() -> bool:
        found.update(await stack.message(sent["id"], sent["conversation_id"]))
        return found.get("status") == status

    await until(is_so, within_s=20, what=f"the message is {status}")
    return found


async def test_a_reply_is_shown_delivered_and_read(stack: Stack) -> None:
    user_id = f"BR.66{secrets.randbelow(10**9):09}"
    wamid = await stack.send(name="Lia", wa_id="5511955500166", user_id=user_id, text="Is the fern still there?")
    conversation_id = await stack.conversation_of(wamid)

    asked = {
        "conversation_id": conversation_id,
        "content": {"type": "text", "body": "It is, until Friday."},
        "reply_to": wamid,
    }
    answer = await stack.post("sender", "/api/whatsapp/send", asked)

    assert (answer.status_code, answer.json()["status"]) == (202, "queued"), answer.text
    read = await become(stack, "read", answer.json())
    (shown,) = await stack.phone(user_id)
    assert (shown["wamid"], shown["content"], shown["reply_to"]) == (
        read["wamid"],
        {"body": "It is, until Friday."},
        wamid,
    )
    assert read["sending"] is None


async def test_a_template_opens_a_conversation_where_a_text_may_not(stack: Stack) -> None:
    channel_id = (await stack.get("/api/whatsapp/channels"))["items"][0]["id"]
    to = {"channel_id": channel_id, "to": {"kind": "phone", "number": NOBODY_YET}}
    template = await _approved_template(stack)

    refused = await stack.post("sender", "/api/whatsapp/send", to | {"content": {"type": "text", "body": "Hello"}})
    taken = await stack.post(
        "sender",
        "/api/whatsapp/send",
        to | {"template": {"id": template["id"], "values": {"body": {"1": "Noa", "2": "Friday"}}}},
    )

    assert (refused.status_code, refused.json()["code"]) == (422, "reply_window_closed"), refused.text
    assert template["id"] in [one["id"] for one in refused.json()["templates"]]
    assert taken.status_code == 202, taken.text
    delivered = await become(stack, "read", taken.json())
    assert delivered["content"] == "Hi Noa, your plants arrive on Friday. See you then!"


async def test_pictures_go_both_ways(stack: Stack) -> None:
    user_id = f"BR.67{secrets.randbelow(10**9):09}"
    who = {"name": "Rui", "wa_id": "5511955500167", "user_id": user_id}
    theirs, ours = picture("#e8c04a"), picture("#2d6a4f")
    wamid = await stack.send_file(**who, content=theirs, mime_type="image/jpeg")
    conversation_id = await stack.conversation_of(wamid)
    uploaded = await stack.upload(ours, "image/jpeg", kind="image")

    asked = {
        "conversation_id": conversation_id,
        "content": {"type": "image", "media_id": uploaded["id"], "caption": "This one?"},
    }
    answer = await stack.post("sender", "/api/whatsapp/send", asked)

    assert answer.status_code == 202, answer.text
    await become(stack, "read", answer.json())
    (shown,) = await stack.phone(user_id)
    on_the_phone = await stack.http.get(f"{stack.address('sandbox')}/sandbox/media/{shown['content']['id']}")
    assert (on_the_phone.content, shown["content"]["caption"]) == (ours, "This one?")
    assert await _served(stack, wamid) == theirs


async def _served(stack: Stack, wamid: str) -> bytes:
    """Wait until a customer's file was fetched from Meta; return what its signed address serves, without a sign-in."""
    found: dict[str, Any] = {}

    async def is_stored() -> bool:
        (message,) = [m for m in await stack.messages() if m["wamid"] == wamid]
        found.update(message["media"][0])
        return found["state"] == "stored"

    await until(is_stored, within_s=20, what="the customer's picture is fetched")
    told = await stack.get_from("sender", f"/api/whatsapp/media/{found['id']}")
    served = await stack.http.get(told["url"])
    assert served.headers["content-disposition"].startswith("attachment")
    return served.content


def picture(colour: str) -> bytes:
    kept = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(kept, "JPEG")
    return kept.getvalue()


async def _approved_template(stack: Stack) -> dict[str, Any]:
    """Write a template, hand it to Meta, wait for its review."""
    text = "Hi {{1}}, your plants arrive on {{2}}. See you then!"
    body = {"text": text, "examples": {"1": "Ana", "2": "Monday"}}
    definition = {"name": f"arrival_{secrets.token_hex(3)}", "language": "en_US", "category": "UTILITY", "body": body}
    made = await stack.post("api", "/api/whatsapp/templates", {"definition": definition})
    assert made.status_code == 201, made.text
    path = f"/api/whatsapp/templates/{made.json()['id']}"
    submitted = await stack.post("api", f"{path}/submit", {"version": made.json()["version"]})
    assert submitted.status_code == 202, submitted.text
    template: dict[str, Any] = {}

    async def is_approved() -> bool:
        template.update(await stack.get(path))
        return template["status"] == "approved"

    await until(is_approved, within_s=20, what="Meta has approved the template")
    return template
