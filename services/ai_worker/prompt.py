"""What every request to Claude is made of: a stable part that is cached, and delimited data that is redacted. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from services.ai_worker.pictures import MOST_TOKENS, Picture
from services.ai_worker.redaction import PLACEHOLDER, Redactor

MOST_CHARACTERS = 4000  # of one text: more says nothing new, and costs; app.bytes_sent() counts with it


class Task(StrEnum):
    """What Claude is asked for; each may have a model of its own."""

    MESSAGES = "message_analysis"
    CONVERSATION = "conversation_analysis"


class Tier(StrEnum):
    """Which of a task's models: decided by app.reserve_ai() from what is left of the day's budget."""

    USUAL = "usual"
    CHEAP = "cheap"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `data` is what people typed: a JSON value, neither escaped nor redacted yet.

    `most_usd`: what was reserved for it; a request that could cost more is not made. None: no limit.
    """

    task: Task
    instructions: str  # the same for everybody
    version: str
    workspace: str  # the same for all of a workspace's
    data: dict[str, object]
    schema: dict[str, object]
    most_output_tokens: int
    tier: Tier = Tier.USUAL
    most_usd: Decimal | None = None
    pictures: tuple[Picture, ...] = ()  # cannot be redacted: only of workspaces that want them shown


@dataclass(frozen=True, slots=True)
class Parts:
    """An `Ask` as it leaves: nothing personal in it; `redactor` knows what was."""

    instructions: str
    workspace: str
    document: str
    redactor: Redactor


def redacted(ask: Ask, redactor: Redactor) -> Parts:
    """Redact and delimit, in the order Claude reads. Raises: NotRedacted; then nothing may leave."""
    return Parts(
        instructions=ask.instructions,
        workspace=redactor.text(ask.workspace),
        document=delimited(redactor.document(ask.data, most_characters=MOST_CHARACTERS)),
        redactor=redactor,
    )


def delimited(document: object) -> str:
    """Return a JSON value between tags that nothing inside can close: "<" is escaped, as JSON allows."""
    escaped = json.dumps(document, ensure_ascii=False).replace("<", "\\u003c")
    return f"<data>\n{escaped}\n</data>"


def most_input_tokens(parts: Parts, ask: Ask) -> int:
    """Return a bound: a token is at least a byte; of our own English and JSON, two. A fourth of the bytes is usual."""
    theirs = (PLACEHOLDER.sub("[12_4]", text) for text in (parts.workspace, parts.document))  # six tokens at most
    written = sum(len(text.encode("utf-8", "replace")) for text in theirs)
    return fixed_tokens(parts.instructions, ask.schema) + written + MOST_TOKENS * len(ask.pictures)


def fixed_tokens(instructions: str, schema: dict[str, object]) -> int:
    """Return a bound for what is the same in every request of a task."""
    return (len(instructions.encode()) + len(json.dumps(schema).encode())) // 2
