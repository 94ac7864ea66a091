"""Shapes of answers that more than one service gives. Postgres builds the JSON; tests hold the two equal."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """An answer; the contract test refuses fields it does not name."""

    model_config = ConfigDict(extra="forbid")


class ToMend(Shape):
    """One thing that is wrong with what was sent."""

    field: str = Field(description="Path in the body; empty: the whole", examples=["content.buttons[2].title"])
    code: str = Field(description="Stable", examples=["too_long"])
    message: str = Field(examples=["The button has 23 characters; WhatsApp allows 20."])


class Problem(Shape):
    """RFC 9457 problem details."""

    type: str = Field(examples=["urn:parley:problem:conversation_not_found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    code: str = Field(description="Stable; what programs decide by", examples=["conversation_not_found"])
    detail: str | None = None
    hint: str | None = Field(None, description="What to do", examples=["It does not exist, or it is not yours."])
    problems: list[ToMend] | None = Field(None, description="Everything that is wrong with the body, where it is that")
    request_id: str | None = Field(
        None, description="Finds the log line", examples=["0199c2f4-7a31-7cc0-9a3e-0d4f2b1c6e55"]
    )


Sentiment = Literal["positive", "neutral", "negative"]
Priority = Literal["low", "normal", "high", "urgent"]


class Evidence(Shape):
    """The words a judgement rests on; `start` and `end` count code points of the content."""

    start: int
    end: int
    quote: str


class Judgement(Shape):
    """One field of an analysis."""

    value: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    evidence: list[Evidence]


class SuggestedTemplate(Shape):
    """What can be sent while the reply window is closed: POST /api/whatsapp/send with template {id, values}."""

    id: UUID
    template_name: str = Field(examples=["order_update"])
    language: str = Field(examples=["en_US"])
    values: dict[str, Any] = Field(description="As `template.values` takes them", examples=[{"body": {"1": "Ana"}}])
    text: str | None = Field(description="What the customer will read")


class Correction(Shape):
    """What somebody of us says instead of Claude."""

    id: UUID
    fields: dict[str, str | float] = Field(
        description="Of sentiment, sentiment_score, intent, summary, suggested_response, priority, language",
        examples=[{"intent": "complaint", "priority": "high"}],
    )
    corrected_by: UUID
    corrected_at: datetime


class Suggestion(Shape):
    """What became of the suggested response."""

    outcome: Literal["used", "edited", "ignored", "superseded"] | None = Field(
        description="Null: on offer; superseded: a newer message's suggestion took its place"
    )
    similarity: float | None = Field(description="Of what was sent to what was suggested, 0 to 1")
    source: Literal["reply", "person", "time"] | None = Field(description="What it was decided by")
    reply_id: UUID | None
    decided_at: datetime | None


class AnalysisFields(Shape):
    """What Claude answered."""

    sentiment: Judgement
    intent: Judgement
    summary: Judgement
    suggested_response: Judgement
    priority: Judgement
    sentiment_score: float
    language: str
    suggested_template: SuggestedTemplate | None = Field(
        None, description="Where the reply window was closed and one fits"
    )


class Analysis(Shape):
    """How far Claude is with a message, what it rests on, what it cost."""

    state: Literal["pending", "done", "failed", "skipped"]
    reason: str | None = Field(description="Why failed or skipped; stable", examples=["refused"])
    fields: AnalysisFields | None
    model: str | None = Field(examples=["claude-haiku-5-5"])
    prompt_version: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None = Field(description="This message's share of the call")
    latency_ms: int | None
    corrections: list[Correction] = Field(description="Those that hold, of this wording; the later wins")
    suggestion: Suggestion | None


class Reaction(Shape):
    """Someone's emoji on a message."""

    contact_id: UUID | None = Field(description="Null: one of ours")
    emoji: str = Field(examples=["❤️"])
    sent_at: datetime


class MediaBrief(Shape):
    """A file that belongs to a message."""

    id: UUID
    kind: Literal["image", "audio", "video", "document", "sticker"]
    mime_type: str | None = Field(examples=["image/jpeg"])
    filename: str | None = Field(description="As the sender named it; never use it as a path")
    size_bytes: int | None
    is_voice: bool
    is_animated: bool
    state: Literal["pending", "stored", "failed", "gone"]


class SendError(Shape):
    """Why a message failed: in Meta's words, and in ours."""

    code: int | None = Field(description="Meta's; null: it was not Meta who refused", examples=[131047])
    title: str | None = Field(None, examples=["Re-engagement message"])
    reason: str | None = Field(None, description="Ours; stable", examples=["reply_window_closed"])
    sentence: str | None = Field(
        None,
        description="What to do about it",
        examples=["The customer last wrote more than 24 hours ago; send a template instead."],
    )


class Sending(Shape):
    """How far a message of ours is on its way, while there is something to say about it."""

    state: Literal["scheduled", "retrying", "in_doubt", "held", "settled"] | None = None
    reason: str | None = Field(None, examples=["rate_limited"])
    sentence: str | None = None
    attempt: int | None = None
    since: datetime | None = None
    until: datetime | None = Field(None, description="When something happens next")
    evidence: Literal["answer", "status", "person", "silence"] | None = Field(
        None, description="What the outcome rests on"
    )
    settled_at: datetime | None = Field(None, description="When it was known after all that Meta has it")
    sent_twice: bool | None = Field(None, description="true: it turned out that the customer got it twice")


class Message(Shape):
    """One message with what Claude understood of it."""

    id: UUID
    conversation_id: UUID
    contact_id: UUID | None = Field(description="Whom it is from, or to; null: one of ours to a group")
    seq: int = Field(description="Place in the conversation; what `before` and `after` take")
    wamid: str | None
    direction: Literal["inbound", "outbound"]
    message_type: Literal[
        "text", "image", "audio", "video", "document", "sticker", "location", "contacts", "interactive", "button",
        "order", "template", "reaction", "unsupported", "media_placeholder", "unknown",
    ]  # fmt: skip
    content: str | None = Field(examples=["Where is my order? I've been waiting since Monday!"])
    status: str | None
    sent_at: datetime
    reply_to_wamid: str | None
    origin: Literal["live", "app", "history"] = Field(
        description="app: written by staff in the WhatsApp Business app; history: from before the number was connected"
    )
    edited_at: datetime | None
    revoked_at: datetime | None = Field(description="Deleted for everyone by its author: there is no content")
    error: SendError | None
    payload: dict[str, Any] = Field(
        description="As Meta sent it: {type, <type>, context, referral, …}; empty once revoked",
        examples=[{"type": "location", "location": {"latitude": -23.55, "longitude": -46.63}}],
    )
    reactions: list[Reaction]
    media: list[MediaBrief]
    sentiment: Sentiment | None
    sentiment_score: float | None
    intent: str | None = Field(examples=["order_status"])
    ai_summary: str | None = Field(examples=["Asks where the order is; has been waiting since Monday."])
    suggested_response: str | None
    priority: Priority | None
    language: str | None = Field(examples=["en"])
    analysed_at: datetime | None
    analysis: Analysis
    created_at: datetime
    sent_by: UUID | None = Field(description="Who of us sent it; null: nobody in particular, or a customer")
    retry_of: UUID | None = Field(description="The failed message that this one repeats")
    template_id: UUID | None
    bulk_id: UUID | None = Field(description="The bulk send it is part of")
    send_at: datetime | None = Field(description="Scheduled: not before")
    transcript: str | None = Field(description="What a voice note says, if somebody wrote it down")
    sending: Sending | None = Field(description="Null: simply under way, or done")
