"""All that the API takes from its environment."""

from __future__ import annotations

from pydantic import Field, SecretStr

from shared.settings.groups import DatabaseUnlessRest, HttpSettings, ProcessSettings, RestAccess, SupabaseGroup


class SupabaseSettings(SupabaseGroup):
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


class Settings(ProcessSettings):
    """`python -m services.api`: acts only as the person who asks."""

    http: HttpSettings = HttpSettings()
    supabase: SupabaseSettings
    database: DatabaseUnlessRest = Field(default_factory=dict, validate_default=True)
