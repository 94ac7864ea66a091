"""What the doctor finds: one line a check, and the fix where it is not well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. name: stable. says: what was found. fix: what to do, unless it is well."""

    name: str
    status: Status
    says: str
    fix: str | None = None
    number: str | None = None  # Meta's id of it; None: the installation
    workspace: str | None = None


@dataclass(slots=True)
class Diagnosis:
    """Checks of one number, or of the installation."""

    number: str | None = None
    workspace: str | None = None
    checks: list[Check] = field(default_factory=list)

    def ok(self, name: str, says: str) -> None:
        """Note that something is well."""
        self._add(name, "ok", says, None)

    def warn(self, name: str, says: str, fix: str) -> None:
        """Note what works, and will not for ever, or not wholly."""
        self._add(name, "warn", says, fix)

    def fail(self, name: str, says: str, fix: str) -> None:
        """Note what does not work."""
        self._add(name, "fail", says, fix)

    def _add(self, name: str, status: Status, says: str, fix: str | None) -> None:
        self.checks.append(Check(name, status, says, fix, self.number, self.workspace))
