"""The API's answers as OpenAPI describes them. Postgres builds the JSON; a contract test holds the two equal."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """An answer; the contract test refuses fields it does not name."""

    model_config = ConfigDict(extra="forbid")


class Problem(Shape):
    """RFC 9457 problem details."""

    type: str = Field(examples=["urn:parley:problem:conversation_not_found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    code: str = Field(description="Stable; what programs decide by", examples=["conversation_not_found"])
    detail: str | None = None
    hint: str | None = Field(None, description="What to do", examples=["It does not exist, or it is not yours."])
    request_id: str | None = Field(
        None, description="Finds the log line", examples=["0199c2f4-7a31-7cc0-9a3e-0d4f2b1c6e55"]
    )


class User(Shape):
    """The person signed in."""

    id: UUID
    email: str | None = Field(examples=["maya@casaverde.example"])


class Membership(Shape):
    """A workspace and one's role in it."""

    id: UUID
    name: str = Field(examples=["Casa Verde"])
    role: Literal["owner", "admin", "agent", "viewer"]
    time_zone: str = Field(examples=["America/Sao_Paulo"])


class Me(Shape):
    """Answer of GET /api/me."""

    user: User
    workspaces: list[Membership]
    server_time: datetime


class ContactBrief(Shape):
    """Whom a conversation is with. Any of the three may be unknown."""

    id: UUID
    name: str | None = Field(examples=["Ana Souza"])
    username: str | None = Field(examples=["anas"])
    phone_number: str | None = Field(description="Digits, as Meta sends them", examples=["5511955501234"])


class LastMessage(Shape):
    """Enough of the newest message for a list."""

    id: UUID
    direction: Literal["inbound", "outbound"]
    message_type: str
    preview: str | None = Field(
        description="First 160 characters", examples=["Where is my order? I've been waiting since Monday!"]
    )
    status: str | None
    sent_at: datetime


Sentiment = Literal["positive", "neutral", "negative"]
Priority = Literal["low", "normal", "high", "urgent"]


class Conversation(Shape):
    """A row of the inbox; sentiment, intent and priority are those of the newest message understood."""

    id: UUID
    workspace_id: UUID
    channel_id: UUID
    contact: ContactBrief | None = Field(description="Null in a group")
    group_id: str | None
    status: Literal["open", "archived", "blocked"]
    assigned_to: UUID | None
    unread_count: int
    last_message_at: datetime
    window_expires_at: datetime | None = Field(description="Until then a reply may be free text")
    next_seq: int
    read_seq: int
    last_message: LastMessage | None
    sentiment: Sentiment | None
    intent: str | None = Field(examples=["order_status"])
    priority: Priority | None
    created_at: datetime


class ConversationPage(Shape):
    """Answer of GET /api/whatsapp/conversations."""

    items: list[Conversation]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last")
    server_time: datetime


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


class AnalysisFields(Shape):
    """What Claude answered."""

    sentiment: Judgement
    intent: Judgement
    summary: Judgement
    suggested_response: Judgement
    priority: Judgement
    sentiment_score: float
    language: str


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


class Message(Shape):
    """One message with what Claude understood of it."""

    id: UUID
    conversation_id: UUID
    contact_id: UUID
    seq: int = Field(description="Place in the conversation; what `before` and `after` take")
    wamid: str | None
    direction: Literal["inbound", "outbound"]
    message_type: Literal["text", "unsupported"]
    content: str | None = Field(examples=["Where is my order? I've been waiting since Monday!"])
    status: str | None
    sent_at: datetime
    reply_to_wamid: str | None
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


class MessagePage(Shape):
    """Answer of GET /api/whatsapp/conversations/{conversation_id}/messages."""

    items: list[Message]
    next_cursor: int | None = Field(
        description="Pass as `before` (or `after`, if that was given); null on the last page"
    )
    server_time: datetime
