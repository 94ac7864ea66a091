"""Groups of settings; REDIS_URL lands in `redis.url`, HTTP_INTERNAL_PORT in `http.internal_port`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Group(BaseModel):
    """A group of settings with one prefix."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class DatabaseSettings(Group):
    """DATABASE_*: PostgreSQL."""

    url: SecretStr = Field(
        description="Direct or session-mode connection, e.g. postgresql://user:password@host:5432/parley"
    )
    max_connections: Annotated[int, Field(ge=1, le=100)] = Field(8, description="Most connections this process opens")
    timeout_s: Annotated[float, Field(gt=0)] = Field(5.0, description="For a free connection, and for one statement")


class RedisSettings(Group):
    """REDIS_*: the Redis that carries the stream and the queues (noeviction, appendfsync always)."""

    url: SecretStr = Field(description="e.g. redis://:password@host:6379/0")


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
