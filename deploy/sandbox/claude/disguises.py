"""Reading a text through the disguises in which orders are smuggled past a filter. Pure."""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import unquote

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[ :]?){10,}")
_ESCAPES = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_SPACED = re.compile(r"\b(?:\w[ .\-_]){4,}\w\b")
_MIXED_WORD = re.compile(r"\b(?=\w*[A-Za-z])(?=\w*[013457@$])[\w@$]{3,}")
_LEET = str.maketrans("013457@$", "oieastas")
# Letters of other scripts that look like Latin ones: Cyrillic, then Greek.
_LOOK_ALIKES = str.maketrans(
    "аеорсухіјѕԁһԛԝАВЕКМНОРСТХІЅ" + "αορντικΑΒΕΗΙΚΜΝΟΡΤΧ",
    "aeopcyxijsdhqwABEKMHOPCTXIS" + "aopvtikABEHIKMNOPTX",
)
_TAGS = {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}  # invisible, each stands for an ASCII letter
_IMPERATIVES = re.compile(r"\b(ignore|reply|answer|priority|intent|say|repeat|output|responda|antworte)\b", re.I)


def plain(text: str) -> str:
    """Undo what only changes a text's looks: full-width and look-alike letters, invisible signs, spacing."""
    shown = unicodedata.normalize("NFKC", text.translate(_TAGS)).translate(_LOOK_ALIKES)
    shown = "".join(mark for mark in shown if unicodedata.category(mark) != "Cf")
    return _SPACED.sub(lambda run: re.sub(r"[ .\-_]", "", run.group()), shown)


def readings(text: str) -> Iterator[str]:
    """List every way to read a text, itself first; what is wrapped twice is unwrapped twice."""
    seen = {text}
    waiting = [(text, 0)]
    while waiting:
        current, depth = waiting.pop(0)
        yield current
        if depth == 2:
            continue
        for other in _unwrapped(current):
            if other.strip() and other not in seen and len(seen) < 40:
                seen.add(other)
                waiting.append((other, depth + 1))


def _unwrapped(text: str) -> Iterator[str]:
    yield plain(text)
    yield _MIXED_WORD.sub(lambda word: word.group().translate(_LEET), text)
    yield html.unescape(text)
    yield unquote(text)
    yield _ESCAPES.sub(lambda escape: chr(int(escape.group(1) or escape.group(2), 16)), text)
    for found in _BASE64.findall(text):
        yield from _decoded(_from_base64, found)
    for found in _HEX.findall(text):
        yield from _decoded(bytes.fromhex, re.sub(r"[ :]", "", found))
    for turned in (codecs.decode(text, "rot13"), text[::-1]):
        if _IMPERATIVES.search(turned) and not _IMPERATIVES.search(text):
            yield turned


def _from_base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.translate(str.maketrans("+/", "-_")) + "=" * (-len(text) % 4))


def _decoded(decode: Callable[[str], bytes], wrapped: str) -> Iterator[str]:
    try:
        text = decode(wrapped).decode("utf-8")
    except (ValueError, binascii.Error):
        return
    if text.isprintable() or "\n" in text:
        yield text
