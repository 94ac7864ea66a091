"""Groups of settings; REDIS_URL lands in `redis.url`, HTTP_INTERNAL_PORT in `http.internal_port`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shared.settings.secret_files import EnvironmentOrFiles


class Group(BaseModel):
    """A group of settings with one prefix."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class DatabaseSettings(Group):
    """DATABASE_*: PostgreSQL. The limits hold for Supabase's REST API too."""

    url: SecretStr = Field(
        description="Direct or session-mode connection, e.g. postgresql://user:password@host:5432/parley; "
        "or instead of it SUPABASE_URL with SUPABASE_SERVICE_ROLE_KEY (api: SUPABASE_ANON_KEY; "
        "ingest: SUPABASE_ANON_KEY and SUPABASE_INGEST_TOKEN)"
    )
    max_connections: Annotated[int, Field(ge=1, le=100)] = Field(8, description="Most connections this process opens")
    timeout_s: Annotated[float, Field(gt=0)] = Field(5.0, description="For a free connection, and for one statement")


@dataclass(frozen=True, slots=True)
class RestAccess:
    """How a process reaches the database through Supabase's REST API.

    `key`: the gateway's apikey. `own_token`: what the process's own calls run as; None: only ever as signed-in people.
    """

    url: str
    key: str = field(repr=False)
    own_token: str | None = field(repr=False)


class SupabaseGroup(Group):
    """SUPABASE_*: a project's address; each process adds the key it may hold."""

    url: str | None = Field(
        None, pattern="^https?://", description="Project URL, e.g. https://abc.supabase.co; used without DATABASE_URL"
    )

    def rest(self) -> RestAccess | None:
        """Return the way to the database; None when it is not configured, or not wholly."""
        raise NotImplementedError


class SupabaseServiceSettings(SupabaseGroup):
    """SUPABASE_*: for a process that acts as service_role."""

    service_role_key: SecretStr | None = Field(
        None, description="Secret (or legacy service_role) key of the project; used without DATABASE_URL"
    )

    def rest(self) -> RestAccess | None:
        """See `SupabaseGroup`."""
        if self.url is None or self.service_role_key is None:
            return None
        key = self.service_role_key.get_secret_value()
        return RestAccess(self.url, key, own_token=key)


class SupabaseSignInSettings(SupabaseGroup):
    """SUPABASE_*: who signs people in; without DATABASE_URL also the way to the database."""

    url: str = Field(
        pattern="^https?://",
        description="Project URL, e.g. https://abc.supabase.co; its Auth issues the tokens we accept",
    )
    anon_key: SecretStr | None = Field(
        None, description="Publishable (or legacy anon) key of the project; used without DATABASE_URL"
    )
    jwt_secret: SecretStr | None = Field(
        None, description="Shared secret of projects that still sign with HS256; unset: refused"
    )

    def rest(self) -> RestAccess | None:
        """See `SupabaseGroup`."""
        return RestAccess(self.url, self.anon_key.get_secret_value(), own_token=None) if self.anon_key else None


def _needed_unless_rest(value: object, info: ValidationInfo) -> object:
    """Let DATABASE_URL be absent where the field `supabase`, validated before, leads to the database too."""
    supabase = info.data.get("supabase")
    can_rest = isinstance(supabase, SupabaseGroup) and supabase.rest() is not None
    return {"url": "", **value} if can_rest and isinstance(value, dict) else value


# Declare `supabase` above it: fields are validated in order. An empty url means: through `supabase`.
DatabaseUnlessRest = Annotated[DatabaseSettings, BeforeValidator(_needed_unless_rest)]


class RedisSettings(Group):
    """REDIS_*: the Redis that carries the stream and the queues (noeviction, appendfsync always)."""

    url: SecretStr = Field(description="e.g. redis://:password@host:6379/0")


class CacheSettings(Group):
    """CACHE_*: the Redis of what may be forgotten: wake-ups of the sender, how fast each number may send."""

    redis_url: SecretStr | None = Field(
        None,
        description="Redis for what may be forgotten, e.g. redis://:password@host:6380/0; unset: the one of REDIS_URL",
    )


def _needed_unless_cache(value: object, info: ValidationInfo) -> object:
    """Let REDIS_URL be absent where CACHE_REDIS_URL says all: for a process that uses no other Redis."""
    cache = info.data.get("cache")
    has_own = isinstance(cache, CacheSettings) and cache.redis_url is not None
    return {"url": "", **value} if has_own and isinstance(value, dict) else value


# Declare `cache` above it: fields are validated in order. An empty url means: `cache` has its own.
RedisUnlessCache = Annotated[RedisSettings, BeforeValidator(_needed_unless_cache)]


class InternalHttpSettings(Group):
    """HTTP_*: of a process without a public port."""

    internal_port: Annotated[int, Field(ge=1, le=65535)] = Field(9000, description="Port of /live, /ready and /metrics")
    internal_host: str = Field(
        "127.0.0.1", description="Address of the internal port; a pod's own address under Kubernetes"
    )


class HttpSettings(InternalHttpSettings):
    """HTTP_*: of a process with a public port."""

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(8000, description="Port to listen on")
    require_https: bool = Field(True, description="Refuse requests that did not come over HTTPS")
    trusted_proxies: str = Field(
        "", description="Comma-separated addresses or networks whose X-Forwarded-Proto is believed, e.g. 10.0.0.0/8"
    )


class ProcessSettings(BaseSettings):
    """What every process takes."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # a missing field must not print its neighbours' secrets
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment, secrets also from the files it names; no .env and no folder of secrets."""
        return init_settings, EnvironmentOrFiles(settings_cls)
