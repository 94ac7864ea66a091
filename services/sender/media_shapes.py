"""Answers about files."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from shared.web.shapes import Shape
from shared.whatsapp.outbound.media import FileKind


class MediaFile(Shape):
    """A file, as Postgres describes it."""

    id: UUID = Field(description="Name it in a message to send the file")
    workspace_id: UUID
    message_id: UUID | None = Field(description="Null: in no message yet")
    kind: FileKind
    mime_type: str | None = Field(examples=["image/jpeg"])
    sniffed_type: str | None = Field(description="By its bytes; null: nothing we know", examples=["image/jpeg"])
    is_mismatched: bool = Field(description="Its bytes are not what its sender said; served as an attachment anyway")
    filename: str | None = Field(description="As its sender named it; never use it as a path")
    size_bytes: int | None
    width: int | None = Field(description="Of an image, in pixels")
    height: int | None
    is_voice: bool
    is_animated: bool
    has_thumbnail: bool
    state: Literal["pending", "stored", "failed", "gone"]
    problem: dict[str, Any] | None = Field(
        description="While failed or gone: {reason, sentence}", examples=[{"reason": "expired", "sentence": "…"}]
    )
    created_at: datetime
    stored_at: datetime | None


class MediaUrl(Shape):
    """Where a file can be had, for minutes."""

    id: UUID
    url: str = Field(description="Absolute, or relative to this page; needs no sign-in")
    thumbnail_url: str | None = Field(description="A WebP of at most 320 by 320 pixels; null: there is none")
    filename: str = Field(description="What it is saved as", examples=["invoice.pdf"])
    mime_type: str = Field(description="What it is served as", examples=["application/pdf"])
    expires_at: datetime
