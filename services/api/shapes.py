"""The API's bodies and answers as OpenAPI describes them. Postgres builds the JSON; a test holds the two equal."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from shared.web.shapes import Message, Priority, Problem, SendError, Sentiment, Shape
from shared.whatsapp.templates import Values

__all__ = ["Message", "Priority", "Problem", "Sentiment", "Shape"]


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


class MetaBlock(Shape):
    """What became of blocking somebody at WhatsApp, on one number."""

    channel_id: UUID
    wanted: Literal["block", "unblock"]
    state: Literal["asked", "done", "refused"]
    reason: str | None = Field(description="Why refused; stable", examples=["not_recent"])
    sentence: str | None = Field(
        examples=["Blocked here, not yet at WhatsApp, which blocks only people who wrote within the last 24 hours: …"]
    )
    at: datetime


class ContactState(Shape):
    """A contact after they were blocked or unblocked."""

    id: UUID = Field(description="Another than was asked for, if the two turned out to be one person")
    workspace_id: UUID
    blocked_at: datetime | None = Field(description="Null: not blocked")
    meta_blocks: list[MetaBlock] = Field(description="By number; empty: WhatsApp was never asked")
    conversations: list[ConversationState] = Field(description="On every channel; deleted ones left out")


class MessagePage(Shape):
    """Answer of GET /api/whatsapp/conversations/{conversation_id}/messages."""

    items: list[Message]
    next_cursor: int | None = Field(
        description="Pass as `before` (or `after`, if that was given); null on the last page"
    )
    server_time: datetime


Severity = Literal["critical", "warning", "info"]


class Finding(Shape):
    """Something a check of a number saw."""

    code: str = Field(description="Stable", examples=["registration"])
    sentence: str = Field(
        examples=["This phone number is not registered with WhatsApp; an administrator must register it again."]
    )


class ChannelCheck(Shape):
    """The last check of a number at Meta."""

    outcome: Literal["ok", "warn", "fail"]
    findings: list[Finding]


class Subscription(Shape):
    """Whether Meta sends us an account's webhooks."""

    at: datetime
    is_subscribed: bool
    code: str | None
    sentence: str | None


class NewToken(Shape):
    """An access token of Meta's; sealed before it is stored, and never shown."""

    access_token: Annotated[SecretStr, Field(min_length=1, max_length=4_200)] = Field(
        description="A system user's, with whatsapp_business_messaging and whatsapp_business_management"
    )


class NewChannel(NewToken):
    """A number to connect; both ids stand on the API setup page of Meta's app dashboard."""

    waba_id: Annotated[str, Field(pattern="^[0-9]{5,20}$")] = Field(
        description="WhatsApp Business Account id", examples=["318204775196043"]
    )
    phone_number_id: Annotated[str, Field(pattern="^[0-9]{5,20}$")] = Field(examples=["402776318915527"])


class Channel(Shape):
    """A business phone number, what waits at it, and how far behind Meta its intake is."""

    id: UUID
    workspace_id: UUID
    display_phone_number: str = Field(description="Empty until Meta has told it", examples=["15550123456"])
    waba_id: str
    phone_number_id: str
    state: Literal["connecting", "connected", "paused", "disconnected"] = Field(
        description="connecting: Meta has yet to show it with the token given; paused: receives, does not send"
    )
    paused_reason: str | None = Field(description="by_person, or our code of what Meta refused", examples=["auth"])
    paused_at: datetime | None
    marketing_paused_at: datetime | None = Field(description="Meta limits it for spam: marketing waits, replies go")
    quality: str | None = Field(examples=["green"])
    tier_mps: int = Field(description="Messages per second Meta lets through, in and out together")
    messaging_limit: str | None
    verified_name: str | None
    hold_reason: str | None = Field(description="Why sending is held, by Meta's word; null: it is not")
    hold_until: datetime | None = Field(description="Null: until it is resumed")
    has_token: bool = Field(description="Without one it only receives")
    token_set_at: datetime | None
    checked_at: datetime | None
    last_check: ChannelCheck | None
    subscription: Subscription | None
    outbox_depth: int = Field(description="Messages that could go now; 10,001: more than 10,000")
    outbox_oldest_at: datetime | None = Field(description="Since when the oldest of them could")
    service_messages: int = Field(description="Not from a template, accepted this month (UTC)")
    service_messages_free: int = Field(description="So many a month Meta charges nothing for")
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


MarkRead = Literal["on_receipt", "on_open", "never"]


class WorkspaceSettings(Shape):
    """What a workspace wants of sending and receiving."""

    workspace_id: UUID
    mark_read: MarkRead = Field(
        description="When customers see that their messages were read: as they arrive, as somebody opens them, never"
    )
    reopen_archived: bool = Field(description="A new message reopens an archived conversation")
    vision: bool = Field(
        description="Claude is shown the pictures customers send; nothing in a picture can be redacted"
    )


class WorkspaceSettingsChange(Shape):
    """Those to change; what is left out stays."""

    mark_read: MarkRead | None = None
    reopen_archived: Annotated[bool, Field(strict=True)] | None = None
    vision: Annotated[bool, Field(strict=True)] | None = None


class AiBudget(Shape):
    """What Claude may cost a workspace a day, and has cost it today."""

    workspace_id: UUID
    enabled: bool = Field(description="Whether Claude reads this workspace's messages at all")
    daily_budget_usd: float | None = Field(description="null: no limit; 0: off")
    day: date = Field(description="By the workspace's time zone")
    ends_at: datetime
    spent_usd: float
    reserved_usd: float = Field(description="The most that calls under way may cost")
    step: Literal["all", "no_small_talk", "cheaper_model", "off"] = Field(
        description="What is done with less as money gets short: from 70 % on small talk is passed over, from 85 % on "
        "a cheaper model is asked; what the rest does not reach waits for the next day, two days at most"
    )
    deferred: int = Field(description="Conversations that wait for the next day")


class AiBudgetChange(Shape):
    """Those to change; what is left out stays. daily_budget_usd null: no limit."""

    enabled: Annotated[bool, Field(strict=True)] | None = None
    daily_budget_usd: Annotated[float, Field(strict=True, ge=0, le=100_000)] | None = None


class BulkRecipientAsked(BaseModel):
    """Whom, and what stands in their message's placeholders."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contact_id: UUID | None = Field(None, description="One of yours; or:")
    wa_id: Annotated[str, Field(max_length=40)] | None = Field(
        None, description="A phone number with its country code", examples=["+1 202 555 0117"]
    )
    values: Values = Field(default_factory=Values)


class BulkSendAsked(BaseModel):
    """Body of POST /api/whatsapp/bulk-sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel_id: UUID = Field(description="The number it goes out from")
    template_id: UUID = Field(description="An approved template of that number's account")
    name: Annotated[str, Field(max_length=200)] = Field("", description="What you call it", examples=["Black Friday"])
    recipients: Annotated[list[BulkRecipientAsked], Field(min_length=1, max_length=10_000)]


BulkResult = Literal[
    "waiting", "queued", "sent", "delivered", "read", "played", "failed",
    "opted_out", "blocked", "invalid", "duplicate", "cancelled", "erased",
]  # fmt: skip


class BulkSend(Shape):
    """One template to many people, and how far it is."""

    id: UUID
    workspace_id: UUID
    channel_id: UUID
    template_id: UUID
    name: str
    state: Literal["running", "paused", "cancelled", "done"]
    pause_reason: str | None = Field(
        description="by_person, or why none of it can go", examples=["template_not_approved"]
    )
    recipients: int
    counts: dict[BulkResult, int] = Field(
        description="Recipients by what came of it: not a message yet, a message's status, or why there is none",
        examples=[{"waiting": 9_200, "queued": 290, "delivered": 480, "read": 21, "opted_out": 9}],
    )
    created_by: UUID
    created_at: datetime
    finished_at: datetime | None


class BulkSendPage(Shape):
    """Answer of GET /api/whatsapp/bulk-sends."""

    items: list[BulkSend]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last")


class BulkRecipient(Shape):
    """What came of one recipient."""

    n: int = Field(description="Place in the list that was given, from 1")
    contact_id: UUID | None
    wa_id: str | None = Field(description="Until it is known whose it is")
    state: BulkResult
    message_id: UUID | None
    error: SendError | None


class BulkRecipientPage(Shape):
    """Answer of GET /api/whatsapp/bulk-sends/{id}/recipients."""

    items: list[BulkRecipient]
    next_cursor: int | None = Field(description="Pass as `after` for the next page; null on the last")
