"""Placeholders in a template's texts: `{{1}}` or `{{first_name}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def placeholders(text: str) -> list[str]:
    """Return what stands between the braces, in order of appearance, each once."""
    return list(dict.fromkeys(_PLACEHOLDER.findall(text)))


def is_number(placeholder: str) -> bool:
    return placeholder.isascii() and placeholder.isdigit()


def is_name(placeholder: str) -> bool:
    return _NAME.fullmatch(placeholder) is not None


def has_stray_braces(text: str) -> bool:
    """Tell whether braces are left over, as in `{{1}` or `{{ }}`."""
    rest = _PLACEHOLDER.sub("", text)
    return "{{" in rest or "}}" in rest or any(not p.strip() for p in _PLACEHOLDER.findall(text))


def starts_or_ends(text: str) -> bool:
    """Tell whether a placeholder is the first or last thing written."""
    stripped = text.strip()
    found = list(_PLACEHOLDER.finditer(stripped))
    return bool(found) and (found[0].start() == 0 or found[-1].end() == len(stripped))


def has_neighbours(text: str) -> bool:
    """Tell whether two placeholders have nothing but blanks between them."""
    return re.search(r"\}\}\s*\{\{", text) is not None


def words_beside(text: str) -> int:
    """Count the words that are no placeholders."""
    return sum(1 for word in _PLACEHOLDER.sub(" ", text).split() if any(c.isalnum() for c in word))


def replaced(text: str, values: Mapping[str, str]) -> str:
    """Write the values in; a placeholder without one stays as it is."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)
