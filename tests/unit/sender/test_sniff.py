"""What a file is, told by its bytes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sender.inspect_file import inspect_file
from services.sender.sniff import is_animated, is_mismatch, sniff
from shared.domain.errors import Rejected
from shared.whatsapp.outbound.media import FileKind

from . import file_samples as samples

_OOXML = "application/vnd.openxmlformats-officedocument."
# kind, type, content: one of each type WhatsApp takes, from real encoders where that matters.
TAKEN: list[tuple[FileKind, str, bytes]] = [
    ("audio", "audio/aac", samples.recorded("a.aac")),
    ("audio", "audio/amr", samples.recorded("a.amr")),
    ("audio", "audio/mpeg", samples.recorded("a.mp3")),
    ("audio", "audio/mpeg", samples.recorded("tagged.mp3")),
    ("audio", "audio/mp4", samples.recorded("a.m4a")),
    ("audio", "audio/mp4", samples.recorded("sound_only.mp4")),
    ("audio", "audio/ogg; codecs=opus", samples.recorded("a.ogg")),
    ("image", "image/jpeg", samples.picture("JPEG")),
    ("image", "image/png", samples.picture("PNG", mode="RGBA")),
    ("video", "video/mp4", samples.recorded("v.mp4")),
    ("video", "video/3gpp", samples.recorded("v.3gp")),
    ("document", "text/plain", "Olá, até já.\n".encode()),
    ("document", "text/plain", "\ufeffOlá".encode("utf-16")),
    ("document", "text/plain", "Grüße".encode("cp1252")),
    ("document", "text/plain", b"MZ is how this note begins."),
    ("document", "application/pdf", samples.PDF),
    ("document", "application/msword", samples.ole("WordDocument", "1Table")),
    ("document", "application/vnd.ms-excel", samples.recorded("a.xls")),
    ("document", "application/vnd.ms-powerpoint", samples.ole("Current User", "PowerPoint Document")),
    ("document", _OOXML + "wordprocessingml.document", samples.ooxml("word/document.xml")),
    ("document", _OOXML + "spreadsheetml.sheet", samples.ooxml("xl/workbook.xml")),
    ("document", _OOXML + "presentationml.presentation", samples.ooxml("ppt/presentation.xml")),
    ("sticker", "image/webp", samples.picture("WEBP")),
    ("sticker", "image/webp", samples.picture("WEBP", frames=2)),
]
VORBIS = b"OggS\0\2" + b"\0" * 20 + b"\1\x1e\1vorbis" + b"\0" * 20
# kind, what it is, content, the refusal's code.
REFUSED: list[tuple[FileKind, str | None, bytes, str]] = [
    ("image", "text/html", samples.HTML, "file_unsupported_format"),
    ("document", "text/html", samples.HTML, "file_unsupported_format"),
    ("image", "image/svg+xml", samples.SVG, "file_unsupported_format"),
    ("document", "application/vnd.microsoft.portable-executable", samples.EXE, "file_unsupported_format"),
    ("document", "application/x-elf", samples.ELF, "file_unsupported_format"),
    ("document", "text/x-shellscript", b"#!/bin/sh\nrm -rf /\n", "file_unsupported_format"),
    (
        "document",
        "application/vnd.ms-word.macroenabled.12",
        samples.ooxml("word/document.xml", "word/vbaProject.bin"),
        "file_unsupported_format",
    ),
    ("document", "application/zip", samples.ooxml("evil.exe"), "file_unsupported_format"),
    ("document", "application/x-ole-storage", samples.ole("Property"), "file_unsupported_format"),
    ("image", "image/gif", samples.picture("GIF"), "file_unsupported_format"),
    ("image", "image/webp", samples.picture("WEBP"), "file_unsupported_format"),
    ("audio", "audio/ogg; codecs=opus", samples.recorded("stereo.ogg"), "file_unsupported_format"),
    (
        "audio",
        "audio/ogg; codecs=vorbis",
        b"OggS\0\2" + b"\0" * 20 + b"\1\x1e\1vorbis" + b"\0" * 20,
        "file_unsupported_format",
    ),
    ("audio", "video/mp4", samples.recorded("v.mp4"), "file_unsupported_format"),
    ("image", "image/jpeg", samples.picture("JPEG")[:60], "file_unreadable"),
    ("image", "image/png", samples.picture("PNG", (8_001, 8_001), mode="1"), "file_too_many_pixels"),
    ("image", "image/png", samples.picture("PNG", mode="I;16"), "file_unsupported_format"),
    ("document", None, b"\x00\x01\x02\x03" * 20, "file_unsupported_format"),
    ("document", None, b"", "file_unsupported_format"),
    ("sticker", "image/webp", samples.picture("WEBP") + b"\0" * 100 * 1024, "file_too_large"),
]


def _inspect(kind: FileKind, content: bytes, *, is_voice: bool = False) -> object:
    return inspect_file(io.BytesIO(content), kind=kind, size_bytes=len(content), is_voice=is_voice)


@pytest.mark.parametrize(("kind", "mime_type", "content"), TAKEN, ids=lambda v: v if isinstance(v, str) else "")
def test_type_whatsapp_takes_is_known_by_its_bytes(kind: FileKind, mime_type: str, content: bytes) -> None:
    found = inspect_file(io.BytesIO(content), kind=kind, size_bytes=len(content), is_voice=False)

    assert found.mime_type == mime_type
    assert (found.picture is not None) == (kind in ("image", "sticker"))


@pytest.mark.parametrize(("kind", "mime_type", "content", "code"), REFUSED)
def test_file_whatsapp_would_refuse_is_refused_with_a_hint(
    kind: FileKind, mime_type: str | None, content: bytes, code: str
) -> None:
    assert sniff(io.BytesIO(content)) == mime_type

    with pytest.raises(Rejected) as refused:
        _inspect(kind, content)

    assert refused.value.code == code
    assert refused.value.hint


def test_disguise_is_named_in_the_hint() -> None:
    with pytest.raises(Rejected) as refused:
        _inspect("image", samples.HTML)

    assert refused.value.hint is not None
    assert refused.value.hint.startswith("By its content this is text/html, whatever its name says.")


def test_voice_note_must_be_opus() -> None:
    _inspect("audio", samples.recorded("a.ogg"), is_voice=True)

    with pytest.raises(Rejected):
        _inspect("audio", samples.recorded("a.mp3"), is_voice=True)


def test_webp_that_moves_is_seen_to() -> None:
    assert is_animated(io.BytesIO(samples.picture("WEBP", frames=2)))
    assert not is_animated(io.BytesIO(samples.picture("WEBP")))


@pytest.mark.parametrize(
    ("said", "sniffed", "expected"),
    [
        ("image/jpeg", "image/jpeg", False),
        ("image/jpg", "image/jpeg", False),
        ("audio/ogg; codecs=opus", "audio/ogg; codecs=opus", False),
        ("image/jpeg", "image/png", True),
        ("image/jpeg", "text/html", True),
        ("application/pdf", "application/zip", True),
        ("text/csv", "text/plain", False),
        ("application/epub+zip", "application/zip", False),
        ("text/plain", "text/html", True),
        ("application/octet-stream", "application/x-elf", True),
        ("application/pdf", None, False),
        (None, "image/png", False),
    ],
)
def test_file_that_is_not_what_was_said_is_marked(said: str | None, sniffed: str | None, expected: bool) -> None:
    assert is_mismatch(said, sniffed) is expected


@given(
    st.sampled_from([content for _, _, content in TAKEN] + [samples.ole("Book"), samples.ooxml("xl/workbook.xml")]),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, 3000),
)
def test_no_bytes_break_the_look_at_a_file(content: bytes, changes: list[tuple[int, bytes]], cut: int) -> None:
    broken = bytearray(content)
    for at, piece in changes:
        broken[at : at + len(piece)] = piece

    sniff(io.BytesIO(bytes(broken[: max(1, len(broken) - cut)])))
