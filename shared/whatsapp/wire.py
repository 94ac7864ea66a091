"""The primitives of Meta's JSON: bytes to clean values, and single values to the types we trust."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

ID_LIMIT = 512  # characters of an id we are ready to index; Meta's are far shorter
_DEPTH_LIMIT = 200  # nested containers; Meta's bodies have about 12, and what reads ours later recurses too

# Source: Meta, "Business-scoped user IDs", read 2026-11-22. ENT: an enrolled portfolio's parent id.
_BSUID = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")

_MILLISECONDS_FROM = 10**12  # "values >= 1e12 are milliseconds", seen in production by others
_LATEST = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def decode(raw: bytes) -> Json | str:
    """Return a body of clean strings, or why there is none.

    Clean: U+0000 and lone surrogates, which PostgreSQL refuses, are U+FFFD; the raw bytes are kept elsewhere.
    """
    try:
        written = raw.decode(json.detect_encoding(raw), "surrogatepass")
        body = _DECODER.decode(written)
    except (ValueError, RecursionError) as error:
        return f"not_json: {type(error).__name__}"
    if not isinstance(body, dict):
        return "not_an_object"
    if written.count("{") + written.count("[") > _DEPTH_LIMIT and _is_deep(body):
        return "nested_too_deep"
    if _may_be_unstorable(written):
        cleaned: Json = _clean(body)
        return cleaned
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("number out of range")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def _is_deep(body: Json) -> bool:
    """Look level by level: asking each container how deep it is would itself recurse."""
    level: list[Any] = [body]
    for _ in range(_DEPTH_LIMIT):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _may_be_unstorable(written: str) -> bool:
    """Decide once a body whether to walk it: no string can be unstorable unless it was written in one of these ways.

    An escaped backslash before u0000 also says yes, and so does every emoji: both cost a walk, not a character.
    """
    return (
        "\\ud" in written
        or "\\u0000" in written
        or "\\uD" in written
        or (not written.isascii() and _UNSTORABLE.search(written) is not None)
    )


def _clean(value: Any) -> Any:
    """Replace what cannot be stored. Of two keys that become equal the last wins, as in JSON itself."""
    if isinstance(value, str):
        return value if value.isascii() and "\x00" not in value else _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_clean(key): _clean(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_clean(element) for element in value]
    return value


def text(value: object) -> str | None:
    """Return a string; numbers are coerced, since Meta has sent both."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None


def identifier(value: object) -> str | None:
    """Return an id we can index; empty means missing, and a longer one identifies nothing."""
    found = text(value)
    return found if found and len(found) <= ID_LIMIT else None


def mapping(value: object) -> Json:
    """Return an object's keys, or none: every nested key of Meta's is optional."""
    return value if isinstance(value, dict) else {}


def elements(value: object) -> list[Any]:
    """Return a list's elements, or none."""
    return value if isinstance(value, list) else []


def bsuid(value: object) -> str | None:
    """Return a business-scoped user id: an id of another shape is no id (the payload keeps it)."""
    return value if isinstance(value, str) and _BSUID.fullmatch(value) else None


def phone(value: object) -> str | None:
    """Return a phone-derived id: 5 to 20 ASCII digits, without a leading +."""
    found = text(value)
    if not found:
        return None
    found = found.removeprefix("+")
    return found if 5 <= len(found) <= 20 and found.isascii() and found.isdigit() else None


def time(value: object) -> datetime | None:
    """Read a Meta timestamp: string or number, seconds or milliseconds."""
    try:
        seconds = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        if seconds >= _MILLISECONDS_FROM:
            seconds /= 1000
        return datetime.fromtimestamp(min(seconds, _LATEST), UTC) if seconds > 0 else None
    except (ValueError, OverflowError, OSError):
        return None
