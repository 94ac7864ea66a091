"""The templates of all accounts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from deploy.sandbox.story import KnownTemplate

DAY_S = 24 * 3600
FIRST_ID = 1_180_337_429_170_001  # as long as Meta's


@dataclass(slots=True)
class Template:
    """One template in one language."""

    id: str
    waba_id: str
    name: str
    language: str
    category: str
    status: str
    parameter_format: str
    components: list[dict[str, Any]]
    created_at: float
    quality: str = "UNKNOWN"
    quality_at: float = 0
    rejected_reason: str = "NONE"
    previous_category: str | None = None
    correct_category: str | None = None
    ttl_s: int | None = None
    edited_at: list[float] = field(default_factory=list)
    pauses: int = 0
    version: int = 0  # counts edits: a review of an older one decides nothing

    def to_json(self) -> dict[str, Any]:
        """Return all fields that can be asked for; Meta leaves out those that are empty."""
        found: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "language": self.language,
            "status": self.status,
            "category": self.category,
            "parameter_format": self.parameter_format,
            "quality_score": {"score": self.quality, "date": int(self.quality_at)},
            "components": self.components,
        }
        if self.status == "REJECTED":
            found["rejected_reason"] = self.rejected_reason
        for key, value in (
            ("previous_category", self.previous_category),
            ("correct_category", self.correct_category),
            ("message_send_ttl_seconds", self.ttl_s),
        ):
            if value is not None:
                found[key] = value
        return found

    def component(self, kind: str) -> dict[str, Any] | None:
        return next((one for one in self.components if str(one.get("type", "")).upper() == kind), None)


class Templates:
    """By id, and by account, name and language."""

    def __init__(self, known: Iterable[KnownTemplate], now: float) -> None:
        self._ids = itertools.count(FIRST_ID)
        self.by_id: dict[str, Template] = {}
        self._by_key: dict[tuple[str, str, str], Template] = {}
        self.names_blocked_until: dict[tuple[str, str], float] = {}
        for one in known:
            self.add(
                Template(
                    one.id or self.new_id(),
                    one.waba_id,
                    one.name,
                    one.language,
                    one.category,
                    one.status,
                    one.parameter_format,
                    one.components,
                    created_at=now - DAY_S,
                    quality_at=now,
                )
            )

    def new_id(self) -> str:
        return str(next(self._ids))

    def add(self, template: Template) -> None:
        self.by_id[template.id] = template
        self._by_key[(template.waba_id, template.name, template.language)] = template

    def remove(self, template: Template) -> None:
        self.by_id.pop(template.id, None)
        self._by_key.pop((template.waba_id, template.name, template.language), None)

    def find(self, waba_id: str, name: str, language: str) -> Template | None:
        return self._by_key.get((waba_id, name, language))

    def of_account(self, waba_id: str) -> list[Template]:
        """List them, newest first as Meta does."""
        return [one for one in reversed(self.by_id.values()) if one.waba_id == waba_id]
