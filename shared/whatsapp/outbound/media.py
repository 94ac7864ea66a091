"""Files: image, audio, video, document and sticker, named by an upload of ours, by Meta's id or by a link."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from shared.whatsapp.outbound.part import Part, given
from shared.whatsapp.problems import Problem, Problems
from shared.whatsapp.wire import Json

CAPTION_MOST = 1024

# Meta's page says KB and MB only. Taken as 1,024: WhatsApp's own sticker validator counts so (KB_IN_BYTES = 1024).
_KB = 1024
_MB = 1024 * _KB

_OOXML = "application/vnd.openxmlformats-officedocument."
_MIME_TYPES = {
    "audio": ("audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg"),
    "image": ("image/jpeg", "image/png"),
    "video": ("video/mp4", "video/3gpp"),
    "document": (
        "text/plain",
        "application/pdf",
        "application/msword",
        "application/vnd.ms-excel",
        "application/vnd.ms-powerpoint",
        _OOXML + "wordprocessingml.document",
        _OOXML + "spreadsheetml.sheet",
        _OOXML + "presentationml.presentation",
    ),
    "sticker": ("image/webp",),
}
_MOST_BYTES = {"audio": 16 * _MB, "image": 5 * _MB, "video": 16 * _MB, "document": 100 * _MB, "sticker": 100 * _KB}
_ANIMATED_STICKER_MOST_BYTES = 500 * _KB
_OPUS = ("audio/ogg", "opus")

FileKind = Literal["audio", "image", "video", "document", "sticker"]


def check_file(
    kind: FileKind, *, mime_type: str, size_bytes: int, is_voice: bool = False, is_animated: bool = False
) -> list[Problem]:
    """Return what Meta would refuse of a file before we upload it. Source: fact sheet 4.3.

    mime_type: as sniffed; of its parameters only `codecs` counts (ogg must hold opus).
    """
    problems = Problems()
    essence, _, parameters = (part.strip().lower() for part in mime_type.partition(";"))
    if essence not in _MIME_TYPES[kind]:
        problems.at("mime_type").add(
            "unsupported_format",
            f"WhatsApp takes no {essence or 'file without a type'} as {kind}; it takes {', '.join(_MIME_TYPES[kind])}.",
        )
    elif is_voice and essence != _OPUS[0]:
        problems.at("mime_type").add("unsupported_format", "A voice note must be audio/ogg with the opus codec.")
    elif essence == _OPUS[0] and "codecs" in parameters and _OPUS[1] not in parameters:
        problems.at("mime_type").add("unsupported_format", "Of audio/ogg WhatsApp takes the opus codec only.")
    most = most_bytes(kind, is_animated=is_animated)
    if size_bytes > most:
        problems.at("size_bytes").add(
            "too_large", f"The file has {_size(size_bytes)}; WhatsApp allows {_size(most)} for this kind."
        )
    if size_bytes <= 0:
        problems.at("size_bytes").add("empty", "The file is empty.")
    return problems.found()


def most_bytes(kind: FileKind, *, is_animated: bool = False) -> int:
    """Return the largest file of a kind. Source: fact sheet 4.3."""
    return _ANIMATED_STICKER_MOST_BYTES if kind == "sticker" and is_animated else _MOST_BYTES[kind]


def _size(count: int) -> str:
    return f"{count / _MB:,.1f} MB" if count >= _MB else f"{count / _KB:,.1f} KB"


@dataclass(frozen=True, slots=True, kw_only=True)
class _File(Part):
    """Exactly one: `media_id` (our id of an upload), `meta_id` (Meta's, kept 30 days), `link` (fetched by Meta)."""

    media_id: str | None = None
    meta_id: str | None = None
    link: str | None = None

    def source(self) -> Json:
        return source(self.media_id, self.meta_id, self.link)


# A file of ours stands in a payload as an id Meta never gives; the dispatcher puts there what the number calls it.
_OURS = "parley:"


def source(media_id: str | None, meta_id: str | None, link: str | None) -> Json:
    """Return how a file is named in a body."""
    if media_id:
        return {"id": f"{_OURS}{media_id}"}
    return {"id": meta_id} if meta_id else given(link=link)


def media_ids(payload: Json) -> list[str]:
    """Return the ids of our files that a body names (what `graph` gives), each once, in order of appearance."""
    return list(dict.fromkeys(_named(payload)))


def _named(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        ours = value.get("id")
        if isinstance(ours, str) and ours.startswith(_OURS):
            yield ours.removeprefix(_OURS)
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _named(inner)


def check_source(problems: Problems, media_id: str | None, meta_id: str | None, link: str | None) -> None:
    """Require an uploaded file or a link to one, and not both."""
    if sum(map(bool, (media_id, meta_id, link))) > 1:
        problems.add("not_together", "Name the file by one id or by a link, not by several.")
    elif media_id:
        if not _is_uuid(media_id):
            problems.at("media_id").add("bad_format", "This is not the id of an upload.")
    elif meta_id:
        problems.at("meta_id").identifier(meta_id, "The file's id")
        if meta_id.startswith(_OURS):
            problems.at("meta_id").add("bad_format", "This is not an id of Meta's.")
    elif link:
        problems.at("link").url(link, "The link to the file")
    else:
        problems.add("missing", "Name a file: by the id of an upload, or by a link.")


def _is_uuid(value: str) -> bool:
    """In the one form the payload is searched for."""
    try:
        return str(UUID(value)) == value
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(_File):
    caption: str | None = None
    type: Literal["image"] = "image"

    def check(self, problems: Problems) -> None:
        check_source(problems, self.media_id, self.meta_id, self.link)
        problems.at("caption").optional_text(self.caption, "The caption", CAPTION_MOST)

    def graph(self) -> Json:
        return {"type": "image", "image": self.source() | given(caption=self.caption)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Video(_File):
    caption: str | None = None
    type: Literal["video"] = "video"

    def check(self, problems: Problems) -> None:
        check_source(problems, self.media_id, self.meta_id, self.link)
        problems.at("caption").optional_text(self.caption, "The caption", CAPTION_MOST)

    def graph(self) -> Json:
        return {"type": "video", "video": self.source() | given(caption=self.caption)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio(_File):
    """is_voice: a voice note, which must be ogg with opus; its play icon shows up to 512 KB, else a download icon."""

    is_voice: bool = False
    type: Literal["audio"] = "audio"

    def check(self, problems: Problems) -> None:
        check_source(problems, self.media_id, self.meta_id, self.link)

    def graph(self) -> Json:
        return {"type": "audio", "audio": self.source() | given(voice=self.is_voice or None)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(_File):
    """filename: decides the icon and the name shown."""

    caption: str | None = None
    filename: str | None = None
    type: Literal["document"] = "document"

    def check(self, problems: Problems) -> None:
        check_source(problems, self.media_id, self.meta_id, self.link)
        problems.at("caption").optional_text(self.caption, "The caption", CAPTION_MOST)
        problems.at("filename").optional_text(self.filename, "The file name")

    def graph(self) -> Json:
        return {
            "type": "document",
            "document": self.source() | given(filename=self.filename, caption=self.caption),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sticker(_File):
    type: Literal["sticker"] = "sticker"

    def check(self, problems: Problems) -> None:
        check_source(problems, self.media_id, self.meta_id, self.link)

    def graph(self) -> Json:
        return {"type": "sticker", "sticker": self.source()}
