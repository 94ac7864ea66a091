"""Shapes of message templates, as OpenAPI describes them. Postgres builds the JSON; a test holds the two equal."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from shared.web.shapes import Shape, ToMend
from shared.whatsapp.templates import Preview, TemplateDefinition, Values

Version = Annotated[int, Field(strict=True, ge=1, le=2**63 - 1, description="`version` of what they saw")]


TemplateStatus = Literal[
    "pending", "approved", "rejected", "paused", "disabled", "in_appeal", "pending_deletion", "deleted",
    "limit_exceeded", "archived", "locked", "flagged",
]  # fmt: skip


class TemplateRefusal(Shape):
    """Why Meta did not take a template, or what was asked about it."""

    code: int | None = Field(description="Meta's", examples=[2388293])
    reason: str = Field(description="Stable, ours", examples=["template_invalid"])
    sentence: str = Field(examples=["WhatsApp refused the template: too many placeholders for so little text."])
    details: str | None = Field(None, description="Meta's own words")


class TemplateDraft(Shape):
    """What was written here and Meta has not accepted yet."""

    category: str = Field(examples=["utility"])
    components: list[dict[str, Any]]
    parameter_format: str | None
    ttl_s: int | None
    body_content: str


class MessageTemplate(Shape):
    """A message template in one language: as Meta keeps it, and what is to be submitted."""

    id: UUID
    workspace_id: UUID
    waba_id: str
    template_name: str = Field(examples=["trip_reminder"])
    language: str = Field(examples=["en_US"])
    category: str | None = Field(description="marketing, utility, authentication; Meta may choose another than asked")
    previous_category: str | None
    correct_category: str | None = Field(description="Meta is going to change the category to it")
    category_changes_at: datetime | None
    parameter_format: str | None = Field(description="POSITIONAL (null, too) or NAMED")
    ttl_s: int | None = Field(description="How long Meta tries to deliver; -1: 30 days; null: its default")
    body_content: str = Field(examples=["Hi {{1}}, your trip starts on {{2}}. See you there!"])
    components: list[dict[str, Any]] = Field(description="As Meta's endpoints write them")
    status: TemplateStatus = Field(description="Only approved ones can be sent; pending until Meta has reviewed it")
    reject_reason: str | None = Field(description="Meta's code, then its sentences")
    paused_until: datetime | None
    quality: Literal["green", "yellow", "red", "unknown"] | None
    meta_id: str | None
    submitted_at: datetime | None = Field(description="Null: not at Meta yet, or edited since it was rejected")
    draft: TemplateDraft | None = Field(description="To be submitted; what is approved is sent as it is until then")
    draft_error: TemplateRefusal | None = Field(description="Why Meta refused the draft, or the deletion")
    busy: Literal["submitting", "deleting", "unpausing"] | None = Field(description="On its way to Meta")
    next_edit_at: datetime | None = Field(description="Until then Meta takes no edit of the approved template")
    version: int = Field(description="Send it back with a change: somebody else may have made one")
    usage_count: int = Field(description="Messages of it that Meta accepted")
    last_used_at: datetime | None
    created_by: UUID | None = Field(description="Null: made at Meta")
    created_at: datetime


class TemplateAccount(Shape):
    """How far the templates of a WhatsApp account are read."""

    waba_id: str
    synced_at: datetime | None = Field(description="As of when all its templates are as Meta told")
    sync_error: TemplateRefusal | None
    analytics_state: Literal["off", "asked", "on", "unavailable"]
    analytics_error: TemplateRefusal | None


class MessageTemplatePage(Shape):
    """Answer of GET /api/whatsapp/templates."""

    items: list[MessageTemplate]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last")
    accounts: list[TemplateAccount]
    server_time: datetime


class NewTemplate(Shape):
    """Body of POST /api/whatsapp/templates."""

    waba_id: str | None = Field(None, max_length=64, description="Needed where the workspace has several accounts")
    definition: TemplateDefinition


class EditedTemplate(Shape):
    """Body of PUT /api/whatsapp/templates/{template_id}."""

    version: Version
    definition: TemplateDefinition | None = Field(description="Null: give up the draft, keep what Meta has")


class SeenVersion(Shape):
    """Body of calls that depend on what the person has seen of a template."""

    version: Version


class TemplateDay(Shape):
    """What was sent of a template on a day (UTC). accepted: by our count; the rest: Meta's, null where it told none."""

    day: date
    accepted: int
    sent: int | None
    delivered: int | None
    read: int | None = Field(description="Counted for 7 days after the send, as clicks are")
    clicked: int | None
    clicks: list[dict[str, Any]] | None = Field(description="By button: {type, button_content, count}")
    cost: float | None = Field(description="Meta's estimate, in the account's currency")


class TemplateAnalytics(Shape):
    """Answer of GET /api/whatsapp/templates/{template_id}/analytics."""

    template_id: UUID
    state: Literal["off", "asked", "on", "unavailable"] = Field(description="Whether Meta counts for this account")
    error: TemplateRefusal | None
    read_at: datetime | None
    days: list[TemplateDay]
    server_time: datetime


class SyncRequested(Shape):
    """Answer of POST /api/whatsapp/templates/sync."""

    accounts: int = Field(description="Of how many accounts templates are read now")


class AnalyticsRequested(Shape):
    """Answer of POST /api/whatsapp/templates/analytics/enable."""

    waba_id: str
    state: Literal["asked", "on"]


class AccountOfTemplates(Shape):
    """Body of POST /api/whatsapp/templates/analytics/enable."""

    waba_id: str = Field(max_length=64)


class PreviewRequest(Shape):
    """Body of POST /api/whatsapp/templates/preview: a template that may not be saved yet, or a saved one."""

    definition: TemplateDefinition | None = None
    template_id: UUID | None = None
    values: Values | None = Field(None, description="Null: its samples")


class TemplatePreview(Shape):
    """How a template will look; `problems`: why these values cannot be sent."""

    preview: Preview
    problems: list[ToMend]
