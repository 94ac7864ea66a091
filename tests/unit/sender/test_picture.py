"""Pictures of strangers: measured before they are unpacked, made small, stripped of what the camera noted."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from services.sender.picture import Picture, look, measure

from .file_samples import picture


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    return exif.tobytes()


def _png_of(width: int, height: int) -> bytes:
    """A PNG that says it is so large and holds almost nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_thumbnail_is_small_and_as_wide_as_it_is_high(form: str) -> None:
    found = look(io.BytesIO(picture(form, (1600, 800))))

    assert found is not None
    assert found.thumbnail is not None
    with Image.open(io.BytesIO(found.thumbnail)) as small:
        assert (small.format, small.size) == ("WEBP", (320, 160))
    assert (found.width, found.height) == (1600, 800)


def test_picture_taken_sideways_is_turned_and_its_camera_forgotten() -> None:
    found = look(io.BytesIO(picture("JPEG", (640, 320), exif=_exif(6))))

    assert found is not None
    assert found.thumbnail is not None
    with Image.open(io.BytesIO(found.thumbnail)) as small:
        assert small.size == (160, 320)
        assert not small.getexif()
    assert (found.width, found.height) == (320, 640)


@pytest.mark.parametrize("size", [(40_000, 40_000), (8_001, 8_000), (100_000, 1)])
def test_bomb_is_measured_and_never_unpacked(size: tuple[int, int]) -> None:
    found = look(io.BytesIO(_png_of(*size)))

    assert found is None or (found.thumbnail is None and found.is_sane == (size[0] * size[1] <= 64_000_000))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", picture("PNG")[:40], b"GIF89a" + b"\0" * 40])
def test_damaged_picture_has_no_thumbnail_and_breaks_nothing(content: bytes) -> None:
    found = look(io.BytesIO(content))

    assert found is None or found.thumbnail is None


def test_measuring_unpacks_nothing() -> None:
    assert measure(io.BytesIO(_png_of(5_000, 5_000))) == Picture(5_000, 5_000)
