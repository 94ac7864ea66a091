"""All that the AI worker takes from its environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from services.ai_worker.models import Models
from services.ai_worker.pricing import PRICES
from shared.settings.groups import (
    DatabaseUnlessRest,
    Group,
    InternalHttpSettings,
    ProcessSettings,
    RedisSettings,
    SupabaseServiceSettings,
)
from shared.storage.settings import ReadStorage


class AnthropicSettings(Group):
    """ANTHROPIC_*: Claude."""

    api_key: SecretStr = Field(min_length=1, description="Key of the Claude API")
    base_url: str = Field("https://api.anthropic.com", description="Where the Claude API is; the sandbox, locally")
    model: str = Field("claude-haiku-5-5", description="Model of the message analysis; must be in the price table")

    conversation_model: str | None = Field(
        None,
        description="Model of the conversation analysis, e.g. claude-sonnet-5-5; unset: that of the message analysis",
    )
    cheap_model: str = Field(
        "claude-haiku-5-5", description="Model of every task when little of a workspace's daily budget is left"
    )

    @field_validator("model", "conversation_model", "cheap_model")
    @classmethod
    def _has_a_price(cls, model: str | None) -> str | None:
        if model is not None and model not in PRICES:
            raise ValueError(
                f"no price is known for that model, so its cost could not be counted; known: {', '.join(PRICES)}"
            )
        return model

    def models(self) -> Models:
        """Return which model answers what."""
        return Models(messages=self.model, conversation=self.conversation_model, cheap=self.cheap_model)


class Settings(ProcessSettings):
    """`python -m services.ai_worker`: holds no secret of Meta's."""

    http: InternalHttpSettings = InternalHttpSettings()
    supabase: SupabaseServiceSettings = SupabaseServiceSettings()
    database: DatabaseUnlessRest = Field(default_factory=dict, validate_default=True)
    redis: RedisSettings
    anthropic: AnthropicSettings
    storage: ReadStorage = Field(default_factory=dict, validate_default=True)
    slots: Annotated[int, Field(ge=1, le=256)] = Field(64, description="Calls to Claude in flight at once")
