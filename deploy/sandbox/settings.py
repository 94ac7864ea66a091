"""What the sandbox takes from its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, FilePath, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class UnusableSettings(Exception):
    """The environment does not say what the sandbox needs; the sentence names every variable concerned."""


class Settings(BaseSettings):
    """Every variable starts with SANDBOX_; those without a default have to be given."""

    model_config = SettingsConfigDict(env_prefix="SANDBOX_", frozen=True, hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]
    # Our ingest, e.g. http://127.0.0.1:8001/api/webhooks/whatsapp
    webhook_url: Annotated[str, Field(pattern=r"^https?://")]
    app_secret: SecretStr
    story: FilePath
    # How long Claude takes when no fault says otherwise.
    latency_ms: Annotated[int, Field(ge=0, le=120_000)] = 300
    # Where others reach us; the issuer in our tokens is this plus /auth/v1, media URLs begin with it.
    public_url: str | None = None
    # Keep whole prompts in the record of calls from the start; a fault switch can turn it on later.
    record_prompts: bool = False

    @property
    def base_url(self) -> str:
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def issuer(self) -> str:
        return f"{self.base_url}/auth/v1"

    @property
    def story_path(self) -> Path:
        return Path(self.story)


def read_settings() -> Settings:
    """Read the environment once.

    Raises: UnusableSettings, one sentence that names all that is missing or wrong, and no value.
    """
    try:
        return Settings()  # the environment supplies the arguments
    except ValidationError as error:
        problems = [
            f"SANDBOX_{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise UnusableSettings("The sandbox cannot start: " + "; ".join(problems)) from error
