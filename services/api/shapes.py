"""The API's bodies and answers as OpenAPI describes them. Postgres builds the JSON; a test holds the two equal."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
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
    revoked_at: datetime | None = Field(description="Deleted for everyone by its author: there is no preview")


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


class Seen(Shape):
    """Body of calls that depend on what the person has seen."""

    seen_seq: Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)] = Field(
        description="`seq` of the last message they saw; 0: none", examples=[12]
    )


class ConversationState(Shape):
    """A conversation after it was changed: what its own row says."""

    id: UUID
    workspace_id: UUID
    channel_id: UUID
    contact_id: UUID | None = Field(description="Null in a group")
    group_id: str | None
    status: Literal["open", "archived", "blocked", "deleted"]
    assigned_to: UUID | None
    unread_count: int
    last_message_at: datetime
    window_expires_at: datetime | None = Field(description="Until then a reply may be free text")
    next_seq: int
    read_seq: int
    archived_at: datetime | None
    blocked_at: datetime | None
    created_at: datetime


class ContactState(Shape):
    """A contact after they were blocked or unblocked."""

    id: UUID = Field(description="Another than was asked for, if the two turned out to be one person")
    workspace_id: UUID
    blocked_at: datetime | None = Field(description="Null: not blocked")
    conversations: list[ConversationState] = Field(description="On every channel; deleted ones left out")


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
    """Why a message failed, in Meta's words."""

    code: int | None = Field(examples=[131047])
    title: str | None = Field(examples=["Re-engagement message"])


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
        "order", "template", "unsupported", "media_placeholder", "unknown",
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


class MessagePage(Shape):
    """Answer of GET /api/whatsapp/conversations/{conversation_id}/messages."""

    items: list[Message]
    next_cursor: int | None = Field(
        description="Pass as `before` (or `after`, if that was given); null on the last page"
    )
    server_time: datetime


Severity = Literal["critical", "warning", "info"]


class Channel(Shape):
    """A business phone number, and how far behind Meta its intake is."""

    id: UUID
    workspace_id: UUID
    display_phone_number: str = Field(examples=["15550123456"])
    waba_id: str
    phone_number_id: str
    state: Literal["connected", "paused", "disconnected"]
    quality: str | None = Field(examples=["green"])
    tier_mps: int = Field(description="Messages per second Meta lets through, in and out together")
    messaging_limit: str | None
    verified_name: str | None
    hold_reason: str | None = Field(description="Why sending is held, by Meta's word; null: it is not")
    newest_sent_at: datetime | None = Field(description="Meta's time of the newest item recorded")
    recorded_at: datetime | None = Field(description="When that was")
    lag_ms: int | None = Field(description="The second less the first: how far behind Meta we were then")


class ChannelList(Shape):
    """Answer of GET /api/whatsapp/channels."""

    items: list[Channel]
    server_time: datetime


class AccountEvent(Shape):
    """Something Meta told about an account, a number, a template or a group."""

    id: UUID
    workspace_id: UUID
    field: str = Field(description="Meta's webhook field", examples=["account_update"])
    event: str = Field(
        description="Meta's event, decision or type in lower case; empty where it has none",
        examples=["disabled_update"],
    )
    severity: Severity = Field(description="critical: messages stop, or somebody meddles; act now")
    channel_id: UUID | None = Field(description="The number it names; null: the whole account, or none of ours")
    template_id: UUID | None
    waba_id: str | None = Field(examples=["318204775196043"])
    happened_at: datetime
    payload: Any = Field(
        description="What Meta sent",
        examples=[
            {"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "DISABLE", "waba_ban_date": "May 1, 2026"}}
        ],
    )
    created_at: datetime


class AccountEventPage(Shape):
    """Answer of GET /api/whatsapp/account-events."""

    items: list[AccountEvent]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last")
    server_time: datetime


class Erasure(Shape):
    """A contact being erased."""

    id: UUID
    workspace_id: UUID
    contact_id: UUID = Field(description="Of nobody any more, once rows are erased")
    state: Literal["requested", "erasing", "rewriting", "watching", "done"] = Field(
        description="From `rewriting` on no row of theirs is left; from `watching` on no raw body either, but for what "
        "Meta still redelivers, which is rewritten within the hour"
    )
    requested_at: datetime
    rows_erased_at: datetime | None
    watch_until: datetime | None
    finished_at: datetime | None
    rewritten: int = Field(description="Raw bodies and logged changes that named them")
