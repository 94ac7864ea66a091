"""What an agent's file is, and why WhatsApp would not take it: told before Meta sees it, in words they can act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from services.sender.picture import MOST_PIXELS, Picture, look
from services.sender.sniff import is_animated, sniff
from shared.domain.errors import Rejected
from shared.storage.file_names import ACTIVE, essence
from shared.whatsapp.outbound.media import FileKind, check_file
from shared.whatsapp.problems import Problem

_PICTURES = frozenset({"image", "sticker"})


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file WhatsApp takes. picture: of an image or a sticker."""

    mime_type: str
    is_animated: bool
    picture: Picture | None


def inspect_file(file: BinaryIO, *, kind: FileKind, size_bytes: int, is_voice: bool) -> Inspected:
    """Look into a file that is wholly here. Blocks. Raises: Rejected `file_…`, with a hint for who sent it."""
    mime_type = sniff(file)
    if mime_type is None and size_bytes:
        raise _refused("unsupported_format", f"We cannot tell what this file is; it is no {kind} that WhatsApp takes.")
    moves = mime_type == "image/webp" and is_animated(file)
    found = check_file(kind, mime_type=mime_type or "", size_bytes=size_bytes, is_voice=is_voice, is_animated=moves)
    found += _sound_problems(file, mime_type)
    if found:
        raise _not_taken(found, mime_type)
    assert mime_type is not None  # noqa: S101  an empty file was refused above
    return Inspected(mime_type, moves, _picture(file, mime_type) if kind in _PICTURES else None)


def _picture(file: BinaryIO, mime_type: str) -> Picture:
    picture = look(file)
    if picture is None:
        raise _refused("unreadable", "The picture is damaged: it cannot be opened. Save it again and send that.")
    if not picture.is_sane:
        raise _refused(
            "too_many_pixels",
            f"The picture has {picture.width} × {picture.height} pixels; at most {MOST_PIXELS // 1_000_000} million "
            "are taken. Send a smaller one.",
        )
    file.seek(0)
    # Meta takes 8 bits for each colour (fact sheet 4.3). Byte 24 of a PNG is its depth; 1, 2 and 4 are palettes.
    if mime_type == "image/png" and file.read(25)[24:] == b"\x10":
        raise _refused("unsupported_format", "The PNG has 16 bits for each colour; WhatsApp takes 8. Save it as such.")
    return picture


def _sound_problems(file: BinaryIO, mime_type: str | None) -> list[Problem]:
    """Require one channel of opus: byte 9 of its header. Source: fact sheet 4.3; RFC 7845, 5.1."""
    if mime_type != "audio/ogg; codecs=opus":
        return []
    file.seek(0)
    head = file.read(512)
    at = head.find(b"OpusHead")
    if head[at + 9 : at + 10] == b"\x01":
        return []
    return [Problem("mime_type", "unsupported_format", "WhatsApp takes opus in mono only; save it with one channel.")]


def _not_taken(found: list[Problem], mime_type: str | None) -> Rejected:
    sentence = " ".join(problem.message for problem in found)
    if mime_type is not None and essence(mime_type) in ACTIVE:
        sentence = f"By its content this is {essence(mime_type)}, whatever its name says. {sentence}"
    return _refused(found[0].code, sentence)


def _refused(code: str, sentence: str) -> Rejected:
    return Rejected("WhatsApp would not take this file", code=f"file_{code}", hint=sentence)
