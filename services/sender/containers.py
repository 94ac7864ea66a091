"""Containers whose first bytes do not say what is inside: MP4, the Office files of old, zip.

Nothing here trusts a length or an offset it reads: files are made to break readers.
"""

from __future__ import annotations

import struct
import zipfile
from typing import BinaryIO

_MOST_BOXES = 64
_MOST_MOOV_BYTES = 16 * 1024 * 1024  # what WhatsApp's videos may have in all
_MOST_DIRECTORY_BYTES = 1024 * 1024  # of a zip: its list of names is read into memory
_MOST_OLE_SECTORS = 64
_IMAGES = {b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heif", b"avif": "image/avif"}


def mp4_type(file: BinaryIO) -> str | None:
    """Tell sound from pictures in an ISO base media file, by the handlers of its tracks. Source: ISO/IEC 14496-12."""
    file.seek(8)
    brand = file.read(4)
    if brand in _IMAGES:
        return _IMAGES[brand]
    if brand == b"qt  ":
        return "video/quicktime"
    has_pictures, has_sound = _tracks(file)
    if brand[:3] in (b"3gp", b"3g2", b"3ge"):
        return "audio/3gpp" if has_sound and not has_pictures else "video/3gpp"
    if brand[:3] in (b"M4A", b"M4B") and not has_pictures:
        return "audio/mp4"
    return "audio/mp4" if has_sound and not has_pictures else "video/mp4"


def _tracks(file: BinaryIO) -> tuple[bool, bool]:
    """Return whether there are pictures, and sound: (False, False) where no list of tracks is found."""
    size = file.seek(0, 2)
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            break
        length, kind = struct.unpack(">I4s", header[:8])
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        if kind == b"moov":
            file.seek(at)
            box = file.read(min(length or size, _MOST_MOOV_BYTES))
            # hdlr: length, kind, version and flags, four unused bytes, then what the track is.
            handlers = {part[8:12] for part in box.split(b"hdlr")[1:]}
            return b"vide" in handlers, b"soun" in handlers
        if length < 8:
            break
        at += length
    return False, False


_OLE_STREAMS = {
    "WordDocument": "application/msword",
    "Workbook": "application/vnd.ms-excel",
    "Book": "application/vnd.ms-excel",
    "PowerPoint Document": "application/vnd.ms-powerpoint",
}


def ole_type(file: BinaryIO) -> str:
    """Tell Office's old files by the streams of their directory. Source: Microsoft, [MS-CFB]."""
    names = set(_ole_names(file))
    found = [kind for name, kind in _OLE_STREAMS.items() if name in names]
    return found[0] if found else "application/x-ole-storage"


def _ole_names(file: BinaryIO) -> list[str]:
    file.seek(0)
    header = file.read(512)
    if len(header) < 512:
        return []
    shift = struct.unpack_from("<H", header, 30)[0]
    if shift not in (9, 12):
        return []
    sector_bytes = 1 << shift
    sector = struct.unpack_from("<I", header, 48)[0]
    allocation = struct.unpack_from("<109I", header, 76)
    names: list[str] = []
    for _ in range(_MOST_OLE_SECTORS):
        if sector >= 0xFFFF_FFFA:  # the chain's end, and other marks
            break
        file.seek((sector + 1) << shift)
        data = file.read(sector_bytes)
        names += [_ole_name(data[at : at + 128]) for at in range(0, len(data) - 127, 128)]
        table, place = divmod(sector, sector_bytes // 4)
        if table >= len(allocation):
            break
        file.seek(((allocation[table] + 1) << shift) + place * 4)
        following = file.read(4)
        if len(following) < 4:
            break
        sector = struct.unpack("<I", following)[0]
    return names


def _ole_name(entry: bytes) -> str:
    length = struct.unpack_from("<H", entry, 64)[0]
    return entry[: max(0, min(length, 64) - 2)].decode("utf-16-le", "replace")


_OOXML = "application/vnd.openxmlformats-officedocument."
_OOXML_PARTS = {
    "word/document.xml": ("wordprocessingml.document", "word"),
    "xl/workbook.xml": ("spreadsheetml.sheet", "excel"),
    "ppt/presentation.xml": ("presentationml.presentation", "powerpoint"),
}


def zip_type(file: BinaryIO) -> str:
    """Tell Office's files by their parts; one with macros is another type. Source: ECMA-376, part 2."""
    names = _zip_names(file)
    if "[Content_Types].xml" not in names:
        return "application/zip"
    for part, (kind, program) in _OOXML_PARTS.items():
        if part in names:
            has_macros = any(name.endswith("vbaProject.bin") for name in names)
            return f"application/vnd.ms-{program}.macroenabled.12" if has_macros else _OOXML + kind
    return "application/zip"


def _zip_names(file: BinaryIO) -> set[str]:
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_557))  # the last record, with a comment as long as it may be
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22 or struct.unpack_from("<I", tail, at + 12)[0] > _MOST_DIRECTORY_BYTES:
        return set()
    try:
        with zipfile.ZipFile(file) as archive:
            return set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error):
        return set()
