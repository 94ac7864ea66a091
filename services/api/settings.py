"""All that the API takes from its environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from shared.auth.seal import checked_public_key
from shared.settings.groups import DatabaseUnlessRest, Group, HttpSettings, ProcessSettings, SupabaseSignInSettings


class ChannelTokenSettings(Group):
    """WHATSAPP_*: what tokens of numbers are sealed with; nobody here can open them."""

    token_public_key: Annotated[str, AfterValidator(checked_public_key)] | None = Field(
        None,
        description="Public key of the sender, from `python -m services.sender keys new`; without it no number can be "
        "connected",
    )


class Settings(ProcessSettings):
    """`python -m services.api`: acts only as the person who asks."""

    http: HttpSettings = HttpSettings()
    supabase: SupabaseSignInSettings
    whatsapp: ChannelTokenSettings = ChannelTokenSettings()
    database: DatabaseUnlessRest = Field(default_factory=dict, validate_default=True)
