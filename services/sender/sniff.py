"""What a file is, by its bytes and never by its name: exact for what WhatsApp carries, a good guess for the rest.

Read by us and not left to puremagic, which goes by first bytes alone (1.30, tried 2026-11-24 on samples of each): every
Office file of old is a .doc to it, every zip a .docx, ogg may hold anything, mp4 may hold sound only, and a program for
Windows is "application/octet-stream". It names what we do not look for.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

import puremagic

from services.sender.containers import mp4_type, ole_type, zip_type
from shared.storage.file_names import ACTIVE, essence

_HEAD_BYTES = 64 * 1024  # looked at; containers are followed further
_ID3_HEADER_BYTES = 10

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"#!AMR\n", "audio/amr"),
    (b"#!AMR-WB\n", "audio/amr-wb"),
    (b"%PDF-", "application/pdf"),
    (b"MZ", "application/vnd.microsoft.portable-executable"),
    (b"\x7fELF", "application/x-elf"),
    (b"\xca\xfe\xba\xbe", "application/x-mach-binary"),
    (b"\xce\xfa\xed\xfe", "application/x-mach-binary"),
    (b"\xcf\xfa\xed\xfe", "application/x-mach-binary"),
    (b"#!", "text/x-shellscript"),
    (b"{\\rtf", "application/rtf"),
)
# What a browser takes for HTML. Source: WHATWG, MIME Sniffing Standard, 7.1, read 2026-11-24.
_HTML = re.compile(
    rb"\s*(?:<!doctype html|<html|<head|<script|<iframe|<h1|<div|<font|<table|<a|<style|<title|<b|<body|<br|<p)[\s>]",
    re.IGNORECASE,
)
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)
_COMMENT = re.compile(rb"\s*<!--.*?(?:-->|\Z)", re.DOTALL)
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # of ESC and form feed some text files are made

# What `sniff` is sure about: said to be one of these and found to be something else, a file is not what was said.
_EXACT = frozenset(
    {
        "image/jpeg", "image/png", "image/webp", "image/gif", "audio/aac", "audio/amr", "audio/mpeg", "audio/mp4",
        "audio/ogg", "video/mp4", "video/3gpp", "application/pdf", "application/msword", "application/vnd.ms-excel",
        "application/vnd.ms-powerpoint",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    }
)  # fmt: skip


def sniff(file: BinaryIO) -> str | None:
    """Return the media type of a file that can be sought in, with `codecs` where they matter; None: unknown."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    return (
        _by_start(head)
        or _by_container(head, file)
        or _sound(head, file)
        or _marked_up(head)
        or (None if _is_text(head) else _other(head))
        or ("text/plain" if _is_text(head) else None)
    )


def is_animated(file: BinaryIO) -> bool:
    """Say whether a WebP moves: the flag of its extended header. Source: Google, "WebP Container Specification"."""
    file.seek(0)
    head = file.read(21)
    return head[12:16] == b"VP8X" and len(head) == 21 and bool(head[20] & 0x02)


def is_mismatch(said: str | None, sniffed: str | None) -> bool:
    """Say whether a file is not what it was said to be. What we cannot tell apart is given the benefit of the doubt."""
    if said is None or sniffed is None or essence(said) == essence(sniffed):
        return False
    return essence(said) in _EXACT or essence(sniffed) in ACTIVE


def _by_start(head: bytes) -> str | None:
    if head[:2] == b"MZ" and _is_text(head):
        return None  # a note may begin so; a program has zeros in its first line
    return next((kind for start, kind in _STARTS if head.startswith(start)), None)


def _by_container(head: bytes, file: BinaryIO) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[:4] == b"OggS":
        return _ogg(head)
    if head[4:8] == b"ftyp":
        return mp4_type(file)
    if head[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        return ole_type(file)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return zip_type(file)
    return None


def _ogg(head: bytes) -> str:
    """Look into the first page: 27 bytes and a table of segments, then the codec's header. Source: RFC 3533, 7845."""
    first = head[27 + (head[26] if len(head) > 26 else 0) :][:8]
    for start, kind in (
        (b"OpusHead", "audio/ogg; codecs=opus"),
        (b"\x01vorbis", "audio/ogg; codecs=vorbis"),
        (b"\x80theora", "video/ogg"),
    ):
        if first.startswith(start):
            return kind
    return "application/ogg"


def _sound(head: bytes, file: BinaryIO) -> str | None:
    """Tell MP3 and AAC by their frames, after an ID3 tag if there is one: 12 bits of ones, then the layer."""
    tagged = head[:3] == b"ID3" and len(head) >= _ID3_HEADER_BYTES
    if tagged:
        sizes = head[6:_ID3_HEADER_BYTES]
        file.seek(_ID3_HEADER_BYTES + (sizes[0] << 21 | sizes[1] << 14 | sizes[2] << 7 | sizes[3]))
        head = file.read(8)
    frame = head[:4]
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return "audio/mpeg" if tagged else None
    layer = frame[1] >> 1 & 0b11
    if frame[1] & 0xF0 == 0xF0 and layer == 0b00:
        rate = frame[2] >> 2 & 0b1111
        return "audio/aac" if rate < 13 else None
    is_valid = layer == 0b01 and frame[2] >> 4 not in (0, 15) and frame[2] >> 2 & 0b11 != 3
    return "audio/mpeg" if is_valid else None


def _marked_up(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf")
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = text[2:].replace(b"\x00", b"")  # UTF-16: enough to see tags
    while comment := _COMMENT.match(text):
        text = text[comment.end() :]
    if _SVG.match(text.lstrip()):
        return "image/svg+xml"
    if text.lstrip()[:5].lower() == b"<?xml":
        return "image/svg+xml" if _SVG.search(text) else "text/xml"
    return "text/html" if _HTML.match(text) else None


def _is_text(head: bytes) -> bool:
    """Take for text what has no control characters; in UTF-16, what decodes with a mark at its start."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return "\x00" not in head[: len(head) // 2 * 2].decode("utf-16")
        except UnicodeDecodeError:
            return False
    return bool(head) and _CONTROLS.search(head) is None


def _other(head: bytes) -> str | None:
    try:
        guesses = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError, struct.error):
        return None
    best = guesses[0].mime_type if guesses else ""
    # A container we looked into and did not know, or a type we would have known: its first bytes say nothing more.
    return None if not best or essence(best) in _EXACT else best
