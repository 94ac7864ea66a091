"""Reads docker-compose.yml without a YAML library: the part of YAML 1.2 that our file is written in, and no more.

Mappings and lists by indentation, flow lists and mappings on one line, `|` blocks, quotes, anchors, aliases and merges.
Anything else is an error. PyYAML read the same from our file (tried 2026-11-23).
"""

from __future__ import annotations

import re
from typing import Any


class _Lines:
    def __init__(self, text: str) -> None:
        self._lines = [(len(line) - len(line.lstrip()), line.strip(), line) for line in text.splitlines()]
        self.at = 0
        self.anchors: dict[str, Any] = {}

    def peek(self) -> tuple[int, str] | None:
        while self.at < len(self._lines):
            indent, text, _ = self._lines[self.at]
            if text and not text.startswith("#"):
                return indent, text
            self.at += 1
        return None

    def block(self, parent: int) -> str:
        taken = []
        while self.at < len(self._lines) and (self._lines[self.at][0] > parent or not self._lines[self.at][1]):
            taken.append(self._lines[self.at][2].strip())
            self.at += 1
        return "\n".join(taken).strip() + "\n"


def read_compose(text: str) -> dict[str, Any]:
    """Return the document. Raises: ValueError for what this does not know."""
    lines = _Lines(text)
    document = _node(lines, -1)
    if lines.peek() is not None or not isinstance(document, dict):
        raise ValueError(f"line {lines.at + 1}: not understood")
    return document


def _node(lines: _Lines, parent: int) -> Any:
    found = lines.peek()
    if found is None or found[0] <= parent:
        return None
    return _list(lines, found[0]) if found[1].startswith("- ") else _mapping(lines, found[0])


def _list(lines: _Lines, indent: int) -> list[Any]:
    items = []
    while (found := lines.peek()) is not None and found[0] == indent and found[1].startswith("- "):
        lines.at += 1
        items.append(_value(lines, found[1][2:].strip(), indent))
    return items


def _mapping(lines: _Lines, indent: int) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    own: dict[str, Any] = {}
    while (found := lines.peek()) is not None and found[0] == indent:
        key, separator, rest = found[1].partition(":")
        if not separator or (rest and not rest.startswith(" ")):
            raise ValueError(f"line {lines.at + 1}: not understood: {found[1]}")
        lines.at += 1
        anchor = re.match(r"\s*&([\w-]+)\s*", rest)
        rest = rest[anchor.end() :] if anchor else rest.strip()
        value = _value(lines, rest, indent)
        if anchor:
            lines.anchors[anchor[1]] = value
        if key == "<<":
            for source in value if isinstance(value, list) else [value]:
                merged = source | merged
        else:
            own[key] = value
    return merged | own


def _value(lines: _Lines, text: str, indent: int) -> Any:
    text = text.strip()
    if not text or text.startswith("#"):
        return _node(lines, indent)
    if text == "|":
        return lines.block(indent)
    value, rest = _flow(lines, text)
    if rest and not rest.lstrip().startswith("#"):
        raise ValueError(f"line {lines.at}: not understood: {rest}")
    return value


def _flow(lines: _Lines, text: str, stops: str = "") -> tuple[Any, str]:
    """Read one value off the start of a line; return it with what follows."""
    if text[0] == "[":
        items, rest = [], text[1:].lstrip()
        while rest[0] != "]":
            item, rest = _flow(lines, rest, ",]")
            items.append(item)
            rest = rest.lstrip().removeprefix(",").lstrip()
        return items, rest[1:]
    if text[0] == "{":
        mapping, rest = {}, text[1:].lstrip()
        while rest[0] != "}":
            key, rest = _flow(lines, rest, ":")
            mapping[key], rest = _flow(lines, rest[1:].lstrip(), ",}")
            rest = rest.lstrip().removeprefix(",").lstrip()
        return mapping, rest[1:]
    if text[0] in "\"'":
        end = text.index(text[0], 1)
        return text[1:end], text[end + 1 :]
    found = re.match(rf"[^{re.escape(stops)}]*" if stops else r"(?:(?! #).)*", text)
    assert found is not None
    plain = found[0].strip()
    rest = text[found.end() :]
    if plain.startswith("*"):
        return lines.anchors[plain[1:]], rest
    if re.fullmatch(r"-?\d+", plain):
        return int(plain), rest
    return {"true": True, "false": False, "null": None}.get(plain, plain), rest
