"""The sandbox signs people in as Supabase Auth does, with tokens that any verifier can check."""

from __future__ import annotations

import time
from typing import Any

import httpx
import jwt
import pytest

from .conftest import STORY, Sandbox

MAYA = STORY["users"][0]


def _sign_in(sandbox: Sandbox, email: str = MAYA["email"], password: str = MAYA["password"]) -> httpx.Response:
    return sandbox.http.post(
        "/auth/v1/token",
        params={"grant_type": "password"},
        json={"email": email, "password": password},
        headers={"apikey": "anything"},
    )


def _claims(sandbox: Sandbox, token: str) -> dict[str, Any]:
    keys = jwt.PyJWKSet.from_dict(sandbox.http.get("/auth/v1/.well-known/jwks.json").json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return dict(
        jwt.decode(token, key.key, ["ES256"], audience="authenticated", issuer=f"{sandbox.url}/auth/v1", leeway=2)
    )


def test_right_password_gives_a_session(sandbox: Sandbox) -> None:
    answer = _sign_in(sandbox)

    session = answer.json()
    assert answer.status_code == 200
    assert (session["token_type"], session["expires_in"]) == ("bearer", 3600)
    assert session["expires_at"] == pytest.approx(time.time() + 3600, abs=5)
    assert session["user"]["id"] == MAYA["id"]
    assert session["user"]["aud"] == session["user"]["role"] == "authenticated"
    assert session["user"]["email"] == MAYA["email"]
    assert session["refresh_token"]


def test_token_verifies_against_the_published_key(sandbox: Sandbox) -> None:
    claims = _claims(sandbox, _sign_in(sandbox).json()["access_token"])

    assert claims["sub"] == MAYA["id"]
    assert claims["role"] == "authenticated"
    assert claims["email"] == MAYA["email"]
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["session_id"]


def test_published_key_is_public_only(sandbox: Sandbox) -> None:
    (key,) = sandbox.http.get("/auth/v1/.well-known/jwks.json").json()["keys"]

    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("EC", "P-256", "ES256", "sig")
    assert "d" not in key


@pytest.mark.parametrize(("email", "password"), [(MAYA["email"], "wrong"), ("who@example.com", MAYA["password"])])
def test_wrong_credentials_are_refused_without_saying_which(sandbox: Sandbox, email: str, password: str) -> None:
    answer = _sign_in(sandbox, email, password)

    assert answer.status_code == 400
    assert answer.json() == {"code": 400, "error_code": "invalid_credentials", "msg": "Invalid login credentials"}


def test_refresh_token_continues_the_session_once(sandbox: Sandbox) -> None:
    first = _sign_in(sandbox).json()

    def refresh() -> httpx.Response:
        return sandbox.http.post(
            "/auth/v1/token", params={"grant_type": "refresh_token"}, json={"refresh_token": first["refresh_token"]}
        )

    second = refresh()
    again = refresh()

    session_ids = [_claims(sandbox, one["access_token"])["session_id"] for one in (first, second.json())]
    assert session_ids[0] == session_ids[1]
    assert again.status_code == 400
    assert again.json()["error_code"] == "refresh_token_not_found"


def test_unknown_grant_is_refused(sandbox: Sandbox) -> None:
    answer = sandbox.http.post("/auth/v1/token", params={"grant_type": "magic"}, json={})

    assert answer.status_code == 400


def test_user_behind_a_token(sandbox: Sandbox) -> None:
    token = _sign_in(sandbox).json()["access_token"]

    good = sandbox.http.get("/auth/v1/user", headers={"Authorization": f"Bearer {token}"})
    bad = sandbox.http.get("/auth/v1/user", headers={"Authorization": f"Bearer {token[:-4]}AAAA"})

    assert good.json()["email"] == MAYA["email"]
    assert (bad.status_code, bad.json()["error_code"]) == (403, "bad_jwt")


def test_browser_of_another_origin_may_sign_in(sandbox: Sandbox) -> None:
    preflight = sandbox.http.options("/auth/v1/token")

    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "apikey" in preflight.headers["access-control-allow-headers"]
    assert _sign_in(sandbox).headers["access-control-allow-origin"] == "*"
