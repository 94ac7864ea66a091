"""What a webhook item looks like without what it says: keys and kinds of values, to be shown to operators."""

from __future__ import annotations

import re

# Meta's own words, ids and times: what one needs to see why an item was refused. All other values are people's.
_SHOWN = {
    "object": re.compile(r"[a-z_]{1,40}"),
    "field": re.compile(r"[a-z_]{1,60}"),
    "type": re.compile(r"[a-z_]{1,40}"),
    "messaging_product": re.compile(r"[a-z_]{1,40}"),
    "status": re.compile(r"[a-zA-Z_]{1,40}"),
    "event": re.compile(r"[a-zA-Z_]{1,60}"),
    "timestamp": re.compile(r"[0-9]{1,16}"),
    "phone_number_id": re.compile(r"[0-9]{1,20}"),
    "id": re.compile(r"wamid\.[A-Za-z0-9+/=_-]{1,400}"),
    "code": re.compile(r"[0-9]{1,10}"),
}
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")
_MOST_ELEMENTS = 20  # of a list; more of the same help nobody
_DEEPEST = 12


def masked(value: object, *, key: str = "", depth: int = 0) -> object:
    """Return a value of the same shape with texts as "text(12)", digits as "digits(11)" and numbers as "number"."""
    if isinstance(value, dict):
        if depth >= _DEEPEST:
            return f"object({len(value)})"
        return {_key(k): masked(v, key=str(k), depth=depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        shown = [masked(one, key=key, depth=depth + 1) for one in value[:_MOST_ELEMENTS]] if depth < _DEEPEST else []
        return [*shown, f"… {len(value) - len(shown)} more"] if len(value) > len(shown) else shown
    if value is None or isinstance(value, bool):
        return value
    text = str(value)
    pattern = _SHOWN.get(key)
    if pattern is not None and pattern.fullmatch(text):
        return value
    if isinstance(value, int | float):
        return "number"
    return f"digits({len(text)})" if text.isascii() and text.isdigit() else f"text({len(text)})"


def _key(key: object) -> str:
    """Return a key as Meta writes them; anything else may be somebody's."""
    text = str(key)
    return text if _KEY.fullmatch(text) else f"key({len(text)})"
