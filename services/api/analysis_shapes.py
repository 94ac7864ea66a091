"""Bodies and answers of the routes about analyses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.web.shapes import Priority, Sentiment, Shape

__all__ = ["Acceptance", "Correction", "SuggestionOutcome", "Transcript"]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Correction(_Asked):
    """Body of POST …/analysis: the fields to set; what is left out stays as it is."""

    # The defaults are never used: only what was sent goes on. (Optional fields would allow null, which says nothing.)
    sentiment: Sentiment = Field("neutral", examples=["negative"])
    sentiment_score: Annotated[float, Field(ge=-1, le=1)] = Field(
        0.0, description="Needs `sentiment`; without it the score keeps its strength on that side", examples=[-0.6]
    )
    intent: str = Field("", max_length=200, description="One of the workspace's", examples=["complaint"])
    summary: str = Field("", max_length=400, examples=["Asks for the second time where the order is."])
    suggested_response: str = Field("", max_length=1200)
    priority: Priority = Field("normal", examples=["high"])
    language: str = Field("", max_length=20, description="BCP 47", examples=["pt-BR"])


class SuggestionOutcome(_Asked):
    """Body of POST …/suggestion."""

    outcome: Literal["used", "edited", "ignored"]


class Transcript(_Asked):
    """Body of PUT …/transcript."""

    text: Annotated[str, Field(min_length=1, max_length=20_000)]


class AcceptanceRow(Shape):
    """What became of suggestions of one intent and prompt version."""

    intent: str | None = Field(examples=["order_status"])
    prompt_version: str | None
    used: int = Field(description="Sent as suggested")
    edited: int = Field(description="Sent with changes")
    ignored: int = Field(description="Something else was sent, or nothing in three days")
    on_offer: int = Field(description="Not decided yet")
    acceptance: float | None = Field(description="(used + edited) / decided; null: none is decided")


class Acceptance(Shape):
    """Answer of GET /api/workspace/suggestion-acceptance, the most decided first."""

    items: list[AcceptanceRow]
    server_time: datetime
