"""Read one claimed conversation as a whole: ask, score, record; what it says of the contact is kept with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog

from services.ai_worker.claude import Claude, Reply
from services.ai_worker.conversation_analysis import (
    LISTS,
    Accepted,
    Finding,
    OpenTask,
    Question,
    Turn,
    answer_schema,
    data,
    instructions,
    normalised,
    read_answer,
    result_json,
    workspace_instructions,
)
from services.ai_worker.prompt import Ask, Task, Tier
from services.ai_worker.retries import Outcome, next_step
from shared.domain import score as scoring
from shared.domain.ids import new_id
from shared.store.analysis import AnalysisWork, Work

log = structlog.get_logger()

# Three tasks with the longest titles, five tags and all quotations are about 900 tokens; thinking counts too.
MOST_OUTPUT_TOKENS = 4096
_FRAME_BYTES = 2048  # what a request holds besides the prompt, the answer's form, the lists and the messages


def prices(claude: Claude) -> dict[str, object]:
    """Return what the database reserves with, whichever it opens: see app.open_analysis_attempt()."""
    conversation = claude.prices(Task.CONVERSATION) | {
        "prefix_bytes": _fixed_bytes(),
        "output_tokens": MOST_OUTPUT_TOKENS,
    }
    return claude.prices(Task.MESSAGES) | {"conversation": conversation}


@cache
def _fixed_bytes() -> int:
    form = json.dumps(answer_schema({name: {} for name in LISTS}))
    return len(instructions()[0].encode()) + len(form) + _FRAME_BYTES


async def analyse_contact(current: Work, *, claude: Claude, rows: AnalysisWork, most_messages: int) -> Work | None:
    """Ask about the whole conversation and record; return what arrived meanwhile.

    Raises: Unavailable when the database cannot be told; the lease then expires.
    """
    context = current.context
    question = question_of(context, now=datetime.now(UTC))
    reply = await claude.ask(ask_about(question, context))
    accepted = read_answer(reply.text, question) if reply.outcome is Outcome.OK else None
    outcome = Outcome.NONSENSE if reply.outcome is Outcome.OK and accepted is None else reply.outcome
    score = scored(question, accepted, context["lists"]["score"]) if accepted else None
    retry_in_s = None
    if accepted is None:
        step = next_step(outcome, attempt=context["attempt"], messages=1, retry_after_s=reply.retry_after_s)
        retry_in_s = step.retry_in_s
    log.log(
        20 if accepted else 30,
        "contact_analysis.finished",
        workspace_id=str(current.lease.workspace_id),
        conversation_id=str(current.lease.conversation_id),
        outcome=outcome,
        attempt=context["attempt"],
        messages=len(question.turns),
        retry_in_ms=None if retry_in_s is None else int(retry_in_s * 1000),
        duration_ms=reply.latency_ms,
        model=reply.model,
        prompt_version=reply.prompt_version,
        input_tokens=reply.usage.input_tokens,
        output_tokens=reply.usage.output_tokens,
        cost_usd=str(reply.cost_usd),
    )
    return await rows.finish_contact(
        current.lease,
        attempt=_attempt_json(current.attempt_id, reply, outcome),
        analysis=_analysis_json(context["content_version"], question, accepted, score) if accepted and score else None,
        retry_in_s=retry_in_s,
        most_messages=most_messages,
        prices=prices(claude),
    )


def question_of(context: Mapping[str, Any], *, now: datetime) -> Question:
    """Build the question from what the claim returned."""
    return Question(
        turns=tuple(
            Turn(
                message_id=UUID(m["message_id"]),
                content_version=m["content_version"],
                is_customer=m["direction"] == "inbound",
                content=m["content"],
                sent_at=datetime.fromisoformat(m["sent_at"]),
                sentiment_score=m["sentiment_score"],
                reactions=tuple(m["reactions"]),
            )
            for m in context["messages"]
        ),
        stage=context["contact"]["stage"],
        tags=tuple(context["contact"]["tags"]),
        open_tasks=tuple(
            OpenTask(t["title"], datetime.fromisoformat(t["due_at"]) if t["due_at"] else None)
            for t in context["open_tasks"]
        ),
        lists={name: {entry["name"]: entry["description"] for entry in context["lists"][name]} for name in LISTS},
        time_zone=_zone(context["time_zone"]),
        now=now,
    )


def _zone(name: str) -> ZoneInfo:
    """A time zone nobody knows counts as UTC, as it does for the budget: a typing error must not stop the analyses."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def ask_about(question: Question, context: Mapping[str, Any]) -> Ask:
    """Return the request, under what was reserved for it."""
    text, version = instructions()
    reserved_usd = context["reserved_usd"]
    return Ask(
        task=Task.CONVERSATION,
        instructions=text,
        version=version,
        workspace=workspace_instructions(question),
        data=data(question),
        schema=answer_schema(question.lists),
        most_output_tokens=MOST_OUTPUT_TOKENS,
        tier=Tier(context["tier"]),
        most_usd=None if reserved_usd is None else Decimal(str(reserved_usd)),
    )


def scored(question: Question, accepted: Accepted, setting: object) -> scoring.Score:
    """Work the contact's score out: what Claude judged, and what can be counted."""
    said = [turn for turn in question.turns if turn.is_customer]
    inbound_at = [turn.sent_at for turn in said]
    features = {name: found.value for name, found in accepted.features.items()} | {
        "sentiment_trend": scoring.sentiment_trend(
            [turn.sentiment_score for turn in said if turn.sentiment_score is not None]
        ),
        "engagement": scoring.engagement(inbound_at, now=question.now),
        "recency": scoring.recency(max(inbound_at, default=None), now=question.now),
    }
    return scoring.score(features, scoring.weights_of(setting))


def _attempt_json(attempt_id: int, reply: Reply, outcome: Outcome) -> dict[str, object]:
    return {
        "id": attempt_id,
        "outcome": outcome,
        "model": reply.model,
        "prompt_version": reply.prompt_version,
        **asdict(reply.usage),
        "cost_usd": str(reply.cost_usd),
        "latency_ms": reply.latency_ms,
        "request_id": reply.request_id,
    }


def _analysis_json(
    content_version: str, question: Question, accepted: Accepted, score: scoring.Score
) -> dict[str, object]:
    return {
        "content_version": content_version,
        "read": [
            {"message_id": str(turn.message_id), "content_version": turn.content_version} for turn in question.turns
        ],
        "result": result_json(accepted),
        "score": score.points,
        "reasons": {"features": {name: asdict(part) for name, part in score.parts.items()}},
        "half_life_days": score.half_life_days,
        "stage": _named(accepted.stage) if accepted.stage else None,
        "tags": [_named(tag) for tag in accepted.tags],
        "tasks": [
            {
                "id": str(new_id()),
                "kind": task.kind,
                "title": task.title,
                "key": task.key,
                "due_at": task.due_at.isoformat() if task.due_at else None,
                "team": task.team,
                "confidence": task.confidence,
                "evidence": list(task.evidence),
            }
            for task in accepted.tasks
        ],
    }


def _named(found: Finding) -> dict[str, object]:
    """With an id: that of its proposal, should it become one."""
    return {
        "id": str(new_id()),
        "name": found.value,
        "key": normalised(found.value),
        "confidence": found.confidence,
    }
