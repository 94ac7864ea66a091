"""The one way to the database: call a function, get the JSON text it built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from shared.domain.person import Person


class Store(Protocol):
    """A transport to the database's functions; every call is one transaction."""

    async def call(self, function: str, args: Mapping[str, object], as_user: Person | None = None) -> str:
        """Call `public.<function>` with named arguments and return its JSON text as Postgres built it.

        `args`: JSON values only; lists and objects arrive as jsonb. Leave floats out (they match no signature of ours).
        `as_user`: the call runs as role `authenticated` under RLS, seeing that person's claims. None: as the process's
        own role. Every function may be called again after a lost answer: it is repeatable, or its lease expires.
        Raises: the classes of `shared.domain.errors`, the same on every transport.
        """
        ...

    async def is_reachable(self) -> bool:
        """Say whether the database can be had now; for readiness."""
        ...
