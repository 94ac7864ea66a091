"""All that ingest and recorder take from their environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from shared.settings.groups import (
    CacheSettings,
    DatabaseUnlessRest,
    Group,
    HttpSettings,
    InternalHttpSettings,
    ProcessSettings,
    RedisSettings,
    RestAccess,
    SupabaseGroup,
    SupabaseServiceSettings,
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
    body_deadline_s: Annotated[float, Field(gt=0)] = Field(
        30.0, description="A webhook body that takes longer to arrive gets 408"
    )
    max_backlog_bytes: Annotated[int, Field(gt=0)] = Field(
        128 * 1024 * 1024,
        description="Webhooks go to PostgreSQL while the stream takes more in Redis; keep it under half of maxmemory",
    )


class SupabaseIngestSettings(SupabaseGroup):
    """SUPABASE_*: the way to the one function that ingest may execute."""

    anon_key: SecretStr | None = Field(
        None, description="Publishable (or legacy anon) key of the project; used without DATABASE_URL"
    )
    ingest_token: SecretStr | None = Field(
        None, description="Token with the role parley_ingest (see docs/supabase.md); used without DATABASE_URL"
    )

    def rest(self) -> RestAccess | None:
        """See `SupabaseGroup`."""
        if self.url is None or self.anon_key is None or self.ingest_token is None:
            return None
        return RestAccess(self.url, self.anon_key.get_secret_value(), own_token=self.ingest_token.get_secret_value())


class IngestSettings(ProcessSettings):
    """`python -m services.ingest`: holds no service key; its database login, or token, may execute one function."""

    http: HttpSettings = HttpSettings()
    supabase: SupabaseIngestSettings = SupabaseIngestSettings()
    database: DatabaseUnlessRest = Field(default_factory=dict, validate_default=True)
    redis: RedisSettings
    whatsapp: WebhookSettings


class RecorderSettings(ProcessSettings):
    """`python -m services.ingest recorder`: holds no secret of Meta's."""

    http: InternalHttpSettings = InternalHttpSettings()
    supabase: SupabaseServiceSettings = SupabaseServiceSettings()
    database: DatabaseUnlessRest = Field(default_factory=dict, validate_default=True)
    redis: RedisSettings
    cache: CacheSettings = CacheSettings()
    batch_bodies: Annotated[int, Field(ge=1, le=2000)] = Field(256, description="Most bodies recorded in one call")
    # Meta redelivers for 7 days; what was deleted is remembered for 45 (app.tombstone_life), so that a replay of a body
    # redelivered on the last of those brings nothing back: 45 - 8.
    raw_keep_days: Annotated[int, Field(ge=8, le=37)] = Field(
        30, description="Days that webhook bodies are kept as Meta sent them, for replay; 8 to 37"
    )

    @property
    def cache_url(self) -> str:
        """The Redis of what may be forgotten."""
        return (self.cache.redis_url or self.redis.url).get_secret_value()


class OptionalRedisSettings(Group):
    """REDIS_*: for commands that only nudge workers."""

    url: SecretStr | None = Field(None, description="See RedisSettings; without it nobody is woken, and workers poll")


class OperatorSettings(ProcessSettings):
    """`python -m services.ingest quarantine` and `replay`: the recorder's, of which they need the database only."""

    supabase: SupabaseServiceSettings = SupabaseServiceSettings()
    database: DatabaseUnlessRest = Field(default_factory=dict, validate_default=True)
    redis: OptionalRedisSettings = OptionalRedisSettings()
