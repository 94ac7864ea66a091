"""Small files of every type that matters, made here where nothing but bytes is needed."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

from PIL import Image

FILES = Path(__file__).parents[2] / "fixtures" / "files"


def recorded(name: str) -> bytes:
    """A file as an encoder wrote it; see the folder's README."""
    return (FILES / name).read_bytes()


def picture(
    form: str, size: tuple[int, int] = (40, 20), *, mode: str = "RGB", frames: int = 1, **more: object
) -> bytes:
    """A picture in red; more: what Pillow's `save` takes."""
    packed = io.BytesIO()
    first, *others = (Image.new(mode, size, colour) for colour in ["red", "blue"][:frames])
    if others:
        more |= {"save_all": True, "append_images": others, "duration": 100}
    first.save(packed, form, **more)
    return packed.getvalue()


def ooxml(*parts: str) -> bytes:
    """A zip with the parts that make an Office file, empty."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for part in ("[Content_Types].xml", "_rels/.rels", *parts):
            archive.writestr(part, "<xml/>")
    return packed.getvalue()


def ole(*streams: str) -> bytes:
    """A compound file whose directory names these streams: header, allocation table, directory ([MS-CFB])."""
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".ljust(24, b"\0") + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6)
    header = header.ljust(44, b"\0") + struct.pack("<II", 1, 1)  # one sector of table; the directory is sector 1
    header = header.ljust(76, b"\0") + struct.pack("<109I", 0, *[0xFFFFFFFF] * 108)
    table = struct.pack("<128I", 0xFFFFFFFD, 0xFFFFFFFE, *[0xFFFFFFFF] * 126)
    entries = b""
    for name in ("Root Entry", *streams):
        text = name.encode("utf-16-le")
        entries += (text.ljust(64, b"\0") + struct.pack("<H", len(text) + 2)).ljust(128, b"\0")
    return header + table + entries.ljust(512, b"\0")


PDF = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"
EXE = b"MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xff\xff\x00\x00".ljust(256, b"\0")
ELF = b"\x7fELF\x02\x01\x01".ljust(64, b"\0")
HTML = b"<!-- invoice --><!DOCTYPE html><html><script>alert(1)</script></html>"
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
