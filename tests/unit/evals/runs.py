"""Answers and runs as the tests of the evaluation need them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from services.ai_worker.examples import Example, LabelledMessage, Labels
from services.ai_worker.message_analysis import Accepted, read_answer
from tests.evals.judge import Verdict
from tests.evals.results import Call, Judged, Results
from tests.unit.ai_worker.test_message_analysis import answer, entry


def accepted(text: str, **said: Any) -> Accepted:
    """What is believed of an answer about this message."""
    example = Example(id="one", new_messages=[LabelledMessage(text=text, labels=Labels())])
    [found] = read_answer(answer(entry(**said)), example.question())
    return found


def verdict(is_right: bool, confidence: float | None = 0.9) -> Verdict:
    return Verdict("complaint", "complaint" if is_right else "other", is_right, confidence)


def run(*rights: bool, field: str = "intent", tags: tuple[str, ...] = (), **changes: Any) -> Results:
    """A run with one message for each of these, right or not."""
    messages = tuple(
        Judged(example=f"en-{number:03}", number=0, language="en", tags=tags, verdicts={field: verdict(is_right)})
        for number, is_right in enumerate(rights)
    )
    call = Call(
        example="en-000",
        outcome="ok",
        tries=1,
        latency_ms=100,
        cost_usd=Decimal("0.001"),
        input_tokens=100,
        output_tokens=50,
        cache_read_tokens=300,
        cache_write_tokens=0,
    )
    return Results(
        prompt="packaged",
        prompt_version="message_analysis-00000000",
        model="claude-haiku-5-5",
        api="sandbox",
        started_at=datetime(2026, 11, 24, tzinfo=UTC),
        took_s=1.0,
        set_sha256="0123456789abcdef",
        price_usd_per_million={"input": Decimal("0.10")},
        calls=tuple(call.model_copy(update={"example": message.example}) for message in messages),
        messages=messages,
    ).model_copy(update=changes)
