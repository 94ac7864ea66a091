"""What files are called: keys of thumbnails, names that are safe to save under, the types they are served as."""

from __future__ import annotations

import re
from urllib.parse import quote

# Said aloud by a browser, or run by a person who opens it: never what it may be said to be instead.
ACTIVE = frozenset(
    {
        "text/html",
        "text/xml",
        "image/svg+xml",
        "text/x-shellscript",
        "application/vnd.microsoft.portable-executable",
        "application/x-elf",
        "application/x-mach-binary",
    }
)
# Other names for the same, and sound that came in the container of pictures.
_SAME = {"image/jpg": "image/jpeg", "audio/mp3": "audio/mpeg", "audio/x-m4a": "audio/mp4", "audio/m4a": "audio/mp4"}
_UNSAFE_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff/\\:*?"<>|]+')
_MOST_NAME = 120


def thumbnail_key(key: str) -> str:
    return f"{key}-thumbnail"


def safe_filename(filename: str | None, mime_type: str) -> str:
    """Return a name that no system takes for a path or for a program.

    filename: as whoever sent it named it. mime_type: as sniffed; where the name's ending is another type's, or missing,
    the right one is added, so that `invoice.pdf.exe` is not run.
    """
    name = _UNSAFE_IN_NAMES.sub("_", filename or "").strip(" ._")
    stem, dot, ending = name.rpartition(".")
    right = _ENDINGS.get(essence(mime_type), ())
    if right and ending.lower() not in right:
        stem, ending = name, right[0]
    elif essence(mime_type) in ACTIVE:
        stem, ending = name, "txt"
    elif not dot:
        stem, ending = name, "bin"
    return f"{stem.rstrip(' .')[: _MOST_NAME - len(ending)] or 'file'}.{ending}"


def content_disposition(filename: str) -> str:
    """Return the header that makes a browser save a file. Source: RFC 6266, 5; RFC 8187."""
    plain = "".join(char if " " <= char < "\x7f" and char not in '"\\%' else "_" for char in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def served_type(mime_type: str | None) -> str:
    """Return the type a file is served as: none that a browser would run."""
    return mime_type if mime_type is not None and essence(mime_type) in _ENDINGS else "application/octet-stream"


_ENDINGS: dict[str, tuple[str, ...]] = {
    "image/jpeg": ("jpg", "jpeg"),
    "image/png": ("png",),
    "image/webp": ("webp",),
    "image/gif": ("gif",),
    "audio/aac": ("aac",),
    "audio/amr": ("amr",),
    "audio/mpeg": ("mp3",),
    "audio/mp4": ("m4a", "mp4"),
    "audio/ogg": ("ogg", "opus", "oga"),
    "video/mp4": ("mp4", "m4v"),
    "video/3gpp": ("3gp",),
    "text/plain": ("txt", "csv", "log", "md", "json", "vcf", "ics"),
    "application/pdf": ("pdf",),
    "application/msword": ("doc",),
    "application/vnd.ms-excel": ("xls",),
    "application/vnd.ms-powerpoint": ("ppt",),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ("docx",),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ("xlsx",),
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ("pptx",),
    "application/zip": ("zip",),
}


def essence(mime_type: str) -> str:
    """Return a type without its parameters, under its usual name."""
    plain = mime_type.partition(";")[0].strip().lower()
    return _SAME.get(plain, plain)
