"""STORAGE_* and MEDIA_*: where files are kept, and where they may be fetched from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, model_validator
from pydantic_settings import NoDecode

from shared.settings.groups import Group, SupabaseGroup

LEAST_SECRET = 32


class StorageSettings(Group):
    """STORAGE_*: a folder, or the project's Storage; the same for sender and dispatcher."""

    dir: Path | None = Field(
        None,
        description="Folder for files people send and get. Several copies of sender and dispatcher share one volume. "
        "Unset: Supabase Storage, with STORAGE_SERVICE_KEY",
    )
    service_key: SecretStr | None = Field(
        None,
        description="Secret (or legacy service_role) key of the project at SUPABASE_URL, for its Storage; used without "
        "STORAGE_DIR",
    )
    bucket: str = Field(
        "media", pattern="^[a-z0-9][a-z0-9._-]+$", description="Private bucket in Supabase Storage; must exist"
    )

    @model_validator(mode="after")
    def _one_place(self) -> StorageSettings:
        if (self.dir is None) == (self.service_key is None):
            raise ValueError("Set STORAGE_DIR or STORAGE_SERVICE_KEY, and not both")
        return self


class ServedStorageSettings(StorageSettings):
    """STORAGE_*: for the process that gives out addresses of files."""

    url_secret: SecretStr | None = Field(
        None,
        description=f"Signs addresses of files in STORAGE_DIR: {LEAST_SECRET} or more characters, alike in every copy",
    )
    public_url: str = Field(
        "",
        pattern="^(https?://.+)?$",
        description="Scheme and host in front of those addresses, e.g. https://inbox.example.com; "
        "unset: relative to the page that asks",
    )
    url_lives_s: Annotated[int, Field(ge=30, le=3600)] = Field(
        300, description="How long an address of a file works, in seconds"
    )

    @model_validator(mode="after")
    def _signed(self) -> ServedStorageSettings:
        secret = self.url_secret.get_secret_value() if self.url_secret else ""
        if self.dir is not None and len(secret) < LEAST_SECRET:
            raise ValueError(f"STORAGE_DIR needs STORAGE_URL_SECRET of at least {LEAST_SECRET} characters")
        return self


def _needs_project(storage: StorageSettings, info: ValidationInfo) -> StorageSettings:
    supabase = info.data.get("supabase")
    if storage.service_key is not None and not (isinstance(supabase, SupabaseGroup) and supabase.url):
        raise ValueError("STORAGE_SERVICE_KEY needs SUPABASE_URL")
    return storage


# Declare `supabase` above them: fields are validated in order.
Storage = Annotated[StorageSettings, AfterValidator(_needs_project)]
ServedStorage = Annotated[ServedStorageSettings, AfterValidator(_needs_project)]


def _split(value: object) -> object:
    return tuple(part.strip().lower() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class MediaSettings(Group):
    """MEDIA_*: of the process that fetches files from Meta."""

    hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        ("lookaside.fbsbx.com",),
        description="Comma-separated hosts that Meta's files may be fetched from, with our token. HTTPS and public "
        "addresses only, unless a loopback address is named, or a whole origin: the sandbox, http://sandbox:8003",
    )
    transfer_timeout_s: Annotated[float, Field(gt=0)] = Field(
        100.0,  # under Clocks.chore_deadline_s, so that we know what became of it
        description="For one file from Meta to us or back, of up to 100 MB, in seconds",
    )
