"""The record of what Claude was asked, for tests that count."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from deploy.sandbox.logs import utc_text

MOST_CALLS = 10_000
MOST_MESSAGES_PER_CALL = 50


def sha256(text: str) -> str:
    """Return the hash by which a test recognises a text that the record does not keep."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True)
class Call:
    """One request to `/v1/messages`."""

    id: str
    model: str = ""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    outcome: str = "in_flight"
    refs: tuple[str, ...] = ()
    user_text_sha256: str = ""
    text_sha256s: tuple[str, ...] = ()  # of each message analysed
    answer_fields: tuple[str, ...] = ()  # what the answer was to hold: tells what kind of question it was
    schema_findings: tuple[str, ...] = ()
    usage: dict[str, object] | None = None
    obeyed: tuple[str, ...] = ()  # orders of a customer's that `gullible` carried out
    prompt: object = None
    in_batch: bool = False
    answer: str | None = None

    def to_json(self) -> dict[str, object]:
        """Show the record; `prompt` and `answer` only if they were kept."""
        shown: dict[str, object] = {
            "id": self.id,
            "model": self.model,
            "started_at": utc_text(self.started_at),
            "ended_at": None if self.ended_at is None else utc_text(self.ended_at),
            "outcome": self.outcome,
            "refs_seen": len(self.refs),
            "refs": self.refs[:MOST_MESSAGES_PER_CALL],
            "user_text_sha256": self.user_text_sha256,
            "text_sha256s": self.text_sha256s[:MOST_MESSAGES_PER_CALL],
            "answer_fields": self.answer_fields,
            "schema_findings": self.schema_findings,
            "usage": self.usage,
            "in_batch": self.in_batch,
            "obeyed": self.obeyed,
        }
        return shown if self.prompt is None else shown | {"prompt": self.prompt, "answer": self.answer}


class Calls:
    """The newest calls, and how many there were since the record was cleared."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=MOST_CALLS)
        self.count = 0
        self.in_flight = 0
        self.most_in_flight = 0

    def begin(self, call: Call) -> None:
        self._calls.append(call)
        self.count += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def end(self, call: Call, outcome: str) -> None:
        call.outcome = outcome
        call.ended_at = datetime.now(UTC)
        self.in_flight -= 1

    def clear(self) -> None:
        """Forget what has been; calls under way still end properly."""
        self._calls.clear()
        self.count = 0
        self.most_in_flight = self.in_flight

    def to_json(self) -> dict[str, object]:
        return {
            "count": self.count,
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "calls": [call.to_json() for call in self._calls],
        }
