"""What the sender's commands for operators take: the dispatcher's settings, and what the doctor compares."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from services.sender.settings import GraphSettings
from shared.settings.groups import DatabaseUnlessRest, ProcessSettings, SupabaseServiceSettings
from shared.storage.settings import Storage


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class TriedWebhookSettings(GraphSettings):
    """WHATSAPP_*: the dispatcher's; and what ingest holds, with which the webhook can be tried from outside."""

    webhook_url: str | None = Field(
        None,
        pattern="^https?://",
        description="Where Meta delivers to, e.g. https://parley.example/api/webhooks/whatsapp; the doctor tries it",
    )
    app_secrets: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="As ingest has them; the newest signs what the doctor posts to the webhook"
    )
    verify_token: SecretStr | None = Field(None, description="As ingest has it")


class KeysSettings(ProcessSettings):
    """`python -m services.sender keys rotate`."""

    supabase: SupabaseServiceSettings = SupabaseServiceSettings()
    database: DatabaseUnlessRest = Field(default_factory=dict, validate_default=True)
    whatsapp: GraphSettings


class DoctorSettings(ProcessSettings):
    """`python -m services.sender doctor`."""

    supabase: SupabaseServiceSettings = SupabaseServiceSettings()
    database: DatabaseUnlessRest = Field(default_factory=dict, validate_default=True)
    whatsapp: TriedWebhookSettings
    storage: Storage = Field(default_factory=dict, validate_default=True)
