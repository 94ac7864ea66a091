"""Reading values of a request the way Meta complains about them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from deploy.sandbox.graph.errors import Refused


def only_keys(found: dict[str, Any], allowed: Collection[str], where: str) -> None:
    """Refuse a key Meta does not know (100)."""
    for key in found:
        if key not in allowed:
            raise Refused(100, f'Unexpected key "{key[:80]}" on param "{where}".')


def a_map(found: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    value = found.get(key)
    if value is None:
        raise Refused(131008, f"The parameter {what} is required.")
    if not isinstance(value, dict):
        raise Refused(100, f"Param {what} must be an object.")
    return value


def a_list(found: dict[str, Any], key: str, what: str, *, most: int) -> list[Any]:
    value = found.get(key)
    if value is None:
        raise Refused(131008, f"The parameter {what} is required.")
    if not isinstance(value, list):
        raise Refused(100, f"Param {what} must be an array.")
    if not 1 <= len(value) <= most:
        raise Refused(131009, f"{what}: min allowed count: 1, max allowed count: {most}")
    return value


def objects(found: list[Any], what: str) -> list[dict[str, Any]]:
    """Refuse a list that holds anything but objects (100)."""
    for value in found:
        if not isinstance(value, dict):
            raise Refused(100, f"Param {what} must be an array of objects.")
    return found


def a_text(found: dict[str, Any], key: str, what: str, *, least: int = 1, most: int = 100_000) -> str:
    value = found.get(key)
    if value is None:
        raise Refused(131008, f"The parameter {what} is required.")
    if not isinstance(value, str):
        raise Refused(100, f"Param {what} must be a string.")
    if not least <= len(value) <= most:
        raise Refused(131009, f"{what} length invalid. Min length: {least}, Max length: {most}")
    return value
