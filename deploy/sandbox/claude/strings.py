"""Strings that obey a schema: formats, patterns, lengths."""

from __future__ import annotations

import hashlib
import re

# CPython's own parser of regular expressions; there is no public one, and 3.11 to 3.14 have it under these names.
from re import _constants as opcodes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

FORMATS = {
    "date-time": "2030-01-01T09:00:00Z",
    "date": "2030-01-01",
    "time": "09:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}
_PRINTABLE = [
    chr(code) for code in (*range(97, 123), *range(65, 91), *range(48, 58), 32, *range(33, 48), *range(58, 65))
]


def format_example(name: str, text: str) -> str | None:
    """Return a value of a JSON Schema string format; None for a format that says nothing."""
    if name == "uuid":
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"
    return FORMATS.get(name)


def matching(pattern: str, candidates: list[str]) -> str | None:
    """Return a string the pattern finds itself in: the first candidate that fits, else one built from the pattern.

    None when the pattern is beyond this (look-around, back-references, syntax Python does not share).
    """
    try:
        compiled = re.compile(pattern)
        for candidate in candidates:
            if compiled.search(candidate):
                return candidate
        built = _build(parser.parse(pattern))
        return built if compiled.search(built) else None
    except (re.error, NotImplementedError, RecursionError, OverflowError):
        return None


def _build(parsed: Any) -> str:
    return "".join(_one(opcode, argument) for opcode, argument in parsed)


def _one(opcode: Any, argument: Any) -> str:
    if opcode is opcodes.LITERAL:
        return chr(int(argument))
    if opcode is opcodes.NOT_LITERAL:
        return next(char for char in _PRINTABLE if char != chr(argument))
    if opcode is opcodes.ANY:
        return "a"
    if opcode is opcodes.IN:
        return _from_set(argument)
    if opcode in (opcodes.MAX_REPEAT, opcodes.MIN_REPEAT, opcodes.POSSESSIVE_REPEAT):
        least, _, body = argument
        return _build(body) * int(least)
    if opcode is opcodes.SUBPATTERN:
        return _build(argument[-1])
    if opcode is opcodes.BRANCH:
        return _build(argument[1][0])
    if opcode is opcodes.AT:
        return ""
    raise NotImplementedError(str(opcode))


def _from_set(members: Any) -> str:
    """Pick the first printable character of a character set."""
    negated = members[0][0] is opcodes.NEGATE
    chosen = members[1:] if negated else members
    for char in _PRINTABLE:
        if any(_is_member(char, member) for member in chosen) is not negated:
            return char
    if not negated and chosen[0][0] in (opcodes.LITERAL, opcodes.RANGE):
        first = chosen[0][1]
        return chr(int(first if isinstance(first, int) else first[0]))
    raise NotImplementedError("a set without a printable character")


def _is_member(char: str, member: Any) -> bool:
    opcode, argument = member
    if opcode is opcodes.LITERAL:
        return ord(char) == int(argument)
    if opcode is opcodes.RANGE:
        return bool(argument[0] <= ord(char) <= argument[1])
    classes = {
        opcodes.CATEGORY_DIGIT: char.isdigit(),
        opcodes.CATEGORY_NOT_DIGIT: not char.isdigit(),
        opcodes.CATEGORY_SPACE: char.isspace(),
        opcodes.CATEGORY_NOT_SPACE: not char.isspace(),
        opcodes.CATEGORY_WORD: char.isalnum() or char == "_",
        opcodes.CATEGORY_NOT_WORD: not (char.isalnum() or char == "_"),
    }
    return classes[argument]


def fit_length(text: str, least: int, most: int | None) -> str:
    """Bring a text within its bounds: cut at a word where possible, padded with spaces' visible cousin, dots."""
    if most is not None and len(text) > most:
        cut = text[:most]
        at_word = cut.rsplit(" ", 1)[0]
        text = at_word if len(at_word) >= max(least, most // 2, 1) else cut
    return text + "." * (least - len(text))
