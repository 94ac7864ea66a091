"""What the Messages API says of a picture it cannot take. Source: Anthropic, "Vision", November 2026."""

from __future__ import annotations

import base64
import binascii
from typing import Any

MOST_BASE64 = 5 * 1024 * 1024
_STARTS = {
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}


def image_problem(turns: list[Any]) -> str | None:
    """Return the API's sentence about the first picture it would refuse, or None."""
    for at, turn in enumerate(turns):
        content = turn.get("content") if isinstance(turn, dict) else None
        for index, block in enumerate(content if isinstance(content, list) else []):
            if isinstance(block, dict) and block.get("type") == "image" and (problem := _problem(block.get("source"))):
                return f"messages.{at}.content.{index}.image.source: {problem}"
    return None


def _problem(source: object) -> str | None:
    if not isinstance(source, dict) or source.get("type") != "base64":
        return "the sandbox fetches nothing; send base64"
    starts = _STARTS.get(str(source.get("media_type")))
    data = source.get("data")
    if starts is None:
        return f"media_type: Input should be {', '.join(_STARTS)}"
    if not isinstance(data, str) or len(data) > MOST_BASE64:
        return "image exceeds 5 MB maximum"
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return "data: invalid base64"
    return None if content.startswith(starts) else "Could not process image"
