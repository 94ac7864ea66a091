"""All that the API takes from its environment."""

from __future__ import annotations

from pydantic import Field, SecretStr

from shared.settings.groups import DatabaseSettings, Group, HttpSettings, ProcessSettings


class SupabaseSettings(Group):
    """SUPABASE_*: who signs people in."""

    url: str = Field(
        min_length=1, description="Project URL, e.g. https://abc.supabase.co; its Auth issues the tokens we accept"
    )
    jwt_secret: SecretStr | None = Field(
        None, description="Shared secret of projects that still sign with HS256; unset: refused"
    )


class Settings(ProcessSettings):
    """`python -m services.api`: acts only as the person who asks."""

    http: HttpSettings = HttpSettings()
    database: DatabaseSettings
    supabase: SupabaseSettings
