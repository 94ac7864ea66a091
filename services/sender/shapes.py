"""The sender's bodies and answers as OpenAPI describes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.web.shapes import Message, Problem, Shape
from shared.whatsapp.outbound import Bsuid, Content, Phone
from shared.whatsapp.templates import Values

__all__ = ["Message", "Problem", "Resolve", "Send", "SendProblem", "Typing", "WindowTemplate"]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ChosenTemplate(_Asked):
    """An approved template of ours, and what stands in its placeholders."""

    id: UUID = Field(description="Ours, of GET /api/whatsapp/templates")
    values: Values = Field(default_factory=Values)


class Send(_Asked):
    """Body of POST /api/whatsapp/send: whom to, what, and how."""

    conversation_id: UUID | None = Field(None, description="To the customer of this conversation; or:")
    channel_id: UUID | None = Field(None, description="From this number, with `contact_id` or `to`")
    contact_id: UUID | None = None
    to: Annotated[Phone | Bsuid, Field(discriminator="kind")] | None = Field(
        None, examples=[{"kind": "phone", "number": "+1 202 555 0117"}]
    )
    content: Annotated[Content, Field(discriminator="type")] | None = Field(
        None,
        description="What is said; a file by `media_id` of an upload of yours",
        examples=[{"type": "text", "body": "Your parcel arrives today."}],
    )
    template: ChosenTemplate | None = Field(None, description="Instead of `content`")
    reply_to: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        None, description="The message that is quoted: our id or Meta's"
    )
    send_at: AwareDatetime | None = Field(None, description="Not before; at most 90 days ahead")
    suggestion_id: UUID | None = Field(
        None, description="The customer's message whose suggested response this was made from, changed or not"
    )
    seen_seq: Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)] | None = Field(
        None, description="`seq` of the last message you saw; a later one of the customer's refuses this (409)"
    )


class Resolve(_Asked):
    """Body of POST …/resolve."""

    send_again: bool = Field(description="true: send it again, at the risk of twice; false: leave it failed")


class Typing(_Asked):
    """Body of POST /api/whatsapp/typing."""

    conversation_id: UUID


class Empty(Shape):
    """Nothing more to say."""


class WindowTemplate(Shape):
    """A template that can be sent although the window is closed."""

    id: UUID
    template_name: str
    language: str
    category: str | None
    body_content: str


class SendProblem(Problem):
    """Why a message was not taken."""

    last_inbound_at: datetime | None = Field(None, description="When the customer last wrote; null: never")
    templates: list[WindowTemplate] | None = Field(None, description="With `reply_window_closed`: what can be sent")
