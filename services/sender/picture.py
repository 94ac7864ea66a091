"""Pictures: how large they are when unpacked, and a small one of each. What is read here was made by strangers."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from typing import BinaryIO

import structlog
from PIL import Image, ImageOps

log = structlog.get_logger()

# A JPEG of 5 MB has some 25 million; more is a scan of a wall, or made to fill the memory of whoever opens it.
MOST_PIXELS = 64_000_000
# Unpacked for a thumbnail: 4 bytes each, 64 MB. A JPEG is scaled while it is unpacked, and needs less.
_MOST_UNPACKED_PIXELS, _MOST_UNPACKED_JPEG_PIXELS = 16_000_000, 32_000_000
# Measured 2026-11-24: a PNG of 16 million pixels takes 65 MB and 0.3 s, a progressive JPEG of 31 million 93 MB, 0.2 s.
_ONE_AT_A_TIME = threading.Lock()
THUMBNAIL_PIXELS = 320
_FORMATS = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True, slots=True)
class Picture:
    """Width and height in pixels, as shown; thumbnail: a WebP of at most 320 by 320, or None."""

    width: int
    height: int
    thumbnail: bytes | None = None

    @property
    def is_sane(self) -> bool:
        return 0 < self.width * self.height <= MOST_PIXELS


def measure(file: BinaryIO) -> Picture | None:
    """Read a picture's size off its header, unpacking nothing; None: it cannot be read."""
    try:
        file.seek(0)
        with Image.open(file, formats=_FORMATS) as image:
            return _turned(image)
    except Exception as error:  # noqa: BLE001  see `look`
        log.info("picture.refused", error=type(error).__name__)
        return None


def look(file: BinaryIO) -> Picture | None:
    """Return a picture with its thumbnail; None: it cannot be read.

    Any exception: Pillow's decoders raise whatever a broken file makes them trip over (OSError, SyntaxError,
    ValueError, struct.error, MemoryError, …), and a file must never stop the fetching of others.
    """
    measured = measure(file)
    if measured is None:
        return None
    try:
        file.seek(0)
        with Image.open(file, formats=_FORMATS) as image:
            most = _MOST_UNPACKED_JPEG_PIXELS if image.format == "JPEG" else _MOST_UNPACKED_PIXELS
            if not 0 < measured.width * measured.height <= most:
                return measured
            with _ONE_AT_A_TIME:
                return Picture(measured.width, measured.height, _thumbnail(image))
    except Exception as error:  # noqa: BLE001
        log.info("thumbnail.failed", error=type(error).__name__)
        return measured


def _turned(image: Image.Image) -> Picture:
    """Take width for height where the camera lay on its side. Source: Exif 2.32, tag Orientation (0x0112)."""
    width, height = image.size
    is_turned = image.format == "JPEG" and image.getexif().get(0x0112) in (5, 6, 7, 8)
    return Picture(height, width) if is_turned else Picture(width, height)


def _thumbnail(image: Image.Image) -> bytes:
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))  # made small first: turning copies
    turned = ImageOps.exif_transpose(image)
    has_alpha = "A" in turned.getbands() or "transparency" in turned.info
    packed = io.BytesIO()
    # Converted anew: no Exif, and so no place where the picture was taken, goes along.
    turned.convert("RGBA" if has_alpha else "RGB").save(packed, "WEBP", quality=75, method=2, exif=b"", icc_profile=b"")
    return packed.getvalue()
