"""Who signed in, as verified: the one type that sign-in hands to the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Person:
    """A signed-in person.

    `claims`: JSON text that Postgres is shown, with the literal role `authenticated`: never the role a token claims.
    `token`: the access token itself, which PostgREST is shown; None when it claims another role than `authenticated`,
    since PostgREST would take it at its word.
    """

    user_id: UUID
    claims: str
    token: str | None = field(default=None, repr=False, compare=False)
