"""Supabase Auth's password sign-in, and the keys its tokens are checked with.

Source: Supabase, "JWT signing keys", and the Auth server's `/token` and `/user` endpoints, as of November 2026.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from deploy.sandbox.logs import log
from deploy.sandbox.story import Person

ACCESS_TOKEN_S = 3_600
MOST_SESSIONS = 10_000
# Supabase answers any origin: the dashboard signs in from the browser.
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "authorization, apikey, content-type, x-client-info, x-supabase-api-version",
    "Access-Control-Max-Age": "600",
}


@dataclass(frozen=True, slots=True)
class Session:
    """What a refresh token stands for."""

    id: str
    person: Person


class SignIn:
    """People, their sessions, and the key that signs for them; the key is made at start and never leaves memory."""

    def __init__(self, people: list[Person], issuer: str) -> None:
        self._people = {person.email.casefold(): person for person in people}
        self._issuer = issuer
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._key_id = str(uuid.uuid4())
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def jwks(self) -> dict[str, object]:
        """Publish the public half of the key."""
        numbers = self._key.public_key().public_numbers()

        def coordinate(value: int) -> str:
            return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()

        key = {"kty": "EC", "crv": "P-256", "x": coordinate(numbers.x), "y": coordinate(numbers.y)}
        return {"keys": [key | {"kid": self._key_id, "alg": "ES256", "use": "sig", "key_ops": ["verify"], "ext": True}]}

    def with_password(self, email: str, password: str) -> dict[str, object] | None:
        """Sign in; None when e-mail and password do not belong together."""
        person = self._people.get(email.casefold())
        if person is None or not hmac.compare_digest(person.password.encode(), password.encode()):
            return None
        return self._start(Session(str(uuid.uuid4()), person))

    def with_refresh_token(self, token: str) -> dict[str, object] | None:
        """Continue a session; a refresh token works once."""
        session = self._sessions.pop(token, None)
        return None if session is None else self._start(session)

    def person_of(self, access_token: str) -> Person | None:
        """Return whose token this is; None when it is not ours or has expired."""
        try:
            claims = jwt.decode(
                access_token, self._key.public_key(), ["ES256"], audience="authenticated", issuer=self._issuer
            )
        except jwt.InvalidTokenError:
            return None
        return self._people.get(str(claims["email"]).casefold())

    def _start(self, session: Session) -> dict[str, object]:
        person, now = session.person, int(time.time())
        claims = {
            "iss": self._issuer,
            "sub": person.id,
            "aud": "authenticated",
            "role": "authenticated",
            "email": person.email,
            "session_id": session.id,
            "aal": "aal1",
            "is_anonymous": False,
            "iat": now,
            "exp": now + ACCESS_TOKEN_S,
        }
        refresh_token = secrets.token_urlsafe(16)
        self._sessions[refresh_token] = session
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return {
            "access_token": jwt.encode(claims, self._key, "ES256", headers={"kid": self._key_id}),
            "token_type": "bearer",
            "expires_in": ACCESS_TOKEN_S,
            "expires_at": now + ACCESS_TOKEN_S,
            "refresh_token": refresh_token,
            "user": user_json(person),
        }


def user_json(person: Person) -> dict[str, object]:
    """Show a person as Supabase Auth does."""
    return {
        "id": person.id,
        "aud": "authenticated",
        "role": "authenticated",
        "email": person.email,
        "user_metadata": {"name": person.name},
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "identities": [],
        "created_at": "2026-01-01T00:00:00Z",
    }


def _refusal(status: int, error_code: str, message: str) -> JSONResponse:
    return JSONResponse({"code": status, "error_code": error_code, "msg": message}, status, headers=CORS)


def routes(sign_in: SignIn) -> APIRouter:
    """Serve `/auth/v1`: token, user, logout and the keys. The `apikey` header is not looked at."""
    router = APIRouter(prefix="/auth/v1")

    @router.options("/{rest:path}")
    async def preflight() -> Response:
        return Response(status_code=204, headers=CORS)

    @router.post("/token")
    async def token(request: Request, grant_type: str = "") -> JSONResponse:
        try:
            asked: Any = await request.json()
        except ValueError:
            return _refusal(400, "bad_json", "Could not parse request body as JSON")
        if not isinstance(asked, dict):
            return _refusal(400, "bad_json", "Could not parse request body as JSON")
        if grant_type == "password":
            started = sign_in.with_password(str(asked.get("email", "")), str(asked.get("password", "")))
            refusal = ("invalid_credentials", "Invalid login credentials")
        elif grant_type == "refresh_token":
            started = sign_in.with_refresh_token(str(asked.get("refresh_token", "")))
            refusal = ("refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        else:
            return _refusal(400, "validation_failed", "unsupported_grant_type")
        log("session.refused" if started is None else "session.started", grant_type=grant_type)
        return _refusal(400, *refusal) if started is None else JSONResponse(started, headers=CORS)

    @router.get("/user")
    async def user(request: Request) -> JSONResponse:
        scheme, _, access_token = request.headers.get("authorization", "").partition(" ")
        person = sign_in.person_of(access_token) if scheme.lower() == "bearer" else None
        if person is None:
            return _refusal(403, "bad_jwt", "invalid JWT: unable to parse or verify signature")
        return JSONResponse(user_json(person), headers=CORS)

    @router.post("/logout")
    async def logout() -> Response:
        # Access tokens stay valid until they expire, as with Supabase.
        return Response(status_code=204, headers=CORS)

    @router.get("/.well-known/jwks.json")
    async def jwks() -> JSONResponse:
        return JSONResponse(sign_in.jwks(), headers=CORS | {"Cache-Control": "public, max-age=600"})

    return router
