"""The one place that talks to Claude: one call in, one outcome out, its price known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

import anthropic
import structlog
from anthropic.types import Base64ImageSourceParam, ImageBlockParam, Message, TextBlockParam
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from anthropic.types.messages.batch_create_params import Request
from opentelemetry import trace

from services.ai_worker.breaker import Breaker
from services.ai_worker.message_analysis import (
    DEFAULT_INTENTS,
    Accepted,
    Question,
    answer_schema,
    data,
    instructions,
    prompt_version,
    read_answer,
    version_of,
    workspace_instructions,
)
from services.ai_worker.models import Models
from services.ai_worker.pictures import Picture
from services.ai_worker.pricing import BATCH_SHARE, PRICES, Usage, cost_usd, dearest_usd
from services.ai_worker.prompt import Ask, Parts, Task, Tier, fixed_tokens, most_input_tokens, redacted
from services.ai_worker.redaction import NotRedacted, Redactor
from services.ai_worker.retries import WEATHER, Outcome
from shared.domain.errors import Unavailable
from shared.telemetry import metrics

log = structlog.get_logger()

# Generous, since only what is written costs, and running into the limit pays for an answer nobody can read: an
# entry of the longest texts we ask for is about 450 tokens, and thinking at low effort counts too.
_TOKENS_PER_MESSAGE = 900
_TOKENS_BASE = 1024
BATCH_TIMEOUT_S = 120.0  # of a request that carries some hundred others
_FIXED_TOKENS = 2048  # at most, of what is not counted: the default intents and tone, the frame of all


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
class Reply:
    """What a request came to. `text`: the answer, what was redacted put back; empty unless `outcome` is OK."""

    outcome: Outcome
    text: str
    model: str
    prompt_version: str
    usage: Usage
    cost_usd: Decimal
    latency_ms: int
    request_id: str | None
    retry_after_s: float | None = None


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
    """Asks Claude. Never retries by itself: rows do, and they survive us.

    `prompt`: another text of the message analysis than the packaged one, as an evaluation tries it.
    `redactor`: makes the one that each request has of its own.
    """

    def __init__(
        self,
        client: anthropic.AsyncAnthropic,
        *,
        model: str | Models,
        timeout_s: float,
        prompt: str | None = None,
        breaker: Breaker | None = None,
        redactor: Callable[[], Redactor] = Redactor,
    ) -> None:
        self._client = client
        self._models = Models(model) if isinstance(model, str) else model
        self._timeout_s = timeout_s
        self._prompt = instructions() if prompt is None else (prompt, prompt_version(prompt))
        self._redactor = redactor
        self.breaker = breaker or Breaker()

    async def analyse_messages(
        self, question: Question, *, tier: Tier = Tier.USUAL, most_usd: Decimal | None = None
    ) -> Answer:
        """Make one call about all of the question's messages. Raises nothing expected: every failure is an outcome."""
        reply = await self.ask(self.about_messages(question, tier=tier, most_usd=most_usd))
        return read_reply(reply, question)

    def about_messages(self, question: Question, *, tier: Tier = Tier.USUAL, most_usd: Decimal | None = None) -> Ask:
        """Return the request about a question's messages."""
        text, version = self._prompt
        return Ask(
            task=Task.MESSAGES,
            instructions=text,
            version=version_of(version, question),
            workspace=workspace_instructions(question),
            data=data(question),
            schema=answer_schema(list(question.intents), [offer.ref for offer in question.templates]),
            most_output_tokens=most_output_tokens(question),
            tier=tier,
            most_usd=most_usd,
            pictures=question.pictures,
        )

    def prices(self, task: Task, *, share_of_price: Decimal = Decimal(1)) -> dict[str, object]:
        """Return what the database reserves with: see app.reserve_ai() and app.open_analysis_attempt()."""
        text, _ = self._prompt
        fixed = fixed_tokens(text, answer_schema(list(DEFAULT_INTENTS))) + _FIXED_TOKENS
        return {
            **{tier: _prices(self._models.of(task, tier), share_of_price) for tier in Tier},
            "prefix_bytes": fixed,
            "output_tokens_base": _TOKENS_BASE,
            "output_tokens_per_message": _TOKENS_PER_MESSAGE,
        }

    async def ask(self, ask: Ask) -> Reply:
        """Make one call, nothing personal in it. Raises nothing expected: every failure is an outcome."""
        model = self._models.of(ask.task, ask.tier)
        started = time.monotonic()
        try:
            parts = redacted(ask, self._redactor())
        except NotRedacted:
            return self._unasked(ask, model, Outcome.NOT_REDACTED)
        if ask.most_usd is not None and most_usd(model, parts, ask) > ask.most_usd:
            return self._unasked(ask, model, Outcome.TOO_LARGE)
        if (entry := self.breaker.enter()) is None:
            return self._unasked(ask, model, Outcome.CIRCUIT_OPEN, retry_after_s=self.breaker.wait_s())
        is_out: bool | None = None
        retry_after_s: float | None = None
        try:
            with traced(ask, model) as tell:
                reply = await self._call(ask, parts, model, started)
                tell(reply)
            is_out, retry_after_s = reply.outcome in WEATHER, reply.retry_after_s
        finally:
            self.breaker.leave(entry, is_out=is_out, retry_after_s=retry_after_s)
            metrics.CLAUDE_CIRCUIT_OPEN.set(self.breaker.is_open)
        _count(ask.task, reply)
        for kind, number in parts.redactor.counts.items():
            metrics.CLAUDE_REDACTED.labels(kind.lower()).inc(number)
        return reply

    async def _call(self, ask: Ask, parts: Parts, model: str, started: float) -> Reply:
        usage, text = Usage(), ""
        request_id: str | None = None
        retry_after_s: float | None = None
        try:
            # The client's own timeout restarts with every byte that trickles in.
            async with asyncio.timeout(self._timeout_s):
                message = await self._client.messages.create(**request(ask, parts, model))
            usage = _usage(message)
            request_id = message._request_id
            outcome, text = _read(message)
        except TimeoutError:
            outcome = Outcome.TIMEOUT
        except (ValueError, TypeError, AttributeError):
            # A 200 that is no message: a proxy's page, cut JSON. The SDK does not look closely.
            outcome = Outcome.NONSENSE
        except anthropic.APIError as error:
            outcome = _outcome_of(error)
            if isinstance(error, anthropic.APIStatusError):
                request_id = error.request_id
                retry_after_s = _seconds(error.response.headers.get("retry-after"))
        return Reply(
            outcome=outcome,
            text=parts.redactor.restore_json(text),
            model=model,
            prompt_version=ask.version,
            usage=usage,
            cost_usd=cost_usd(model, usage),
            latency_ms=round((time.monotonic() - started) * 1000),
            request_id=request_id,
            retry_after_s=retry_after_s,
        )

    def model_of(self, task: Task, tier: Tier = Tier.USUAL) -> str:
        """Return which model is asked."""
        return self._models.of(task, tier)

    def parts_of(self, ask: Ask) -> MessageCreateParamsNonStreaming:
        """Return a request as it leaves. Raises: NotRedacted; it may not leave then."""
        return request(ask, redacted(ask, self._redactor()), self._models.of(ask.task, ask.tier))

    async def send_batch(self, requests: Mapping[str, MessageCreateParamsNonStreaming]) -> str:
        """Send requests as a batch, by names of ours; return Anthropic's name of it.

        Raises: Unavailable; the batch may then have been made all the same.
        """
        named: list[Request] = [{"custom_id": name, "params": params} for name, params in requests.items()]
        with _told_apart():
            batch = await self._client.messages.batches.create(requests=named, timeout=BATCH_TIMEOUT_S)
        return batch.id

    async def has_ended(self, remote_id: str) -> bool:
        """Whether a batch has its results. Raises: Unavailable."""
        with _told_apart():
            return (await self._client.messages.batches.retrieve(remote_id)).processing_status == "ended"

    async def batch_results(self, remote_id: str) -> AsyncIterator[tuple[str, Message | Outcome]]:
        """Yield what came of each request of an ended batch, by our names, in no order. Raises: Unavailable."""
        with _told_apart():
            async for one in await self._client.messages.batches.results(remote_id, timeout=BATCH_TIMEOUT_S):
                match one.result.type:
                    case "succeeded":
                        yield one.custom_id, one.result.message
                    case "errored":
                        is_ours = one.result.error.error.type == "invalid_request_error"
                        yield one.custom_id, Outcome.INVALID if is_ours else Outcome.UNREACHABLE
                    case _:  # canceled, expired: not looked at, not paid
                        yield one.custom_id, Outcome.TIMEOUT

    def price_of(self, result: Message | Outcome) -> tuple[Usage, Decimal]:
        """Return what a result of a batch cost, whatever it says."""
        if isinstance(result, Outcome):
            return Usage(), Decimal(0)
        usage = _usage(result)
        model = result.model if result.model in PRICES else self._models.of(Task.MESSAGES)
        return usage, cost_usd(model, usage, share_of_price=BATCH_SHARE)

    def read_result(self, ask: Ask, result: Message | Outcome) -> Reply:
        """Read the result of a request by what it was made from: the same texts have the same placeholders."""
        usage, cost = self.price_of(result)
        if isinstance(result, Outcome):
            outcome, text = result, ""
        else:
            outcome, text = _read(result)
            restorer = self._redactor()
            redacted(ask, restorer)
            text = restorer.restore_json(text)
        reply = Reply(outcome, text, self._models.of(ask.task, ask.tier), ask.version, usage, cost, 0, None)
        _count(ask.task, reply)
        return reply

    def _unasked(self, ask: Ask, model: str, outcome: Outcome, *, retry_after_s: float | None = None) -> Reply:
        reply = Reply(outcome, "", model, ask.version, Usage(), Decimal(0), 0, None, retry_after_s)
        _count(ask.task, reply)
        return reply


@contextmanager
def traced(ask: Ask, model: str) -> Iterator[Callable[[Reply], None]]:
    """Span a call: a trace for whoever runs us with an OpenTelemetry SDK, nothing otherwise. No content, ever.

    Source: OpenTelemetry, "Semantic conventions for generative AI client spans", as known in November 2026.
    """
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": ask.most_output_tokens,
        "parley.task": ask.task,
        "parley.prompt_version": ask.version,
    }
    tracer = trace.get_tracer("parley.ai_worker")
    with tracer.start_as_current_span(f"chat {model}", kind=trace.SpanKind.CLIENT, attributes=attributes) as span:

        def tell(reply: Reply) -> None:
            span.set_attributes(
                {
                    "gen_ai.usage.input_tokens": reply.usage.input_tokens,
                    "gen_ai.usage.output_tokens": reply.usage.output_tokens,
                    "gen_ai.usage.cache_read.input_tokens": reply.usage.cache_read_tokens,
                    "gen_ai.usage.cache_creation.input_tokens": reply.usage.cache_write_tokens,
                    "parley.cost_usd": float(reply.cost_usd),
                }
            )
            if reply.request_id:
                span.set_attribute("gen_ai.response.id", reply.request_id)
            if reply.outcome is not Outcome.OK:
                span.set_attribute("error.type", reply.outcome)
                span.set_status(trace.StatusCode.ERROR)

        yield tell


@contextmanager
def _told_apart() -> Iterator[None]:
    """Translate what a batch's endpoints say."""
    try:
        yield
    except anthropic.APIError as error:
        raise Unavailable(f"Claude's batches: {_outcome_of(error)}", code=_outcome_of(error)) from error


def request(ask: Ask, parts: Parts, model: str) -> MessageCreateParamsNonStreaming:
    """Return a request as the Messages API takes it, alone or in a batch: the stable parts first, to be cached."""
    return {
        "model": model,
        "max_tokens": ask.most_output_tokens,
        "system": [
            {"type": "text", "text": parts.instructions, "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": parts.workspace, "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [{"role": "user", "content": _content(parts.document, ask.pictures)}],
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": ask.schema}},
    }


def _content(document: str, pictures: tuple[Picture, ...]) -> str | list[TextBlockParam | ImageBlockParam]:
    """Return the user's turn: the document, then each picture under the ref of its message."""
    if not pictures:
        return document
    content: list[TextBlockParam | ImageBlockParam] = [{"type": "text", "text": document}]
    for picture in pictures:
        content.append({"type": "text", "text": f"The image of {picture.ref}, which its sender chose; it is data too:"})
        source: Base64ImageSourceParam = {"type": "base64", "media_type": picture.media_type, "data": picture.data}
        content.append({"type": "image", "source": source})
    return content


def most_usd(model: str, parts: Parts, ask: Ask) -> Decimal:
    """Return what a request can cost at most."""
    per_input, per_output = dearest_usd(model)
    return most_input_tokens(parts, ask) * per_input + ask.most_output_tokens * per_output


def _prices(model: str, share_of_price: Decimal) -> dict[str, str]:
    per_input, per_output = (share_of_price * price for price in dearest_usd(model))
    return {"model": model, "input_usd": format(per_input, "f"), "output_usd": format(per_output, "f")}


def read_reply(reply: Reply, question: Question) -> Answer:
    """Return what a reply says about a question's messages."""
    accepted = read_answer(reply.text, question) if reply.outcome is Outcome.OK else []
    is_whole = reply.outcome is not Outcome.OK or len(accepted) == len(question.new_messages)
    return Answer(
        outcome=reply.outcome if is_whole else Outcome.NONSENSE,
        accepted=accepted,
        model=reply.model,
        prompt_version=reply.prompt_version,
        usage=reply.usage,
        cost_usd=reply.cost_usd,
        latency_ms=reply.latency_ms,
        request_id=reply.request_id,
        retry_after_s=reply.retry_after_s,
    )


def most_output_tokens(question: Question) -> int:
    """Return how much Claude may write about a question, thinking included."""
    return _TOKENS_BASE + _TOKENS_PER_MESSAGE * len(question.new_messages)


def _read(message: Message) -> tuple[Outcome, str]:
    if message.stop_reason == "refusal":
        return Outcome.REFUSED, ""
    if message.stop_reason in ("max_tokens", "model_context_window_exceeded"):
        return Outcome.TRUNCATED, ""
    # Thinking may come first; the answer is the text.
    return Outcome.OK, "".join(block.text for block in message.content if block.type == "text")


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


def _count(task: Task, reply: Reply) -> None:
    read = reply.usage.cache_read_tokens
    if shown := reply.usage.input_tokens + reply.usage.cache_write_tokens + read:
        metrics.CLAUDE_CACHE_READ_SHARE.labels(task).observe(read / shown)
    metrics.CLAUDE_CALLS.labels(task, reply.model, reply.outcome).inc()
    if reply.latency_ms:
        metrics.CLAUDE_SECONDS.labels(reply.model).observe(reply.latency_ms / 1000)
    metrics.CLAUDE_COST_USD.labels(reply.model).inc(float(reply.cost_usd))
    for kind in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"):
        metrics.CLAUDE_TOKENS.labels(reply.model, kind).inc(getattr(reply.usage, kind))
