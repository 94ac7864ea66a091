"""Supabase Auth's access tokens: signature, issuer, audience, expiry, subject; everything else fails closed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from uuid import UUID

import httpx
import jwt
import structlog

from shared.domain.errors import Unavailable, Untrusted
from shared.domain.person import Person

__all__ = ["Person", "TokenVerifier"]

log = structlog.get_logger()

# Asymmetric keys come from the JWKS, the shared secret signs HS256 and nothing else: a token never chooses its key.
_PUBLIC_KEY_ALGORITHMS = ("ES256", "RS256")
_AUDIENCE = "authenticated"
_LEEWAY_S = 10  # clocks differ
_KEYS_FOR_S = 600.0
_REFETCH_AFTER_S = 10.0  # an unknown key id asks again, but a flood of forged ones does not


class TokenVerifier:
    """Verifies access tokens of one issuer.

    `issuer`: e.g. https://abc.supabase.co/auth/v1; its keys are at /.well-known/jwks.json below it.
    `hs256_secret`: for projects that still sign with the shared secret; None refuses HS256.
    """

    def __init__(
        self,
        *,
        issuer: str,
        hs256_secret: bytes | None,
        http: httpx.AsyncClient,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._hs256_secret = hs256_secret
        self._http = http
        self._monotonic = monotonic
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def verify(self, token: str) -> Person:
        """Return the person. Raises: Untrusted; Unavailable when the issuer's keys cannot be had."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            key: jwt.PyJWK | bytes
            if algorithm == "HS256" and self._hs256_secret:
                key = self._hs256_secret
            elif algorithm in _PUBLIC_KEY_ALGORITHMS:
                key = await self._key(str(header.get("kid")), str(algorithm))
            else:
                raise _untrusted("algorithm_not_accepted")
            claims = jwt.decode(
                token,
                key,
                algorithms=[str(algorithm)],
                issuer=self._issuer,
                audience=_AUDIENCE,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            user_id = UUID(claims["sub"])
        except jwt.ExpiredSignatureError as error:
            raise _untrusted("token_expired", "Sign in again, or refresh the token.") from error
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
            raise _untrusted("token_not_valid") from error
        seen = {"sub": str(user_id), "role": "authenticated", "email": claims.get("email")}
        is_plain = claims.get("role") == "authenticated"
        return Person(user_id=user_id, claims=json.dumps(seen), token=token if is_plain else None)

    async def _key(self, kid: str, algorithm: str) -> jwt.PyJWK:
        now = self._monotonic()
        age = now - self._fetched_at
        if age > _KEYS_FOR_S or (kid not in self._keys and age > _REFETCH_AFTER_S):
            async with self._fetching:
                if self._fetched_at < now:
                    await self._fetch()
        if not self._keys:
            raise Unavailable("the sign-in service's keys cannot be fetched", code="auth_unavailable", retry_after_s=5)
        key = self._keys.get(kid)
        if key is None or key.algorithm_name != algorithm:
            raise _untrusted("key_not_known")
        return key

    async def _fetch(self) -> None:
        try:
            answer = await self._http.get(f"{self._issuer}/.well-known/jwks.json")
            answer.raise_for_status()
            keys = answer.json()
            found = jwt.PyJWKSet.from_dict(keys if isinstance(keys, dict) else {})
        except (httpx.HTTPError, jwt.PyJWTError, ValueError) as error:
            # Keys we have stay good: Auth's outage must not sign everybody out. Without any we cannot tell.
            log.warning("auth.keys_not_fetched", error=type(error).__name__, known=len(self._keys))
        else:
            self._keys = {
                key.key_id: key for key in found.keys if key.key_id and key.algorithm_name in _PUBLIC_KEY_ALGORITHMS
            }
        self._fetched_at = self._monotonic()


def _untrusted(code: str, hint: str = "Sign in and send the access token as `Authorization: Bearer …`.") -> Untrusted:
    return Untrusted("the token is not accepted", code=code, hint=hint)
