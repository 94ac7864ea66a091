"""Time-ordered ids, made here so that a caller knows them before the database does."""

from __future__ import annotations

import os
import time
from uuid import UUID


def new_id() -> UUID:
    """Return a UUIDv7: 48 bits of unix milliseconds, then random bits.

    Source: RFC 9562, section 5.7. (`uuid.uuid7` arrives with Python 3.14; we support 3.11.)
    """
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76  # version
    value = value & ~(0b11 << 62) | 0b10 << 62  # variant
    return UUID(int=value)
