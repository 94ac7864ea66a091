"""Who is asking: the one dependency every route has."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from shared.auth.tokens import TokenVerifier
from shared.domain.errors import Untrusted
from shared.domain.person import Person

_bearer = HTTPBearer(auto_error=False, description="Access token of Supabase Auth")


async def signed_in_person(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Person:
    """Return who the bearer token says is asking. Raises: Untrusted, Unavailable."""
    if credentials is None:
        raise Untrusted(
            "no token", code="token_missing", hint="Sign in and send the access token as `Authorization: Bearer …`."
        )
    verifier: TokenVerifier = request.app.state.verifier
    person = await verifier.verify(credentials.credentials)
    structlog.contextvars.bind_contextvars(user_id=str(person.user_id))
    return person


SignedIn = Annotated[Person, Depends(signed_in_person)]
