"""Token counts as Anthropic reports them, prompt caching included.

Source: Anthropic, "Prompt caching", as known in November 2026: tools, system and messages form one prefix; a mark
caches all up to and including its block; 5 minutes unless the mark says 1h, renewed by each use; `input_tokens` counts
neither what was read from the cache nor what was written to it. Simplified: no least
length (the real one is 1,024 tokens or more).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

MOST_PREFIXES = 5_000
TTL_S = {"5m": 300.0, "1h": 3_600.0}


def tokens(text: str) -> int:
    """Estimate tokens; four characters each."""
    return (len(text) + 3) // 4


def _blocks(request: dict[str, Any]) -> Iterator[tuple[str, float | None]]:
    """List the request's blocks in the order Anthropic caches them: (text, time to live if marked)."""
    contents: list[tuple[str, Any]] = [("tools", request.get("tools") or [])]
    contents.append(("system", request.get("system") or []))
    contents += [(str(turn.get("role")), turn.get("content")) for turn in request.get("messages", [])]
    for role, content in contents:
        for block in content if isinstance(content, list) else [content]:
            mark = block.get("cache_control") if isinstance(block, dict) else None
            text = (
                json.dumps({k: v for k, v in block.items() if k != "cache_control"})
                if isinstance(block, dict)
                else block
            )
            if isinstance(block, dict) and isinstance(block.get("text"), str):
                text = block["text"]
            yield f"{role}\n{text}", TTL_S.get(str(mark.get("ttl", "5m")), 300.0) if isinstance(mark, dict) else None


class PromptCache:
    """Which prefixes have been seen, and until when they are kept."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()
        self._now = now

    def usage(self, request: dict[str, Any], output: str) -> dict[str, object]:
        """Count one call and remember its marked prefixes."""
        digest = hashlib.sha256(str(request.get("model")).encode())
        blocks = list(_blocks(request))
        if blocks and isinstance(mark := request.get("cache_control"), dict):
            blocks[-1] = (blocks[-1][0], TTL_S.get(str(mark.get("ttl", "5m")), 300.0))
        total = cached = read = 0
        for text, ttl_s in blocks:
            digest.update(text.encode("utf-8", "surrogatepass"))
            total += tokens(text)
            if ttl_s is None:
                continue
            cached = total
            if self._until.get(key := digest.hexdigest(), 0.0) > self._now():
                read = total
            self._until[key] = self._now() + ttl_s
            self._until.move_to_end(key)
        while len(self._until) > MOST_PREFIXES:
            self._until.popitem(last=False)
        output_config = request.get("output_config")
        return {
            "input_tokens": total - cached + (tokens(json.dumps(output_config)) if output_config else 0),
            "cache_creation_input_tokens": cached - read,
            "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": cached - read, "ephemeral_1h_input_tokens": 0},
            "output_tokens": max(1, tokens(output)),
            "service_tier": "standard",
            "server_tool_use": None,
            "inference_geo": None,
        }
