"""Putting a labelled set before Claude, some calls at a time, and judging what comes back."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from services.ai_worker.breaker import Breaker
from services.ai_worker.claude import Answer, Claude
from services.ai_worker.examples import Example
from services.ai_worker.pricing import PRICES
from services.ai_worker.retries import Outcome
from tests.evals.judge import judge
from tests.evals.results import Api, Call, Judged, Results
from tests.evals.sets import LabelledSet, language_of

PAUSES_S = (1.0, 5.0, 20.0)  # before another try, when Claude or the way there says "later"
_LATER = (Outcome.OVERLOADED, Outcome.TIMEOUT, Outcome.UNREACHABLE)


def patient() -> Breaker:
    """Return a circuit that never opens: an evaluation is short, waits by itself, and must ask about every example."""
    return Breaker(failures_to_open=sys.maxsize)


class NotAuthorised(Exception):
    """The key is not accepted; going on would fail 190 times more."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt to evaluate: `name` is its file's or "packaged"; `text` None is the packaged one."""

    name: str
    text: str | None


async def evaluate(
    labelled: LabelledSet,
    claude: Claude,
    *,
    candidate: Candidate,
    model: str,
    api: Api,
    at_once: int,
    on_done: Callable[[], None] = lambda: None,
    pauses_s: Sequence[float] = PAUSES_S,
) -> Results:
    """Ask about every example and return the judged results. Raises: NotAuthorised."""
    slots = asyncio.Semaphore(at_once)
    started, started_at = time.monotonic(), datetime.now(UTC)

    async def one(example: Example) -> list[Answer]:
        async with slots:
            answers = await _ask(claude, example, pauses_s)
        on_done()
        return answers

    refusal: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(example)) for example in labelled.examples]
    except* NotAuthorised as refused:
        refusal = refused.exceptions[0]
    if refusal is not None:  # raised in there, it would come out in a group of its own
        raise refusal
    asked = list(zip(labelled.examples, (task.result() for task in tasks), strict=True))
    return Results(
        prompt=candidate.name,
        prompt_version=asked[0][1][-1].prompt_version,
        model=model,
        api=api,
        started_at=started_at,
        took_s=round(time.monotonic() - started, 2),
        set_sha256=labelled.sha256,
        price_usd_per_million=asdict(PRICES[model]),
        calls=tuple(_call(example, answers) for example, answers in asked),
        messages=tuple(judged for example, answers in asked for judged in _judged(example, answers[-1])),
    )


async def _ask(claude: Claude, example: Example, pauses_s: Sequence[float]) -> list[Answer]:
    """Ask until there is an answer or no pause is left; return every try."""
    question = example.question()
    answers: list[Answer] = []
    for pause_s in (*pauses_s, None):
        answer = await claude.analyse_messages(question)
        answers.append(answer)
        if answer.outcome is Outcome.NOT_AUTHORISED:
            raise NotAuthorised(f"Claude does not accept the key, or does not know the model {answer.model}")
        if answer.outcome not in _LATER or pause_s is None:
            break
        await asyncio.sleep(max(pause_s, min(answer.retry_after_s or 0.0, 60.0)))
    return answers


def _call(example: Example, answers: Sequence[Answer]) -> Call:
    return Call(
        example=example.id,
        outcome=answers[-1].outcome,
        tries=len(answers),
        latency_ms=answers[-1].latency_ms,
        cost_usd=sum((answer.cost_usd for answer in answers[1:]), answers[0].cost_usd),
        input_tokens=sum(answer.usage.input_tokens for answer in answers),
        output_tokens=sum(answer.usage.output_tokens for answer in answers),
        cache_read_tokens=sum(answer.usage.cache_read_tokens for answer in answers),
        cache_write_tokens=sum(answer.usage.cache_write_tokens for answer in answers),
    )


def _judged(example: Example, answer: Answer) -> list[Judged]:
    accepted = {one.message.message_id: one for one in answer.accepted}
    judged = []
    for number, (labelled, asked) in enumerate(zip(example.new_messages, example.question().new_messages, strict=True)):
        found = accepted.get(asked.message_id)
        judged.append(
            Judged(
                example=example.id,
                number=number,
                language=language_of(example),
                tags=tuple(example.tags),
                verdicts=judge(labelled.labels, found),
                summary=found.entry.summary if found else "",
                suggested_response=found.entry.suggested_response if found else "",
            )
        )
    return judged
