"""What leaves for Claude, seen where it arrives: nothing personal, the right model, no more than was reserved."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace

from services.ai_worker.breaker import Breaker
from services.ai_worker.claude import Answer, Claude, connect
from services.ai_worker.message_analysis import DEFAULT_INTENTS, NewMessage, Question, Turn
from services.ai_worker.models import Models
from services.ai_worker.prompt import Tier
from services.ai_worker.redaction import Redactor
from services.ai_worker.retries import Outcome
from shared.domain.ids import new_id
from shared.telemetry import metrics
from tests.personal import personal, some_personal

from .conftest import Sandbox

pytestmark = pytest.mark.usefixtures("calm")

HAIKU, SONNET = "claude-haiku-5-5", "claude-sonnet-5-5"


def question(*texts: str, history: tuple[str, ...] = (), tone: str = "Friendly.") -> Question:
    return Question(
        new_messages=tuple(NewMessage(new_id(), text, 1, datetime.now(UTC)) for text in texts),
        history=tuple(Turn(True, text) for text in history),
        intents=DEFAULT_INTENTS,
        tone=tone,
        is_reply_window_open=True,
    )


async def ask(sandbox: Sandbox, asked: Question, *, model: str | Models = HAIKU, **more: Any) -> Answer:
    made = {name: more.pop(name) for name in ("breaker", "redactor") if name in more}
    async with connect(api_key="sandbox", base_url=sandbox.url, timeout_s=10) as client:
        return await Claude(client, model=model, timeout_s=10, **made).analyse_messages(asked, **more)


def arrived(sandbox: Sandbox) -> list[dict[str, Any]]:
    return list(sandbox.calls()["calls"])


# --- redaction --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(personal(), min_size=3, max_size=3), words=st.text("abc éñ!?\n", max_size=10))
def test_nothing_personal_leaves_the_process(sandbox: Sandbox, values: list[str], words: str) -> None:
    before, now, tone = values
    sandbox.faults(record_prompts=True)
    sandbox.http.delete("/sandbox/claude/calls")

    asked = question(f"{words}{now} {words}", history=(f"{before} {words}",), tone=f"Sign with {tone}")
    asyncio.run(ask(sandbox, asked))

    [call] = arrived(sandbox)
    system = [block["text"] for block in call["prompt"]["system"][1:]]  # the first is ours alone, and says [EMAIL_1]
    sent = json.dumps([system, call["prompt"]["messages"]], ensure_ascii=False)
    assert sent.count("_1]") >= 1
    for value in values:
        assert not some_personal(value, sent), value


async def test_what_was_taken_out_is_back_in_what_is_stored(sandbox: Sandbox) -> None:
    text = "Blue door, ana.souza@example.com"  # nothing the sandbox has words for: it repeats it

    [accepted] = (await ask(sandbox, question(text))).accepted

    assert "ana.souza@example.com" in accepted.entry.summary
    assert "[EMAIL" not in json.dumps(accepted.result)
    for name in ("sentiment", "intent", "summary", "priority"):
        for quote in accepted.result[name]["evidence"]:
            assert text[quote["start"] : quote["end"]] == quote["quote"]


class Careless(Redactor):
    """A redactor that fails in a way somebody could make it fail."""

    def text(self, text: str, *, most_characters: int | None = None) -> str:
        if "card" in text:
            raise RecursionError
        return text


async def test_a_redactor_that_fails_sends_nothing(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecursionError):
        await ask(sandbox, question("my card"), redactor=Careless)

    monkeypatch.setattr("services.ai_worker.redaction.spans", lambda text: [])
    answer = await ask(sandbox, question("Pay with 4111 1111 1111 1111"))

    assert (answer.outcome, answer.accepted, answer.cost_usd) == (Outcome.NOT_REDACTED, [], 0)
    assert arrived(sandbox) == []


# --- models, reservations, the breaker --------------------------------------------------------------------------------


@pytest.mark.parametrize(("tier", "model"), [(Tier.USUAL, SONNET), (Tier.CHEAP, HAIKU)])
async def test_the_tier_decides_which_model_is_asked_and_paid(sandbox: Sandbox, tier: Tier, model: str) -> None:
    answer = await ask(sandbox, question("Hello?"), model=Models(SONNET, cheap=HAIKU), tier=tier)

    assert [call["model"] for call in arrived(sandbox)] == [answer.model] == [model]
    assert answer.outcome is Outcome.OK
    assert answer.cost_usd > 0


async def test_what_could_cost_more_than_was_reserved_is_not_asked(sandbox: Sandbox) -> None:
    answer = await ask(sandbox, question("Hello?"), most_usd=Decimal("0.00001"))

    assert (answer.outcome, answer.cost_usd) == (Outcome.TOO_LARGE, 0)
    assert arrived(sandbox) == []


async def test_while_claude_is_out_only_a_probe_goes(sandbox: Sandbox) -> None:
    at = [0.0]
    breaker = Breaker(failures_to_open=3, pauses_s=(5, 10), now=lambda: at[0])
    sandbox.faults(claude={"mode": "server_error"})

    async def outcomes(calls: int) -> list[str]:
        return [(await ask(sandbox, question("Hello?"), breaker=breaker)).outcome for _ in range(calls)]

    assert await outcomes(5) == ["unreachable"] * 3 + ["circuit_open"] * 2
    at[0] = 5
    assert await outcomes(2) == ["unreachable", "circuit_open"]  # the probe failed: a longer pause
    at[0] = 14
    assert await outcomes(1) == ["circuit_open"]
    sandbox.faults()
    at[0] = 15
    assert await outcomes(3) == ["ok"] * 3
    assert len(arrived(sandbox)) == 3 + 1 + 3


async def test_a_half_open_breaker_lets_one_call_through_at_a_time(sandbox: Sandbox) -> None:
    at = [0.0]
    breaker = Breaker(failures_to_open=1, pauses_s=(5,), now=lambda: at[0])
    sandbox.faults(claude={"mode": "overloaded", "times": 1})
    await ask(sandbox, question("Hello?"), breaker=breaker)
    sandbox.faults(claude={"latency_ms": 300})
    at[0] = 6

    answers = await asyncio.gather(*(ask(sandbox, question("Hello?"), breaker=breaker) for _ in range(4)))

    assert sorted(answer.outcome for answer in answers) == ["circuit_open"] * 3 + ["ok"]


async def test_a_call_that_is_called_off_neither_closes_nor_jams_the_breaker(sandbox: Sandbox) -> None:
    at = [0.0]
    breaker = Breaker(failures_to_open=1, pauses_s=(5,), now=lambda: at[0])
    sandbox.faults(claude={"mode": "overloaded", "times": 1})
    await ask(sandbox, question("Hello?"), breaker=breaker)
    at[0] = 6
    sandbox.faults(claude={"latency_ms": 5_000})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(sandbox, question("Hello?"), breaker=breaker), 0.3)
    sandbox.faults()

    assert (breaker.is_open, breaker.admits(64)) == (True, 1)
    assert (await ask(sandbox, question("Hello?"), breaker=breaker)).outcome is Outcome.OK
    assert breaker.admits(64) == 64


async def test_the_stable_parts_are_read_from_the_cache(sandbox: Sandbox) -> None:
    asked = question("Hello?", tone=f"Brief, as {new_id().hex[:6]} says.")

    first, second = (
        await ask(sandbox, asked),
        await ask(sandbox, dataclasses.replace(asked, history=(Turn(True, "x"),))),
    )

    assert first.usage.cache_write_tokens > 0
    assert second.usage.cache_write_tokens == 0
    assert second.usage.cache_read_tokens > second.usage.input_tokens


# --- what is told of it -----------------------------------------------------------------------------------------------


class Span(trace.NonRecordingSpan):
    """Keeps what it is told."""

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self.name, self.attributes = name, dict(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def set_attributes(self, attributes: Any) -> None:
        self.attributes |= attributes


async def test_a_call_is_a_span_by_the_conventions_without_a_word_of_what_was_said(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: list[Span] = []

    class Tracer(trace.NoOpTracer):
        @contextlib.contextmanager
        def start_as_current_span(self, name: str, *_: Any, **more: Any) -> Iterator[trace.Span]:  # type: ignore[override]
            spans.append(Span(name, more["attributes"]))
            yield spans[-1]

    monkeypatch.setattr(trace, "get_tracer", lambda *_: Tracer())
    answer = await ask(sandbox, question("Blue door, whispered"))
    sandbox.faults(claude={"mode": "overloaded"})
    await ask(sandbox, question("Blue door, whispered"))

    [good, bad] = spans
    assert good.name == "chat claude-haiku-5-5"
    assert good.attributes["gen_ai.usage.input_tokens"] == answer.usage.input_tokens > 0
    assert good.attributes["gen_ai.response.id"] == answer.request_id
    assert "error.type" not in good.attributes
    assert bad.attributes["error.type"] == "overloaded"
    assert "whispered" not in json.dumps([span.attributes for span in spans])


async def test_the_share_read_from_the_cache_is_measured(sandbox: Sandbox) -> None:
    def measured() -> tuple[float, float]:
        [metric] = metrics.CLAUDE_CACHE_READ_SHARE.collect()
        samples = {s.name: s.value for s in metric.samples if s.labels == {"task": "message_analysis"}}
        return samples.get("claude_cache_read_share_count", 0), samples.get("claude_cache_read_share_sum", 0)

    asked = question("Hello?", tone=f"As {new_id().hex[:6]} says.")
    await ask(sandbox, asked)
    before = measured()
    answer = await ask(sandbox, asked)

    after = measured()
    read, usage = answer.usage.cache_read_tokens, answer.usage
    share = read / (usage.input_tokens + usage.cache_write_tokens + read)
    assert after[0] - before[0] == 1
    assert after[1] - before[1] == pytest.approx(share)
    assert share > 0.5


def test_a_call_from_before_the_circuit_opened_does_not_speak_for_the_probe() -> None:
    breaker = Breaker(failures_to_open=1, pauses_s=(0,))
    old, other = breaker.enter(), breaker.enter()
    assert old
    assert other
    breaker.leave(other, is_out=True)
    probe = breaker.enter()
    assert probe

    breaker.leave(old, is_out=True)

    assert breaker.enter() is None
    breaker.leave(probe, is_out=False)
    assert not breaker.is_open
