"""What a benchmark returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure; `limit` is what this machine does at best, measured in the same run, in the same unit.

    `limit` 0: there is no such thing, only a wish: `at_least` or `at_most`, in the figure's unit.
    `note`: what a reader must know to believe it, such as what held the figure back.
    """

    name: str
    value: float
    unit: str
    limit: float = 0.0
    limit_is: str = ""
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        """Value over limit; 0 without a limit."""
        return round(self.value / self.limit, 3) if self.limit else 0.0

    @property
    def wish(self) -> str:
        """What is wanted of the figure, for people; empty when nothing is."""
        if self.at_least is not None:
            return f"≥ {self.at_least:,g}"
        return f"≤ {self.at_most:,g}" if self.at_most is not None else ""

    @property
    def is_met(self) -> bool:
        """Tell whether the wish came true; without one it did."""
        too_small = self.at_least is not None and self.value < self.at_least
        too_large = self.at_most is not None and self.value > self.at_most
        return not too_small and not too_large
