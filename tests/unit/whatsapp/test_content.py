"""What a person would read of a message, and the file it carries, however much of either is missing."""

from __future__ import annotations

from typing import Any

import pytest

from shared.whatsapp.content import content_of, media_of
from shared.whatsapp.events import Media


@pytest.mark.parametrize("body", [None, {}, {"body": None}, {"body": ["x"]}, {"body": ""}, "x", ["x"], 7])
def test_a_text_without_a_body_has_no_content(body: object) -> None:
    assert content_of("text", {"text": body}) is None


@pytest.mark.parametrize(
    ("kind", "sent", "content"),
    [
        ("text", {"body": 42}, "42"),
        ("text", {"body": "x" * 70_000}, "x" * 65_536),
        ("image", {}, None),
        ("video", {"caption": ""}, None),
        ("document", {"caption": "Signed"}, "Signed"),
        ("sticker", {"caption": "?"}, None),
        ("location", {"name": "Dock"}, "Dock"),
        ("location", {"address": "1 Dock St", "latitude": 1}, "1 Dock St"),
        ("location", {"latitude": 1, "longitude": -2.5}, "1, -2.5"),
        ("location", {"latitude": 1}, None),
        ("location", {"latitude": True, "longitude": {}}, None),
        ("contacts", [], None),
        ("contacts", {}, None),
        ("contacts", [None, {}, {"name": "x"}, {"name": {"first_name": "A", "last_name": "B"}}], "A B"),
        ("contacts", [{"phones": [{"phone": "1"}, {}, None, {"phone": "2"}]}], "1, 2"),
        ("interactive", {"type": "button_reply"}, None),
        ("interactive", {"type": "list_reply", "list_reply": {"description": "d"}}, None),
        ("interactive", {"type": "hologram_reply", "hologram_reply": {"title": "Yes"}}, "Yes"),
        ("interactive", {"type": "nfm_reply", "nfm_reply": {"name": "flow"}}, "flow"),
        ("interactive", {"type": "button", "body": {"text": "Which one?"}}, "Which one?"),
        ("interactive", {"type": ["x"]}, None),
        ("button", {"payload": "P"}, None),
        ("order", {"product_items": [{}, {}]}, "2 items"),
        ("order", {"product_items": [{}]}, "1 item"),
        ("order", {"text": "", "product_items": []}, None),
        ("unsupported", {"type": "poll_creation"}, None),
        ("future", {"body": "x"}, None),
        ("", {"body": "x"}, None),
    ],
)
def test_what_is_read_of_a_message(kind: str, sent: object, content: str | None) -> None:
    assert content_of(kind, {kind: sent}) == content


HASH = "94987e0761426af860c626187a441cf4ece86e6bed36b43856cb805e0e3ec99b"


@pytest.mark.parametrize(
    ("sha256", "stored"),
    [
        ("lJh+B2FCavhgxiYYekQc9OzobmvtNrQ4VsuAXg4+yZs=", HASH),
        (HASH, HASH),
        (HASH.upper(), HASH),
        ("lJh+B2FCavhgxiYYekQc9Ozo", None),  # too short
        ("!" * 64, None),
        ("ф" * 44, None),
        (HASH[:-2] + "  ", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_a_hash_is_lower_case_hex_whatever_meta_sent(sha256: object, stored: str | None) -> None:
    assert media_of("image", {"image": {"id": "1", "sha256": sha256}}) == Media("1", "image", sha256=stored)


@pytest.mark.parametrize("sent", [None, {}, {"id": ""}, {"id": "x" * 600}, "x", []])
def test_a_file_without_an_id_is_none(sent: object) -> None:
    assert media_of("image", {"image": sent}) is None


@pytest.mark.parametrize(
    ("kind", "differs", "expected"),
    [
        ("voice", {}, {"kind": "audio", "is_voice": True}),
        ("audio", {"voice": True}, {"kind": "audio", "is_voice": True}),
        ("audio", {"voice": "yes"}, {"kind": "audio"}),
        ("sticker", {"animated": True}, {"kind": "sticker", "is_animated": True}),
        ("document", {"filename": "../a"}, {"kind": "document", "filename": "../a"}),
        ("document", {"filename": ""}, {"kind": "document"}),
    ],
)
def test_what_a_file_says_of_itself(kind: str, differs: dict[str, Any], expected: dict[str, Any]) -> None:
    assert media_of(kind, {kind: {"id": 7} | differs}) == Media("7", **expected)


def test_a_text_carries_no_file() -> None:
    assert media_of("text", {"text": {"id": "1"}}) is None
