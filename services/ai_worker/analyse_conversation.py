"""Analyse one claimed conversation until nothing new is left in it: ask, record, go on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog

from services.ai_worker.analyse_contact import analyse_contact, prices
from services.ai_worker.claude import Answer, Claude
from services.ai_worker.message_analysis import DEFAULT_INTENTS, DEFAULT_TONE, Accepted, NewMessage, Question, Turn
from services.ai_worker.pictures import Pictures
from services.ai_worker.pricing import Usage, share
from services.ai_worker.prompt import Task, Tier
from services.ai_worker.retries import Outcome, next_step
from services.ai_worker.template_offers import offers
from shared.store.analysis import AnalysisWork, Work
from shared.telemetry import metrics

log = structlog.get_logger()

MOST_MESSAGES = 20  # per call; a longer burst is several calls, each cheap to repeat


async def analyse_conversation(
    work: Work, *, claude: Claude, rows: AnalysisWork, pictures: Pictures, deadline_s: float
) -> None:
    """Carry one lease to its end, each round within `deadline_s`.

    Raises: Unavailable, TimeoutError when the database cannot be told; the lease then expires.
    """
    current: Work | None = work
    while current is not None:
        async with asyncio.timeout(deadline_s):
            if current.context["task"] == Task.CONVERSATION:
                current = await analyse_contact(current, claude=claude, rows=rows, most_messages=MOST_MESSAGES)
            else:
                current = await _round(current, claude=claude, rows=rows, pictures=pictures)


async def _round(current: Work, *, claude: Claude, rows: AnalysisWork, pictures: Pictures) -> Work | None:
    """Ask, record; return what arrived meanwhile."""
    question = question_of(current.context, now=datetime.now(UTC))
    reserved_usd = current.context["reserved_usd"]
    async with pictures.of(current.context["new_messages"]) as shown:
        answer = await claude.analyse_messages(
            replace(question, pictures=shown),
            tier=Tier(current.context["tier"]),
            most_usd=None if reserved_usd is None else Decimal(str(reserved_usd)),
        )
    failed = _failed(answer, question)
    log.log(
        20 if answer.outcome is Outcome.OK else 30,
        "analysis.finished",
        workspace_id=str(current.lease.workspace_id),
        conversation_id=str(current.lease.conversation_id),
        outcome=answer.outcome,
        attempt=max(message.attempt for message in question.new_messages),
        messages=len(question.new_messages),
        analysed=len(answer.accepted),
        retry_in_ms=failed["retry_in_ms"] if failed else None,
        duration_ms=answer.latency_ms,
        model=answer.model,
        prompt_version=answer.prompt_version,
        input_tokens=answer.usage.input_tokens,
        output_tokens=answer.usage.output_tokens,
        cost_usd=str(answer.cost_usd),
    )
    following = await rows.finish(
        current.lease,
        attempt=attempt_json(current.attempt_id, answer),
        results=results_json(answer),
        failed=failed,
        most_messages=MOST_MESSAGES,
        prices=prices(claude),
    )
    for accepted in answer.accepted:
        age_s = (datetime.now(UTC) - accepted.message.sent_at).total_seconds()
        metrics.ANALYSIS_WAIT_SECONDS.observe(max(0.0, age_s))
    return following


def question_of(context: dict[str, Any], *, now: datetime) -> Question:
    """Build the question from what the claim returned."""
    settings = context["settings"]
    intents = intents_of(settings.get("intents")) or DEFAULT_INTENTS
    closes_at = context["window_expires_at"]
    return Question(
        new_messages=tuple(
            NewMessage(
                message_id=UUID(m["message_id"]),
                content=m.get("transcript") or m["content"] or "",
                content_version=m["content_version"],
                sent_at=datetime.fromisoformat(m["sent_at"]),
                attempt=m["attempt"],
                kind=m["kind"],
                has_file=m["file"] is not None,
            )
            for m in context["new_messages"]
        ),
        history=tuple(
            Turn(h["direction"] == "inbound", h["content"], kind=h["kind"], reaction=h.get("reaction"))
            for h in context["history"]
        ),
        intents=intents,
        tone=str(settings.get("tone") or DEFAULT_TONE),
        is_reply_window_open=closes_at is not None and datetime.fromisoformat(closes_at) > now,
        templates=offers(context["templates"]),
    )


def intents_of(setting: object) -> dict[str, str]:
    """Read a workspace's list leniently: what an owner mistyped must not stop the analysis."""
    listed = [i for i in setting if isinstance(i, dict)] if isinstance(setting, list) else []
    return {i["name"]: str(i.get("description") or "") for i in listed if isinstance(i.get("name"), str) and i["name"]}


def _failed(answer: Answer, question: Question) -> dict[str, Any] | None:
    """Say what becomes of the messages the answer left out; None when it left out none.

    Each has its own number of tries: one that arrived a minute ago is not given up with those that failed all day.
    """
    if answer.outcome is Outcome.OK:
        return None
    done = {accepted.message.message_id for accepted in answer.accepted}
    steps = {
        message: next_step(
            answer.outcome,
            attempt=message.attempt,
            messages=len(question.new_messages),
            retry_after_s=answer.retry_after_s,
        )
        for message in question.new_messages
        if message.message_id not in done
    }
    pauses_s = [step.retry_in_s for step in steps.values() if step.retry_in_s is not None]
    return {
        "reason": answer.outcome,
        "given_up": [
            {"message_id": str(message.message_id), "content_version": message.content_version}
            for message, step in steps.items()
            if step.retry_in_s is None
        ],
        # The longest: a newcomer's short pause must not use up the tries of those before it.
        "retry_in_ms": int(max(pauses_s) * 1000) if pauses_s else None,
        "isolate": any(step.isolate for step in steps.values()),
        "not_counted": answer.outcome is Outcome.CIRCUIT_OPEN,
    }


def attempt_json(attempt_id: int, answer: Answer) -> dict[str, object]:
    """Return what is stored of a call: see finish_conversation_analysis."""
    return {
        "id": attempt_id,
        "outcome": answer.outcome,
        "model": answer.model,
        "prompt_version": answer.prompt_version,
        **_usage_json(answer.usage),
        "cost_usd": str(answer.cost_usd),
        "latency_ms": answer.latency_ms,
        "request_id": answer.request_id,
    }


def results_json(answer: Answer) -> list[dict[str, object]]:
    """Return what is stored of each message: see finish_conversation_analysis."""
    if not answer.accepted:
        return []
    shares = share(answer.usage, answer.cost_usd, parts=len(answer.accepted))
    return [_result_json(accepted, *part) for accepted, part in zip(answer.accepted, shares, strict=True)]


def _result_json(accepted: Accepted, usage: Usage, cost: object) -> dict[str, object]:
    entry = accepted.entry
    return {
        "message_id": str(accepted.message.message_id),
        "content_version": accepted.message.content_version,
        "result": accepted.result,
        "sentiment": entry.sentiment,
        "sentiment_score": entry.sentiment_score,
        "intent": entry.intent,
        "ai_summary": entry.summary,
        "suggested_response": entry.suggested_response,
        "priority": entry.priority,
        "language": entry.language,
        **_usage_json(usage),
        "cost_usd": str(cost),
    }


def _usage_json(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
