"""What every part of a content shares: how pydantic treats it at a boundary, and how optional keys are left out."""

from __future__ import annotations

from typing import Any, ClassVar

from shared.whatsapp.wire import Json


class Part:
    """A frozen dataclass of this package; pydantic, where a boundary reads one, refuses keys it does not know."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


def given(**keys: object) -> Json:
    """Return the keys that say something: None and "" are left out, since Meta refuses empty ones."""
    return {key: value for key, value in keys.items() if value is not None and value != ""}
