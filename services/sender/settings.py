"""All that the sender's processes take from their environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from services.sender.media_settings import MediaSettings
from shared.settings.groups import (
    CacheSettings,
    DatabaseUnlessRest,
    Group,
    HttpSettings,
    InternalHttpSettings,
    ProcessSettings,
    RedisSettings,
    RedisUnlessCache,
    SupabaseServiceSettings,
    SupabaseSignInSettings,
)
from shared.storage.settings import ServedStorage, Storage


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class GraphSettings(Group):
    """WHATSAPP_*: Meta's Graph API, and what opens the tokens we hold for it."""

    graph_url: str = Field(
        "https://graph.facebook.com/v26.0",
        pattern="^https?://",
        description="Where Meta's Graph API is, with its version; the sandbox, locally",
    )
    token_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)] = Field(
        min_length=1,
        description="Comma-separated private keys, newest first, that open the tokens of connected numbers; "
        "`python -m services.sender keys` makes one",
    )


class _NudgingSettings(ProcessSettings):
    """What both processes take to wake each other: one Redis, of which nothing matters."""

    cache: CacheSettings = CacheSettings()
    redis: RedisUnlessCache = Field(default_factory=dict, validate_default=True)

    @property
    def cache_url(self) -> str:
        """The Redis of what may be forgotten."""
        return (self.cache.redis_url or self.redis.url).get_secret_value()


class SenderSettings(_NudgingSettings):
    """`python -m services.sender`: acts only as the person who asks; holds no token of Meta's and no key to one."""

    http: HttpSettings = HttpSettings()
    supabase: SupabaseSignInSettings
    database: DatabaseUnlessRest = Field(default_factory=dict, validate_default=True)
    storage: ServedStorage = Field(default_factory=dict, validate_default=True)


class DispatcherSettings(_NudgingSettings):
    """`python -m services.sender dispatcher`: the only holder of the keys to Meta's tokens."""

    http: InternalHttpSettings = InternalHttpSettings()
    supabase: SupabaseServiceSettings = SupabaseServiceSettings()
    database: DatabaseUnlessRest = Field(default_factory=dict, validate_default=True)
    redis: RedisSettings  # and not only the cache: what waits there unrecorded may settle what is in doubt
    whatsapp: GraphSettings
    storage: Storage = Field(default_factory=dict, validate_default=True)
    media: MediaSettings = MediaSettings()
    slots: Annotated[int, Field(ge=4, le=2000)] = Field(256, description="Most messages on their way to Meta at once")
    doubt_grace_s: Annotated[float, Field(gt=0)] = Field(
        300.0,
        description="How long a message of which nobody knows whether Meta has it waits for its status before it is "
        "tried again; longer than Meta's statuses ever take",
    )
