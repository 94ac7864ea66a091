"""Trace context in W3C's form: it rides in stream entries and jobs, so that a message can be followed."""

from __future__ import annotations

import re
import secrets

_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent(received: bytes | None) -> str:
    """Continue the caller's trace, or begin one. Source: W3C Trace Context, 3.2."""
    if received is not None and _TRACEPARENT.fullmatch(received):
        return received.decode("ascii")
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def trace_id(parent: str) -> str:
    """Return the trace id of a traceparent, to put on log lines."""
    return parent.split("-")[1] if parent.count("-") == 3 else ""
