"""STORAGE_*: where files are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, model_validator

from shared.settings.groups import Group, SupabaseGroup

LEAST_SECRET = 32


class StorageSettings(Group):
    """STORAGE_*: a folder, or the project's Storage; the same for all that keep or read files."""

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


class ReadStorageSettings(StorageSettings):
    """STORAGE_*: for a process that only reads files, and does without where neither place is set."""

    @model_validator(mode="after")
    def _one_place(self) -> ReadStorageSettings:
        if self.dir is not None and self.service_key is not None:
            raise ValueError("Set STORAGE_DIR or STORAGE_SERVICE_KEY, and not both")
        return self

    @property
    def is_set(self) -> bool:
        """Say whether there is a place at all."""
        return self.dir is not None or self.service_key is not None


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
ReadStorage = Annotated[ReadStorageSettings, AfterValidator(_needs_project)]
Storage = Annotated[StorageSettings, AfterValidator(_needs_project)]
ServedStorage = Annotated[ServedStorageSettings, AfterValidator(_needs_project)]
