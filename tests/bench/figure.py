"""What a benchmark returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure; `limit` is what this machine does at best, measured in the same run, in the same unit."""

    name: str
    value: float
    unit: str
    limit: float
    limit_is: str

    @property
    def ratio(self) -> float:
        """Value over limit."""
        return round(self.value / self.limit, 3) if self.limit else 0.0
