"""Which model answers which task. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.ai_worker.prompt import Task, Tier


@dataclass(frozen=True, slots=True)
class Models:
    """Which model answers what. Each has a price: settings see to it."""

    messages: str
    conversation: str | None = None  # None: that of the messages
    cheap: str | None = None  # None: none is cheaper

    def of(self, task: Task, tier: Tier = Tier.USUAL) -> str:
        """Return the model of a task."""
        usual = self.conversation or self.messages if task is Task.CONVERSATION else self.messages
        return self.cheap or usual if tier is Tier.CHEAP else usual
