"""MEDIA_*: where files may be fetched from."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from shared.settings.groups import Group


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
