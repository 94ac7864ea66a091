"""The sender's own code talks to the sandbox; both sides of every exchange are held against Meta's OpenAPI.

What is judged went over the wire: it comes off the sandbox's record (behaviour `keep_bodies`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.sender.graph import Graph, open_graph
from services.sender.request_body import request_body
from shared.settings.clocks import Clocks
from shared.store.outbox import ClaimedMessage
from shared.whatsapp.outbound import Content, Phone, to_graph
from shared.whatsapp.outbound.header import Header
from shared.whatsapp.outbound.interactive import Buttons, ReplyButton
from shared.whatsapp.outbound.media import Audio, Document, Image, Sticker, Video
from shared.whatsapp.outbound.template import FileValue, Template
from shared.whatsapp.outbound.text import Text
from tests.contract.meta_graph import GOOD, KESTREL, MAREN, NUMBER, VERSION, Meta, meta, running
from tests.contract.meta_openapi.calls import judged
from tests.contract.meta_openapi.document import ABSENCE, FILE
from tests.unit.whatsapp.contents import EVERY_CONTENT, WAMID, named, template, texts

__all__ = ["meta", "running"]  # fixtures
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=ABSENCE)

MESSAGE_ID = "019aa8c1-3a10-7e84-b1c5-4f60d29a7203"
CALLBACK_DATA = f"{MESSAGE_ID}.1"
MESSAGES = "/{Version}/{Phone-Number-ID}/messages"


def claimed(content: Content, **more: Any) -> ClaimedMessage:
    """Return a message as a dispatcher claims it: what is said stands in its payload, whom to beside it."""
    row: dict[str, Any] = {
        "workspace_id": "019aa8c1-3a10-7e84-b1c5-4f60d29a7201",
        "outbox_id": "019aa8c1-3a10-7e84-b1c5-4f60d29a7202",
        "message_id": MESSAGE_ID,
        "channel_id": "019aa8c1-3a10-7e84-b1c5-4f60d29a7204",
        "attempt": 1,
        "wa_id": MAREN,
        "user_id": None,
        "group_id": None,
        "payload": content.graph(),
        "reply_to": None,
        "files": {},
        "put_off": 0,
        "throttled": 0,
        "queued_ms": 3,
        "priority": 2,
        "is_marketing": False,
    }
    return ClaimedMessage(**row | more)


@pytest.fixture
async def graph(meta: Meta) -> AsyncIterator[Graph]:
    meta.behave(keep_bodies=True, window="off", pair_limit="off")
    async with open_graph(meta.url + VERSION, clocks=Clocks(), connections=4) as opened:
        yield opened


async def say(graph: Graph, meta: Meta, message: ClaimedMessage) -> dict[str, Any]:
    """Send it as the dispatcher does; return the call as the sandbox recorded it."""
    await graph.post(f"{NUMBER}/messages", request_body(message), token=GOOD)
    call: dict[str, Any] = meta.http.get("/sandbox/graph/calls").json()["calls"][-1]
    return call


@pytest.mark.parametrize("content", EVERY_CONTENT, ids=named)
async def test_every_message_and_its_answer_are_as_meta_describes_them(
    graph: Graph, meta: Meta, content: Content
) -> None:
    by_number = await say(graph, meta, claimed(content))
    by_user_id = await say(graph, meta, claimed(content, wa_id=None, user_id=KESTREL))

    assert (judged(by_number, MESSAGES), judged(by_user_id, MESSAGES)) == ([], [])
    assert by_number["request"] == to_graph(content, to=Phone(number=MAREN), callback_data=CALLBACK_DATA)
    assert by_number["code"] == refusal_of(content)


def refusal_of(content: Content) -> int | None:
    """Nobody has one of the templates at Meta, and one is sent without the picture it needs."""
    if not isinstance(content, Template):
        return None
    if content.name == "everything":
        return 132001
    return 132012 if content.name == "autumn_sale" and content.header is None else None


async def test_a_reply_and_a_message_to_a_group_are_as_meta_describes_them(graph: Graph, meta: Meta) -> None:
    reply = await say(graph, meta, claimed(Text(body="Yes"), reply_to=WAMID))
    to_group = await say(graph, meta, claimed(Text(body="Meet at 8."), wa_id=None, group_id="Y2FwZS1tYXk"))

    assert (judged(reply, MESSAGES), judged(to_group, MESSAGES)) == ([], [])
    assert reply["request"]["context"] == {"message_id": WAMID}
    assert to_group["answer"]["messages"][0]["group_id"] == "Y2FwZS1tYXk"


OURS = "019aa8c1-7000-7000-8000-000000000001"
# What is said with a file of ours, and the end of the id under which the sandbox knows such a file.
WITH_FILES: list[tuple[Content, str]] = [
    (Image(media_id=OURS, caption="c"), "655"),
    (Audio(media_id=OURS, is_voice=True), "701"),
    (Video(media_id=OURS), "702"),
    (Document(media_id=OURS, filename="invoice.pdf"), "703"),
    (Sticker(media_id=OURS), "704"),
    (
        Buttons(
            body="b", header=Header(type="image", media_id=OURS), buttons=(ReplyButton(id="parley:yes", title="Yes"),)
        ),
        "655",
    ),
    (
        template("invoice_ready", header=FileValue(type="document", media_id=OURS, filename="i.pdf"), body=texts("7")),
        "703",
    ),
]


@pytest.mark.parametrize(("content", "ending"), WITH_FILES, ids=lambda value: named(value) if value else None)
async def test_a_file_of_ours_leaves_under_the_id_meta_knows_it_by(
    graph: Graph, meta: Meta, content: Content, ending: str
) -> None:
    call = await say(graph, meta, claimed(content, files={OURS: f"7301884420196{ending}"}))

    assert judged(call, MESSAGES) == []
    assert call["status"] == 200
    assert OURS not in str(call["request"])
