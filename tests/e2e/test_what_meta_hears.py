"""Everything our processes ask of Meta, and what the sandbox answers, held against Meta's own OpenAPI file.

Messages of every type are judged in tests/contract/test_sender_against_meta.py; here is all the rest, as the dispatcher
sends it: read marks, typing, files both ways, templates, blocks, numbers; and what the doctor asks.
"""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from PIL import Image

from tests.contract.meta_openapi.calls import judged, path_of
from tests.contract.meta_openapi.document import ABSENCE, FILE
from tests.e2e.conftest import Stack, until

pytestmark = pytest.mark.skipif(not FILE.exists(), reason=ABSENCE)

NUMBER, ACCOUNT = "/{Version}/{Phone-Number-ID}", "/{Version}/{WABA-ID}"
EXPECTED = {
    ("POST", f"{NUMBER}/messages"),
    ("POST", f"{NUMBER}/media"),
    ("GET", "/{Version}/{Media-ID}"),
    ("POST", f"{NUMBER}/block_users"),
    ("DELETE", f"{NUMBER}/block_users"),
    ("POST", f"{ACCOUNT}/message_templates"),
    ("GET", f"{ACCOUNT}/message_templates"),
    ("DELETE", f"{ACCOUNT}/message_templates"),
    ("POST", f"{ACCOUNT}/subscribed_apps"),
    ("GET", NUMBER),
    ("GET", ACCOUNT),
    ("GET", f"{ACCOUNT}/phone_numbers"),
    ("GET", f"{ACCOUNT}/subscribed_apps"),
}


CUSTOMER = {"name": "Noa", "wa_id": "5511955500177", "user_id": "BR.7712345670001"}


@pytest.fixture
async def meta(stack: Stack) -> AsyncIterator[Stack]:
    """The stack, with bodies kept in the sandbox's record, and reviews that take no time."""
    url = f"{stack.address('sandbox')}/sandbox/graph/behaviour"
    (await stack.http.put(url, json={"keep_bodies": True, "review_ms": 0})).raise_for_status()
    yield stack
    (await stack.http.put(url, json={})).raise_for_status()


async def test_every_request_and_answer_is_as_meta_describes_it(meta: Stack) -> None:
    earlier = len(await calls(meta))  # bodies were not kept
    conversation_id = await converse(meta)
    await send_and_get_pictures(meta, conversation_id)
    await write_a_template(meta)
    await block_and_unblock(meta, conversation_id)
    await connect_again(meta)
    assert await doctor(meta) == {"outcome": "ok", "amiss": []}
    story = meta.story["channels"]
    known = {
        "numbers": {one["phone_number_id"] for one in story},
        "accounts": {one["waba_id"] for one in story},
    }

    async def is_all_asked() -> bool:
        return not EXPECTED - {(call["method"], path_of(call, **known)) for call in (await calls(meta))[earlier:]}

    await until(is_all_asked, within_s=30, what="every kind of request was made")
    made = [(call, path_of(call, **known)) for call in (await calls(meta))[earlier:]]
    assert [problem for call, path in made if path for problem in judged(call, path)] == []


async def calls(stack: Stack) -> list[dict[str, Any]]:
    answer = await stack.http.get(f"{stack.address('sandbox')}/sandbox/graph/calls")
    return list(answer.json()["calls"])


async def ask(stack: Stack, process: str, path: str, body: object = None, **query: object) -> dict[str, Any]:
    answer = await stack.post(process, f"/api/whatsapp{path}", body, **query)
    assert answer.is_success, f"{path}: {answer.text}"
    return dict(answer.json())


async def converse(stack: Stack) -> str:
    """Let a customer write, show that somebody types, reply: a read mark, a typing indicator, a message."""
    wamid = await stack.send(**CUSTOMER, text="Do you have the monstera?")
    conversation_id = await stack.conversation_of(wamid)
    await ask(stack, "sender", "/typing", {"conversation_id": conversation_id})
    content = {"type": "text", "body": "We do."}
    await ask(stack, "sender", "/send", {"conversation_id": conversation_id, "content": content})
    return conversation_id


async def send_and_get_pictures(stack: Stack, conversation_id: str) -> None:
    """Send a file of ours, and let the customer send one."""
    media = await stack.upload(picture(), "image/jpeg", kind="image")
    content = {"type": "image", "media_id": media["id"]}
    await ask(stack, "sender", "/send", {"conversation_id": conversation_id, "content": content})
    await stack.send_file(**CUSTOMER, content=picture(), mime_type="image/jpeg")


async def write_a_template(stack: Stack) -> None:
    """Write a template with a picture above it, submit it, read all, delete it."""
    media = await stack.upload(picture(), "image/jpeg", kind="image")
    definition = {
        "name": f"new_plants_{secrets.token_hex(3)}",
        "language": "en_US",
        "category": "UTILITY",
        "header": {"format": "IMAGE", "handle": f"parley:{media['id']}"},
        "body": {"text": "Hi {{1}}, your plants are here.", "examples": {"1": "Noa"}},
        "footer": {"text": "Casa Verde"},
        "buttons": [{"type": "QUICK_REPLY", "text": "Thanks"}],
    }
    made = await ask(stack, "api", "/templates", {"definition": definition})
    path = f"/templates/{made['id']}"
    await ask(stack, "api", f"{path}/submit", {"version": made["version"]})
    template: dict[str, Any] = {}

    async def is_approved() -> bool:
        template.update(await stack.get(f"/api/whatsapp{path}"))
        return template["status"] == "approved"

    await until(is_approved, within_s=20, what="Meta has approved the template")
    await ask(stack, "api", "/templates/sync")
    await stack.delete("api", f"/api/whatsapp{path}", version=template["version"])


async def block_and_unblock(stack: Stack, conversation_id: str) -> None:
    conversations = (await stack.get("/api/whatsapp/conversations", limit=100))["items"]
    contact_id = next(one["contact"]["id"] for one in conversations if one["id"] == conversation_id)
    await ask(stack, "api", f"/contacts/{contact_id}/block")

    async def is_blocked_at_meta() -> bool:
        return any(call["path"].endswith("/block_users") for call in await calls(stack))

    await until(is_blocked_at_meta, within_s=20, what="Meta was asked to block the customer")
    await ask(stack, "api", f"/contacts/{contact_id}/unblock")


async def connect_again(stack: Stack) -> None:
    """Give the number its token anew: it is checked, and its account subscribed."""
    channel = stack.story["channels"][0]
    number = {
        "waba_id": channel["waba_id"],
        "phone_number_id": channel["phone_number_id"],
        "access_token": "sandbox-token",
    }
    await ask(stack, "api", "/channels", number)


async def doctor(stack: Stack) -> dict[str, Any]:
    """Let the doctor look at the whole stack; return what it finds amiss."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.local", "doctor", "--state-dir", str(stack.state_dir), "--", "--json"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    told = json.loads(output)
    return {"outcome": told["outcome"], "amiss": [one for one in told["checks"] if one["status"] != "ok"]}


def picture() -> bytes:
    kept = io.BytesIO()
    Image.new("RGB", (64, 48), "#2d6a4f").save(kept, "JPEG")
    return kept.getvalue()
