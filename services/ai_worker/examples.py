"""Labelled examples: the file format of the evaluation's sets, and how an agent's correction becomes one. Pure: no I/O.

One example is one line of JSON: a conversation, and for each new message what a good analysis says about it. What a
label leaves out is not judged, so a correction of one field makes an example for that field alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.ai_worker.message_analysis import DEFAULT_INTENTS, DEFAULT_TONE, NewMessage, Question, Turn

_IDS = UUID("6f0f3f0e-6d0c-4f0e-9d53-1c9a54b6a001")  # messages of examples have ids of their own, equal in every run

Sentiment = Literal["positive", "neutral", "negative"]
Priority = Literal["low", "normal", "high", "urgent"]
# Hard cases, so that accuracy can be shown for each.
Tag = Literal[
    "sarcasm",
    "code-switching",
    "negation",
    "spam",
    "several-intents",
    "injection",
    "emoji-only",
    "very-short",
    "very-long",
    "numbers-dates",
    "angry-polite",
    "closed-window",
    "correction",  # came from an agent
]
Some = Annotated[list[str], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)  # a mistyped key is no label


class Labels(_Strict):
    """What a good analysis says. Lists hold every acceptable answer, the best first; None: not judged."""

    sentiment: Sentiment | None = None
    intents: Some | None = None
    priorities: Annotated[list[Priority], Field(min_length=1)] | None = None
    languages: Some | None = None  # BCP 47
    # Facts the summary has to hold, each with its spellings; and phrases the suggested response must not hold: what
    # nobody can promise. `tests/evals/README.md` says how they are matched.
    summary_mentions: list[Some] = []
    response_avoids: list[str] = []
    # What the agent wrote instead: for people to compare, nothing is matched against it.
    summary_reference: str | None = None
    response_reference: str | None = None


class LabelledMessage(_Strict):
    """A message to analyse and its labels."""

    text: str
    labels: Labels


class Said(_Strict):
    """A message before."""

    who: Literal["customer", "business"] = Field(alias="from")
    text: str


class Example(_Strict):
    """A conversation with labels. `intents` and `tone` None: the defaults, as for a workspace without its own."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]{3,64}$")]
    tags: list[Tag] = []
    reply_window: Literal["open", "closed"] = "open"
    intents: dict[str, str] | None = None
    tone: str | None = None
    history: list[Said] = []
    new_messages: Annotated[list[LabelledMessage], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _labels_are_in_the_taxonomy(self) -> Example:
        known = self.intents or DEFAULT_INTENTS
        for message in self.new_messages:
            if unknown := [intent for intent in message.labels.intents or [] if intent not in known]:
                raise ValueError(f"intents not in the taxonomy: {', '.join(unknown)}")
        return self

    def question(self) -> Question:
        """Return what Claude is asked about this conversation."""
        return Question(
            new_messages=tuple(
                NewMessage(uuid5(_IDS, f"{self.id}/{number}"), message.text, 1, datetime(2026, 1, 1, tzinfo=UTC))
                for number, message in enumerate(self.new_messages)
            ),
            history=tuple(Turn(said.who == "customer", said.text) for said in self.history),
            intents=self.intents or DEFAULT_INTENTS,
            tone=self.tone or DEFAULT_TONE,
            is_reply_window_open=self.reply_window == "open",
        )

    def line(self) -> str:
        """Return the example as its line of JSON, without what stands at its default."""
        return json.dumps(self.model_dump(by_alias=True, exclude_defaults=True), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Correction:
    """An agent's correction of a stored analysis, with what Claude was shown.

    `fields`: what the agent set, by field (sentiment, intent, priority, language, summary, suggested_response).
    """

    text: str
    history: tuple[Turn, ...]
    fields: dict[str, str]
    intents: dict[str, str] | None
    tone: str | None
    is_reply_window_open: bool


def example_from_correction(correction: Correction, *, redact: Callable[[str], str]) -> Example:
    """Return the example an agent's correction makes: only what the agent set is a label.

    `redact` takes personal data out of a text; there is no default, since what leaves the database must not hold any.
    It holds no id of ours either: equal texts make equal examples, which a set refuses to hold twice.
    Raises: ValueError (pydantic's) when a value is not one a label may have; ValueError for a field nobody can correct.
    """
    if unknown := correction.fields.keys() - _LABEL_OF.keys():
        raise ValueError(f"no labels for: {', '.join(sorted(unknown))}")
    text = redact(correction.text)
    history = [
        Said(who="customer" if turn.is_customer else "business", text=redact(turn.content))
        for turn in correction.history
    ]
    digest = hashlib.sha256("\x1f".join([text, *(said.text for said in history)]).encode()).hexdigest()
    labels: dict[str, Any] = {}
    for field, value in correction.fields.items():
        name = _LABEL_OF[field]
        if name.endswith("_reference"):
            labels[name] = redact(value)
        else:
            labels[name] = value if name == "sentiment" else [value]
    return Example(
        id=f"correction-{digest[:12]}",
        tags=["correction"] if correction.is_reply_window_open else ["correction", "closed-window"],
        reply_window="open" if correction.is_reply_window_open else "closed",
        intents=correction.intents,
        tone=correction.tone,
        history=history,
        new_messages=[LabelledMessage(text=text, labels=Labels.model_validate(labels))],
    )


_LABEL_OF = {
    "sentiment": "sentiment",
    "intent": "intents",
    "priority": "priorities",
    "language": "languages",
    "summary": "summary_reference",
    "suggested_response": "response_reference",
}
