"""All that ingest and recorder take from their environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from shared.settings.groups import (
    DatabaseSettings,
    Group,
    HttpSettings,
    InternalHttpSettings,
    ProcessSettings,
    RedisSettings,
)


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class WebhookSettings(Group):
    """WHATSAPP_*: what proves that a webhook is Meta's."""

    app_secrets: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)] = Field(
        min_length=1, description="Comma-separated app secrets, newest first; any of them may have signed"
    )
    verify_token: SecretStr = Field(min_length=1, description="What you typed as verify token in Meta's app dashboard")
    max_body_bytes: int = Field(4 * 1024 * 1024, description="Larger webhook bodies get 413; Meta sends up to 3 MB")


class IngestSettings(ProcessSettings):
    """`python -m services.ingest`: holds no service key; its database login may execute one function."""

    http: HttpSettings = HttpSettings()
    database: DatabaseSettings
    redis: RedisSettings
    whatsapp: WebhookSettings


class RecorderSettings(ProcessSettings):
    """`python -m services.ingest recorder`: holds no secret of Meta's."""

    http: InternalHttpSettings = InternalHttpSettings()
    database: DatabaseSettings
    redis: RedisSettings
    batch_bodies: Annotated[int, Field(ge=1, le=2000)] = Field(256, description="Most bodies recorded in one call")
