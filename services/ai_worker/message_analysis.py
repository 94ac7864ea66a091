"""The message analysis: what Claude is asked, and what of its answer we accept. Does no I/O, has no clock."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from services.ai_worker.pictures import Picture
from services.ai_worker.template_offers import NO_TEMPLATE, Offer, chosen

# A workspace may bring its own list; this is the sensible default.
DEFAULT_INTENTS: dict[str, str] = {
    "order_status": "where an order or delivery is",
    "price_question": "what something costs, or a quote",
    "product_question": "what is offered, in stock, how something works",
    "appointment": "book, move or ask about a time",
    "complaint": "something went wrong and should be put right",
    "refund": "money back, or a return",
    "cancellation": "cancel an order, booking or subscription",
    "payment": "pay, an invoice, a payment problem",
    "account_help": "access or details of an account",
    "human_agent": "talk to a person, be called back",
    "greeting": "only says hello",
    "thanks": "only thanks or confirms",
    "spam": "advertising or fraud",
    "other": "none of the above",
}

DEFAULT_TONE = "Friendly, brief and concrete."
_FIELDS = ("sentiment", "intent", "summary", "suggested_response", "priority")
# Of what we believe of an answer. The prompt asks for 25, 60 and 20 words; these stand well above, since a customer
# can talk a model into writing as much as max_tokens allows, and an agent has to read it.
MOST_SUMMARY = 400
MOST_RESPONSE = 1200
MOST_EVIDENCE = 300
UNDETERMINED = "und"  # BCP 47 for a language nobody can tell

# What shows nothing, or shows letters in another order than they are stored: an agent must see what they send.
# Joiners and the left-to-right marks stay: emoji, Persian and Arabic need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|\d{3}))?", re.IGNORECASE)  # BCP 47, as far as we need


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to analyse."""

    message_id: UUID
    content: str
    content_version: int
    sent_at: datetime
    attempt: int = 1  # this call included
    has_file: bool = False  # a picture is stored, whether or not it could be read
    kind: str = "text"  # Meta's type; `content` is then the caption, of a voice note the transcript


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said before."""

    is_customer: bool
    content: str
    kind: str = "text"
    reaction: str | None = None  # the customer's, to one of ours


@dataclass(frozen=True, slots=True)
class Question:
    """What one call is about."""

    new_messages: tuple[NewMessage, ...]
    history: tuple[Turn, ...]
    intents: dict[str, str]
    tone: str
    is_reply_window_open: bool
    templates: tuple[Offer, ...] = ()  # what can be sent while the window is closed
    pictures: tuple[Picture, ...] = ()  # each named by the ref of its message


class Entry(BaseModel):
    """Claude's answer about one message. Numbers are clamped, texts cut: a slightly wrong answer is still one."""

    model_config = ConfigDict(extra="ignore")

    ref: str
    sentiment: Literal["positive", "neutral", "negative"]
    sentiment_score: FiniteFloat
    sentiment_confidence: FiniteFloat
    sentiment_evidence: str
    intent: str
    intent_confidence: FiniteFloat
    intent_evidence: str
    summary: str = Field(min_length=1)
    summary_confidence: FiniteFloat
    summary_evidence: str
    suggested_response: str = Field(min_length=1)
    suggested_response_confidence: FiniteFloat
    suggested_response_evidence: str
    priority: Literal["low", "normal", "high", "urgent"]
    priority_confidence: FiniteFloat
    priority_evidence: str
    language: str
    # Only asked for where there are templates; checked by `chosen`.
    template: object = NO_TEMPLATE
    template_values: object = None

    @field_validator("sentiment_score")
    @classmethod
    def _clamp_score(cls, value: float) -> float:
        return max(-1.0, min(1.0, value))

    @field_validator(*(f"{name}_confidence" for name in _FIELDS))
    @classmethod
    def _clamp_confidence(cls, value: float) -> float:
        return max(0.0, min(1.0, value))

    @field_validator(
        "summary", "suggested_response", "language", *(f"{name}_evidence" for name in _FIELDS), mode="before"
    )
    @classmethod
    def _storable(cls, value: object) -> object:
        # A JSON answer may escape what PostgreSQL refuses; a text of nothing else is no text.
        if not isinstance(value, str):
            return value
        return value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8").strip()

    @field_validator("summary", mode="before")
    @classmethod
    def _one_line(cls, value: object) -> object:
        return " ".join(_shown(value).split())[:MOST_SUMMARY] if isinstance(value, str) else value

    @field_validator("suggested_response", mode="before")
    @classmethod
    def _readable(cls, value: object) -> object:
        return _shown(value).strip()[:MOST_RESPONSE] if isinstance(value, str) else value

    @field_validator("language")
    @classmethod
    def _tag(cls, value: str) -> str:
        # A field a customer could fill with anything; but a tag we cannot read is no reason to lose the entry.
        tag = value.replace("_", "-")
        return tag if _LANGUAGE.fullmatch(tag) else UNDETERMINED


def _shown(text: str) -> str:
    return _UNSEEN.sub("", text)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What we store about one message. `result` holds each field's value, confidence and evidence."""

    message: NewMessage
    entry: Entry
    result: dict[str, Any]


@cache
def instructions() -> tuple[str, str]:
    """Return the prompt's text and its version, which changes whenever the text or the answer's form does."""
    text = resources.files("services.ai_worker").joinpath("prompts/message_analysis.md").read_text("utf-8")
    return text, prompt_version(text)


def prompt_version(text: str) -> str:
    """Return the version of a prompt's text together with the present form of the answer."""
    form = json.dumps(answer_schema(["intent"], ["t1"]), sort_keys=True)
    return f"message_analysis-{hashlib.sha256((text + form).encode()).hexdigest()[:8]}"


def version_of(version: str, question: Question) -> str:
    """Return the version of an analysis; one that had the chance of a picture says so, and is not repeated for it."""
    return f"{version}+vision" if any(message.has_file for message in question.new_messages) else version


def workspace_instructions(question: Question) -> str:
    """Return what is stable for a workspace: its intents and tone; cached at Claude beside the instructions."""
    intents = "\n".join(f"- {name}: {meaning}" for name, meaning in question.intents.items())
    return f"The intents are:\n{intents}\n\nThe business's tone: {question.tone}"


def data(question: Question) -> dict[str, object]:
    """Return the conversation as data. No ids, names or numbers of ours: Claude sees refs."""
    document: dict[str, object] = {
        "reply_window": "open" if question.is_reply_window_open else "closed",
        "history": [
            {
                "from": "customer" if turn.is_customer else "business",
                "text": turn.content,
                **_kind(turn.kind),
                **({"reaction": turn.reaction} if turn.reaction else {}),
            }
            for turn in question.history
        ],
        "new_messages": [
            {"ref": f"m{number}", "text": message.content, **_kind(message.kind)}
            for number, message in enumerate(question.new_messages, 1)
        ],
    }
    if question.templates:
        document["templates"] = [offer.shown() for offer in question.templates]
    return document


# Those whose text is not all there is to them.
_MEDIA = ("image", "video", "document", "audio", "sticker")


def _kind(kind: str) -> dict[str, str]:
    return {"kind": "voice note" if kind == "audio" else kind} if kind in _MEDIA else {}


def answer_schema(intents: list[str], templates: Sequence[str] = ()) -> dict[str, object]:
    """Return the JSON schema Claude's answer must follow: small and flat. `templates`: refs of those on offer."""
    text: dict[str, object] = {"type": "string"}
    number: dict[str, object] = {"type": "number"}
    properties: dict[str, object] = {
        "ref": text,
        "sentiment": {"type": "string", "enum": ["positive", "neutral", "negative"]},
        "sentiment_score": number,
        "intent": {"type": "string", "enum": intents},
        "summary": text,
        "suggested_response": text,
        "priority": {"type": "string", "enum": ["low", "normal", "high", "urgent"]},
        "language": text,
    }
    for name in _FIELDS:
        properties[f"{name}_confidence"] = number
        properties[f"{name}_evidence"] = text
    if templates:
        properties["template"] = {"type": "string", "enum": [NO_TEMPLATE, *templates]}
        pair = {
            "type": "object",
            "properties": {"name": text, "value": text},
            "required": ["name", "value"],
            "additionalProperties": False,
        }
        properties["template_values"] = {"type": "array", "items": pair}
    entry = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"entries": {"type": "array", "items": entry}},
        "required": ["entries"],
        "additionalProperties": False,
    }


def read_answer(text: str, question: Question) -> list[Accepted]:
    """Return what can be stored of an answer; a message without an acceptable entry is simply not in it."""
    try:
        entries = json.loads(text)["entries"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    by_ref = {f"m{number}": message for number, message in enumerate(question.new_messages, 1)}
    accepted: dict[UUID, Accepted] = {}
    for raw in entries if isinstance(entries, list) else []:
        try:
            entry = Entry.model_validate(raw)
        except ValidationError:
            continue
        message = by_ref.get(entry.ref)
        if message is not None and entry.intent in question.intents:
            accepted.setdefault(message.message_id, Accepted(message, entry, _result(entry, message, question)))
    return list(accepted.values())


def _result(entry: Entry, message: NewMessage, question: Question) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: {
            "value": getattr(entry, name),
            "confidence": getattr(entry, f"{name}_confidence"),
            "evidence": _quotation(getattr(entry, f"{name}_evidence"), message.content),
        }
        for name in _FIELDS
    }
    if template := chosen(entry.template, entry.template_values, question.templates):
        fields["suggested_template"] = template
    return {**fields, "sentiment_score": entry.sentiment_score, "language": entry.language}


def _quotation(quote: str, content: str) -> list[dict[str, object]]:
    """Return where the quotation stands (start, end in code points), or nothing: what is not there is no evidence.

    Nor is a quotation of everything: of more than we believe a reader would take in, the beginning is kept.
    """
    start = content.find(quote) if quote else -1
    quote = quote[:MOST_EVIDENCE]
    return [{"start": start, "end": start + len(quote), "quote": quote}] if start >= 0 else []
