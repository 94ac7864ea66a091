"""The conversation analysis: what Claude is asked about a whole conversation, and what of its answer we accept.

Pure: no I/O, no clock. What may be done with it is decided where it is stored, against the workspace's own lists.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from importlib import resources
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from services.ai_worker.redaction import spans

# Of what we believe of an answer: a customer can talk a model into anything, and an agent has to read it.
MOST_SUMMARY = 600
MOST_NAME = 40  # of a tag or stage nobody has listed
MOST_TITLE = 120
MOST_EVIDENCE = 300
MOST_TAGS, MOST_NEW_TAGS, MOST_TASKS = 10, 3, 5
# Less sure than this, a tag, stage or task is not worth an agent's look.
LEAST_CONFIDENCE = 0.5
MOST_DUE = timedelta(days=366)

FEATURES = ("intent_strength", "value_signals")  # those Claude judges; the others are counted
LISTS = ("stages", "tags", "task_kinds", "teams")
# As in the message analysis: what shows nothing, or shows letters in another order than they are stored.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_NOT_IN_A_NAME = re.compile(r"[^\w &+'’-]+")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message, whoever wrote it."""

    message_id: UUID
    content_version: int
    is_customer: bool
    content: str
    sent_at: datetime
    sentiment_score: float | None
    reactions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenTask:
    """What somebody has to do already."""

    title: str
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Question:
    """What one call is about. `lists`: names with descriptions, by stages, tags, task_kinds and teams."""

    turns: tuple[Turn, ...]
    stage: str | None
    tags: tuple[str, ...]
    open_tasks: tuple[OpenTask, ...]
    lists: Mapping[str, Mapping[str, str]]
    time_zone: ZoneInfo
    now: datetime


@dataclass(frozen=True, slots=True)
class Finding:
    """Something Claude says, how sure it is, and the words it rests on: [{message_id, start, end, quote}]."""

    value: Any
    confidence: float
    evidence: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True)
class TaskFound:
    """Something to do. `key`: what makes two tasks of a conversation the same."""

    kind: str
    title: str
    key: str
    due_at: datetime | None
    team: str | None
    confidence: float
    evidence: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What we make of an answer. Tags and stage may be on no list: then they can only be proposed."""

    summary: str
    features: Mapping[str, Finding]
    stage: Finding | None
    tags: tuple[Finding, ...]
    tasks: tuple[TaskFound, ...]


@cache
def instructions() -> tuple[str, str]:
    """Return the prompt's text and its version, which changes whenever the text or the answer's form does."""
    text = resources.files("services.ai_worker").joinpath("prompts/conversation_analysis.md").read_text("utf-8")
    form = json.dumps(answer_schema({name: {"name": ""} for name in LISTS}), sort_keys=True)
    return text, f"conversation_analysis-{hashlib.sha256((text + form).encode()).hexdigest()[:8]}"


def workspace_instructions(question: Question) -> str:
    """Return what is stable for a workspace: its lists; cached at Claude beside the instructions."""
    headings = {"stages": "stages", "tags": "tags", "task_kinds": "kinds of task", "teams": "teams"}
    return "\n\n".join(
        f"The {headings[name]} are:\n" + ("\n".join(_listed(question.lists[name])) or "- none") for name in LISTS
    )


def _listed(names: Mapping[str, str]) -> Iterable[str]:
    return (f"- {name}: {meaning}" if meaning else f"- {name}" for name, meaning in names.items())


def data(question: Question) -> dict[str, object]:
    """Return the conversation as data. No ids, names or numbers of ours: Claude sees refs."""
    return {
        "now": question.now.astimezone(question.time_zone).isoformat(timespec="minutes"),
        "stage": question.stage or "",
        "tags": list(question.tags),
        "open_tasks": [
            {"title": task.title, "due": task.due_at.date().isoformat() if task.due_at else ""}
            for task in question.open_tasks
        ],
        "messages": [
            {
                "ref": f"m{number}",
                "from": "customer" if turn.is_customer else "business",
                "sent_at": turn.sent_at.astimezone(question.time_zone).isoformat(timespec="minutes"),
                "text": turn.content,
            }
            | ({"reactions": list(turn.reactions)} if turn.reactions else {})
            for number, turn in enumerate(question.turns, 1)
        ],
    }


def answer_schema(lists: Mapping[str, Mapping[str, str]]) -> dict[str, object]:
    """Return the JSON schema Claude's answer must follow. Empty names stand for none."""
    text: dict[str, object] = {"type": "string"}
    number: dict[str, object] = {"type": "number"}

    def one_of(name: str) -> dict[str, object]:
        return {"type": "string", "enum": ["", *lists[name]]}

    def judged(**properties: object) -> dict[str, object]:
        return {**properties, "confidence": number, "evidence": text}

    properties: dict[str, object] = {"summary": text}
    for name in FEATURES:
        properties |= {name: number, f"{name}_confidence": number, f"{name}_evidence": text}
    properties |= {"stage": one_of("stages"), "new_stage": text, "stage_confidence": number, "stage_evidence": text}
    properties["tags"] = _array(judged(name=one_of("tags")))
    properties["new_tags"] = _array(judged(name=text))
    properties["tasks"] = _array(judged(kind=one_of("task_kinds"), title=text, due=text, team=one_of("teams")))
    return _object(properties)


def _object(properties: dict[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(properties: dict[str, object]) -> dict[str, object]:
    return {"type": "array", "items": _object(properties)}


def read_answer(text: str, question: Question) -> Accepted | None:
    """Return what can be made of an answer; None when it is none.

    A field that makes no sense counts as not said, one that says too much is cut: a slightly wrong answer is still one.
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or not all(name in answer for name in ("summary", *FEATURES)):
        return None
    quoted = _Quotations(question.turns)
    return Accepted(
        summary=shown(answer["summary"], MOST_SUMMARY),
        features={
            name: Finding(
                _share(answer[name]),
                _share(answer.get(f"{name}_confidence")),
                quoted.find(answer.get(f"{name}_evidence")),
            )
            for name in FEATURES
        },
        stage=_stage(answer, question, quoted),
        tags=tuple(_tags(answer, question, quoted)),
        tasks=tuple(_tasks(answer, question, quoted)),
    )


def _stage(answer: dict[str, Any], question: Question, quoted: _Quotations) -> Finding | None:
    listed = shown(answer.get("stage"), MOST_TITLE)
    name = listed if listed in question.lists["stages"] else _new_name(listed or answer.get("new_stage"))
    confidence = _share(answer.get("stage_confidence"))
    if not name or confidence < LEAST_CONFIDENCE:
        return None
    return Finding(name, confidence, quoted.find(answer.get("stage_evidence")))


def _tags(answer: dict[str, Any], question: Question, quoted: _Quotations) -> Iterable[Finding]:
    listed, new = question.lists["tags"], 0
    seen: set[str] = set()
    for raw in [*_entries(answer.get("tags")), *_entries(answer.get("new_tags"))][:100]:
        name = shown(raw.get("name"), MOST_TITLE)
        name = name if name in listed else _new_name(name)
        if not name or normalised(name) in seen or len(seen) >= MOST_TAGS:
            continue
        if _share(raw.get("confidence")) < LEAST_CONFIDENCE:
            continue
        if name not in listed:
            new += 1
            if new > MOST_NEW_TAGS:
                continue
        seen.add(normalised(name))
        yield Finding(name, _share(raw.get("confidence")), quoted.find(raw.get("evidence")))


def _tasks(answer: dict[str, Any], question: Question, quoted: _Quotations) -> Iterable[TaskFound]:
    known = {normalised(task.title) for task in question.open_tasks}
    for raw in _entries(answer.get("tasks"))[:MOST_TASKS]:
        title = shown(raw.get("title"), MOST_TITLE)
        kind = shown(raw.get("kind"), MOST_NAME)
        key = normalised(title)
        confidence = _share(raw.get("confidence"))
        if not key or not kind or key in known or confidence < LEAST_CONFIDENCE:
            continue
        known.add(key)
        team = shown(raw.get("team"), MOST_TITLE)
        yield TaskFound(
            kind=kind,
            title=title,
            key=key,
            due_at=_due(raw.get("due"), question),
            team=team if team in question.lists["teams"] else None,
            confidence=confidence,
            evidence=quoted.find(raw.get("evidence")),
        )


def _entries(value: object) -> list[dict[str, Any]]:
    """Read a list of objects leniently; a bare name counts as an object with it, as sure as can be."""
    raws = value if isinstance(value, list) else [value]
    named = [{"name": raw, "confidence": 1.0} if isinstance(raw, str) else raw for raw in raws]
    return [raw for raw in named if isinstance(raw, dict)]


def _due(value: object, question: Question) -> datetime | None:
    """Read a date (the end of that day at the business's) or a time; None for what is past or over a year away."""
    if not isinstance(value, str) or not value:
        return None
    try:
        at = datetime.fromisoformat(value)
        if len(value) <= 10:
            at = datetime.combine(date.fromisoformat(value), time(23, 59), question.time_zone)
        at = (at if at.tzinfo else at.replace(tzinfo=question.time_zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return at if question.now - timedelta(days=1) <= at <= question.now + MOST_DUE else None


class _Quotations:
    """Finds quotations in what the customer said: what is not there is no evidence."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._said = [turn for turn in reversed(turns) if turn.is_customer]

    def find(self, quote: object) -> tuple[dict[str, object], ...]:
        """Return where it stands, in the newest message that holds it (start, end in code points), or nothing."""
        if not isinstance(quote, str) or not quote.strip():
            return ()
        quote = quote.strip()
        for turn in self._said:
            start = turn.content.find(quote)
            if start >= 0:
                cut = quote[:MOST_EVIDENCE]
                place = {"message_id": str(turn.message_id), "start": start, "end": start + len(cut), "quote": cut}
                return (place,)
        return ()


def shown(value: object, most: int) -> str:
    """Return a text as one line that can be stored and shows all it holds, or nothing."""
    if not isinstance(value, str):
        return ""
    storable = value.encode("utf-8", "replace").decode("utf-8")
    return " ".join(_UNSEEN.sub(" ", storable).split())[:most].rstrip()


def _new_name(value: object) -> str:
    """Return a name for a list, of letters and digits: no address, no markup, no sentence, nobody's number.

    A name that is accepted stands in the lists Claude is given with every other customer.
    """
    given = shown(value, 4 * MOST_NAME)
    name = " ".join(_NOT_IN_A_NAME.sub(" ", given).split())[:MOST_NAME].strip(" _-'’&+")
    return "" if spans(given) or spans(name) else name


def normalised(title: str) -> str:
    """Return what makes two titles the same: letters and digits, whatever their case, accents and spacing."""
    plain = unicodedata.normalize("NFKD", title.casefold())
    words = re.sub(r"[^\w]+|_", " ", "".join(mark for mark in plain if not unicodedata.combining(mark))).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def _share(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        share = float(value) if is_number else 0.0  # type: ignore[arg-type]
    except OverflowError:  # JSON's integers have no end
        return 0.0
    return min(1.0, max(0.0, share)) if math.isfinite(share) else 0.0


def result_json(accepted: Accepted) -> dict[str, Any]:
    """Return what is stored of an answer, for whoever asks why."""

    def finding(found: Finding) -> dict[str, Any]:
        return {"value": found.value, "confidence": found.confidence, "evidence": list(found.evidence)}

    return {
        "summary": accepted.summary,
        "features": {name: finding(found) for name, found in accepted.features.items()},
        "stage": finding(accepted.stage) if accepted.stage else None,
        "tags": [finding(found) for found in accepted.tags],
        "tasks": [
            {"value": task.title, "confidence": task.confidence, "evidence": list(task.evidence)}
            for task in accepted.tasks
        ],
    }
