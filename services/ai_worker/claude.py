"""The one place that talks to Claude: one call in, one outcome out, its price known."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from decimal import Decimal

import anthropic
import structlog
from anthropic.types import Message

from services.ai_worker.message_analysis import (
    Accepted,
    Question,
    answer_schema,
    data_document,
    instructions,
    prompt_version,
    read_answer,
    workspace_instructions,
)
from services.ai_worker.pricing import Usage, cost_usd
from services.ai_worker.retries import Outcome
from shared.telemetry import metrics

log = structlog.get_logger()

# Generous, since only what is written costs, and running into the limit pays for an answer nobody can read: an
# entry of the longest texts we ask for is about 450 tokens, and thinking at low effort counts too.
_TOKENS_PER_MESSAGE = 900
_TOKENS_BASE = 1024


def connect(*, api_key: str, base_url: str, timeout_s: float) -> anthropic.AsyncAnthropic:
    """Return a client of the Claude API as `Claude` needs it; use it as a context manager."""
    return anthropic.AsyncAnthropic(
        api_key=api_key,
        base_url=base_url,
        timeout=timeout_s,
        max_retries=0,  # rows retry, and survive us; the library would also sleep whatever Retry-After says
        open_telemetry=False,  # no trace context leaves the house
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to. `accepted` may miss messages even when something came back."""

    outcome: Outcome
    accepted: list[Accepted]
    model: str
    prompt_version: str
    usage: Usage
    cost_usd: Decimal
    latency_ms: int
    request_id: str | None
    retry_after_s: float | None = None


class Claude:
    """Asks Claude about messages. Never retries by itself: rows do, and they survive us.

    `prompt`: another text than the packaged one, as an evaluation tries it.
    """

    def __init__(
        self, client: anthropic.AsyncAnthropic, *, model: str, timeout_s: float, prompt: str | None = None
    ) -> None:
        self._client = client
        self._model = model
        self._timeout_s = timeout_s
        self._prompt = instructions() if prompt is None else (prompt, prompt_version(prompt))

    async def analyse_messages(self, question: Question) -> Answer:
        """Make one call about all of the question's messages. Raises nothing expected: every failure is an outcome."""
        text, version = self._prompt
        started = time.monotonic()
        usage = Usage()
        request_id: str | None = None
        retry_after_s: float | None = None
        try:
            # The client's own timeout restarts with every byte that trickles in.
            async with asyncio.timeout(self._timeout_s):
                message = await self._ask(text, question)
            usage = _usage(message)
            request_id = message._request_id
            outcome, accepted = _read(message, question)
        except TimeoutError:
            outcome, accepted = Outcome.TIMEOUT, []
        except (ValueError, TypeError, AttributeError):
            # A 200 that is no message: a proxy's page, cut JSON. The SDK does not look closely.
            outcome, accepted = Outcome.NONSENSE, []
        except anthropic.APIError as error:
            outcome, accepted = _outcome_of(error), []
            if isinstance(error, anthropic.APIStatusError):
                request_id = error.request_id
                retry_after_s = _seconds(error.response.headers.get("retry-after"))
        answer = Answer(
            outcome=outcome,
            accepted=accepted,
            model=self._model,
            prompt_version=version,
            usage=usage,
            cost_usd=cost_usd(self._model, usage),
            latency_ms=round((time.monotonic() - started) * 1000),
            request_id=request_id,
            retry_after_s=retry_after_s,
        )
        _count(answer)
        return answer

    async def _ask(self, text: str, question: Question) -> Message:
        return await self._client.messages.create(
            model=self._model,
            max_tokens=most_output_tokens(question),
            system=[
                {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}},
                {
                    "type": "text",
                    "text": workspace_instructions(question),
                    "cache_control": {"type": "ephemeral"},
                },
            ],
            messages=[{"role": "user", "content": data_document(question)}],
            output_config={
                "effort": "low",
                "format": {"type": "json_schema", "schema": answer_schema(list(question.intents))},
            },
        )


def most_output_tokens(question: Question) -> int:
    """Return how much Claude may write about a question, thinking included."""
    return _TOKENS_BASE + _TOKENS_PER_MESSAGE * len(question.new_messages)


def _read(message: Message, question: Question) -> tuple[Outcome, list[Accepted]]:
    if message.stop_reason == "refusal":
        return Outcome.REFUSED, []
    if message.stop_reason in ("max_tokens", "model_context_window_exceeded"):
        return Outcome.TRUNCATED, []
    # Thinking may come first; the answer is the text.
    text = "".join(block.text for block in message.content if block.type == "text")
    accepted = read_answer(text, question)
    return (Outcome.OK if len(accepted) == len(question.new_messages) else Outcome.NONSENSE), accepted


def _outcome_of(error: anthropic.APIError) -> Outcome:
    """Translate the SDK's errors; the one table."""
    if isinstance(error, anthropic.APITimeoutError):
        return Outcome.TIMEOUT
    if not isinstance(error, anthropic.APIStatusError):
        return Outcome.UNREACHABLE
    match error.status_code:
        case 401 | 402 | 403 | 404:  # key, credit, permission, model
            return Outcome.NOT_AUTHORISED
        case 429 | 529:
            return Outcome.OVERLOADED
        case 408 | 504:
            return Outcome.TIMEOUT
        case status if status >= 500:
            return Outcome.UNREACHABLE
        case _:
            return Outcome.INVALID


def _usage(message: Message) -> Usage:
    return Usage(
        input_tokens=message.usage.input_tokens,
        output_tokens=message.usage.output_tokens,
        cache_read_tokens=message.usage.cache_read_input_tokens or 0,
        cache_write_tokens=message.usage.cache_creation_input_tokens or 0,
    )


def _seconds(header: str | None) -> float | None:
    try:
        return float(header) if header is not None else None
    except ValueError:
        return None


def _count(answer: Answer) -> None:
    metrics.CLAUDE_CALLS.labels(answer.model, answer.outcome).inc()
    metrics.CLAUDE_SECONDS.labels(answer.model).observe(answer.latency_ms / 1000)
    metrics.CLAUDE_COST_USD.labels(answer.model).inc(float(answer.cost_usd))
    for kind in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"):
        metrics.CLAUDE_TOKENS.labels(answer.model, kind).inc(getattr(answer.usage, kind))
