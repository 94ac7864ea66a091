"""Supabase Auth's access tokens against a real key server: only its own pass, whatever a token says about itself."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploy.local.ports import HOST, any_free_port
from shared.auth.tokens import Person, TokenVerifier
from shared.domain.errors import ParleyError, Unavailable, Untrusted
from shared.web.problem import answer
from shared.web.serve import serving

SECRET = b"a shared secret of sixty-four bytes, as Supabase makes them ....."
EC = ec.generate_private_key(ec.SECP256R1())
EC_2 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED = ed25519.Ed25519PrivateKey.generate()
USER = UUID("0199c2f4-7a31-7cc0-9a3e-0d4f2b1c6e55")


def jwk(key: Any, kid: str, algorithm: str) -> dict[str, Any]:
    made = {"ES256": jwt.algorithms.ECAlgorithm, "RS256": jwt.algorithms.RSAAlgorithm}.get(
        algorithm, jwt.algorithms.OKPAlgorithm
    )
    return dict(made.to_jwk(key.public_key(), as_dict=True)) | {"kid": kid, "alg": algorithm, "use": "sig"}


class KeyServer:
    """Supabase Auth as far as we know it: /.well-known/jwks.json."""

    def __init__(self) -> None:
        self.keys = [jwk(EC, "ec", "ES256"), jwk(RSA, "rsa", "RS256"), jwk(ED, "ed", "EdDSA")]
        self.status = 200
        self.body: bytes | None = None
        self.requests: list[str] = []
        self.issuer = ""

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests.append(scope["path"])
        body = self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
        await answer(send, self.status, body, media_type="application/json")

    def claims(self, **changed: Any) -> dict[str, Any]:
        """A valid token's claims; None leaves one out."""
        now = int(time.time())
        claims = {
            "sub": str(USER),
            "iss": self.issuer,
            "aud": "authenticated",
            "iat": now,
            "exp": now + 60,
            "email": "maya@casaverde.example",
            "role": "authenticated",
        }
        return {name: value for name, value in (claims | changed).items() if value is not None}

    def token(self, key: Any = EC, kid: str | None = "ec", algorithm: str = "ES256", **changed: Any) -> str:
        return jwt.encode(self.claims(**changed), key, algorithm=algorithm, headers={"kid": kid} if kid else None)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
async def one_server() -> AsyncIterator[KeyServer]:
    keys = KeyServer()
    port = any_free_port()
    keys.issuer = f"http://{HOST}:{port}/auth/v1"
    async with serving(keys.app, host=HOST, port=port, drain_s=1):
        yield keys


@pytest.fixture
def server(one_server: KeyServer) -> KeyServer:
    issuer = one_server.issuer
    one_server.__init__()  # type: ignore[misc]  every test finds it as new
    one_server.issuer = issuer
    return one_server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def verifier_of(issuer: str, clock: Clock, secret: bytes | None = None) -> AsyncIterator[TokenVerifier]:
    async with httpx.AsyncClient(timeout=2, trust_env=False) as http:
        yield TokenVerifier(issuer=issuer, hs256_secret=secret, http=http, monotonic=clock)


@pytest.fixture
async def verifier(server: KeyServer, clock: Clock) -> AsyncIterator[TokenVerifier]:
    async with verifier_of(server.issuer, clock) as made:
        yield made


async def code_of(verifier: TokenVerifier, token: str) -> str:
    """How a token is refused; a token that passes fails the test."""
    with pytest.raises(ParleyError) as caught:
        await verifier.verify(token)
    return f"{type(caught.value).__name__} {caught.value.code}"


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def hs256(header: object, claims: object, secret: bytes) -> str:
    """Sign by hand: the library refuses to sign with what looks like a public key, an attacker does not."""
    signed = f"{part(header)}.{part(claims)}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), secret)
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(("key", "kid", "algorithm"), [(EC, "ec", "ES256"), (RSA, "rsa", "RS256")])
async def test_a_token_of_a_published_key_says_who_it_is(
    server: KeyServer, verifier: TokenVerifier, key: Any, kid: str, algorithm: str
) -> None:
    person = await verifier.verify(server.token(key, kid, algorithm))

    assert person == Person(
        user_id=USER,
        claims=json.dumps({"sub": str(USER), "role": "authenticated", "email": "maya@casaverde.example"}),
    )
    assert server.requests == ["/auth/v1/.well-known/jwks.json"]


async def test_the_role_a_token_claims_is_never_the_role_it_gets(server: KeyServer, verifier: TokenVerifier) -> None:
    for role in ("service_role", "postgres", "anon", {"nested": True}, 7):
        person = await verifier.verify(server.token(role=role, app_metadata={"role": "service_role"}))

        assert json.loads(person.claims) == {
            "sub": str(USER),
            "role": "authenticated",
            "email": "maya@casaverde.example",
        }


async def test_a_shared_secret_counts_only_where_one_is_configured(server: KeyServer, clock: Clock) -> None:
    token = server.token(SECRET, None, "HS256")

    async with verifier_of(server.issuer, clock, SECRET) as old_project, verifier_of(server.issuer, clock) as new:
        person = await old_project.verify(token)
        refused = await code_of(new, token)
        both = await old_project.verify(server.token())

    assert person.user_id == both.user_id == USER
    assert refused == "Untrusted algorithm_not_accepted"


@pytest.mark.parametrize("secret", [None, SECRET, b""], ids=["no_secret", "secret", "empty_secret"])
async def test_a_token_never_chooses_its_key(server: KeyServer, clock: Clock, secret: bytes | None) -> None:
    claims = server.claims()
    forged = [
        f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}.",
        f"{part({'alg': 'none', 'kid': 'ec'})}.{part(claims)}.AAAA",
        f"{part({'alg': 'None', 'kid': 'ec'})}.{part(claims)}.",
        *(hs256({"alg": "HS256", "kid": kid}, claims, pem(key)) for kid, key in (("ec", EC), ("rsa", RSA))),
        hs256({"alg": "HS256", "kid": "ec"}, claims, json.dumps(server.keys[0]).encode()),
        hs256({"alg": "HS256"}, claims, b""),
        hs256({"alg": "HS512"}, claims, SECRET),
        hs256({"alg": ["HS256"]}, claims, SECRET),
        server.token(SECRET, "ec", "HS512"),
        server.token(ED, "ed", "EdDSA"),
        server.token(RSA, "rsa", "PS256"),
        server.token(RSA, "rsa", "RS512"),
        server.token(RSA, "ec", "RS256"),
        server.token(EC, "rsa", "ES256"),
        server.token(EC_2, "ec", "ES256"),
        server.token(EC, None, "ES256"),
        jwt.encode(claims, EC_2, algorithm="ES256", headers={"kid": "mine", "jwk": jwk(EC_2, "mine", "ES256")}),
        jwt.encode(claims, EC_2, algorithm="ES256", headers={"kid": "mine", "jku": "https://evil.example/jwks.json"}),
    ]

    async with verifier_of(server.issuer, clock, secret) as verifier:
        refused = [await code_of(verifier, token) for token in forged]

    assert [code for code in refused if not code.startswith("Untrusted ")] == []


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://other.supabase.co/auth/v1"},
        {"iss": None},
        {"aud": "anon"},
        {"aud": ["anon"]},
        {"aud": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": []},
        {"sub": None},
        {"sub": ""},
        {"sub": "service_role"},
        {"sub": 17},
        {"sub": [str(USER)]},
        {"sub": str(USER)[:-1]},
        {"nbf": int(time.time()) + 3600},
        {"iat": int(time.time()) + 3600},
    ],
    ids=str,
)
async def test_a_claim_that_is_wrong_or_missing_refuses_the_token(
    server: KeyServer, clock: Clock, changed: dict[str, Any]
) -> None:
    # The library checks what it signs, an issuer may not: both tokens are signed by hand or with the issuer's key.
    token = hs256({"alg": "HS256", "typ": "JWT"}, server.claims(**changed), SECRET)

    async with verifier_of(server.issuer, clock, SECRET) as verifier:
        refused = await code_of(verifier, token)

    assert refused == "Untrusted token_not_valid"


async def test_another_issuers_path_is_another_issuer(server: KeyServer, verifier: TokenVerifier) -> None:
    for issuer in (server.issuer + "/", server.issuer.upper(), server.issuer.removesuffix("/auth/v1")):
        assert await code_of(verifier, server.token(iss=issuer)) == "Untrusted token_not_valid"


async def test_an_expired_token_says_so_once_clocks_cannot_be_the_reason(
    server: KeyServer, verifier: TokenVerifier
) -> None:
    now = int(time.time())

    within_leeway = await verifier.verify(server.token(exp=now - 3))
    expired = await code_of(verifier, server.token(exp=now - 30))

    assert within_leeway.user_id == USER
    assert expired == "Untrusted token_expired"


async def test_a_payload_changed_after_signing_is_refused(server: KeyServer, verifier: TokenVerifier) -> None:
    header, _, signature = server.token().split(".")
    other = part(server.claims(sub=str(uuid4())))
    flipped = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]

    for token in (f"{header}.{other}.{signature}", server.token().rpartition(".")[0] + f".{flipped}"):
        assert await code_of(verifier, token) == "Untrusted token_not_valid"


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "é.é.é", "\x00", "e30.e30.", "bnVsbA.e30.", "W10.e30.", "a" * 20_000, "." * 100, "{}"],
    ids=lambda token: f"{len(token)}_{token[:8]!r}",
)
async def test_garbage_is_refused_and_asks_nobody(server: KeyServer, verifier: TokenVerifier, token: str) -> None:
    assert (await code_of(verifier, token)).startswith("Untrusted ")
    assert server.requests == []


async def test_a_new_key_is_fetched_when_its_first_token_arrives(
    server: KeyServer, verifier: TokenVerifier, clock: Clock
) -> None:
    await verifier.verify(server.token())
    server.keys.append(jwk(EC_2, "new", "ES256"))
    clock.now_s += 11

    people = await asyncio.gather(*(verifier.verify(server.token(EC_2, "new")) for _ in range(20)))

    assert {person.user_id for person in people} == {USER}
    assert len(server.requests) == 2


async def test_a_key_that_is_published_no_longer_is_accepted_no_longer(
    server: KeyServer, verifier: TokenVerifier, clock: Clock
) -> None:
    await verifier.verify(server.token())
    server.keys = [jwk(EC_2, "new", "ES256")]
    clock.now_s += 601

    assert await code_of(verifier, server.token()) == "Untrusted key_not_known"
    assert (await verifier.verify(server.token(EC_2, "new"))).user_id == USER
    assert len(server.requests) == 2


async def test_a_flood_of_made_up_keys_does_not_reach_the_key_server(
    server: KeyServer, verifier: TokenVerifier, clock: Clock
) -> None:
    forged = [server.token(EC_2, f"made-up-{n}") for n in range(50)]

    for _ in range(4):  # 20 s of it
        refused = await asyncio.gather(*(code_of(verifier, token) for token in forged))
        assert set(refused) == {"Untrusted key_not_known"}
        assert (await verifier.verify(server.token())).user_id == USER
        clock.now_s += 5

    assert len(server.requests) <= 3


async def test_a_thousand_people_at_once_fetch_the_keys_once(server: KeyServer, verifier: TokenVerifier) -> None:
    token = server.token()

    await asyncio.gather(*(verifier.verify(token) for _ in range(1000)))

    assert len(server.requests) == 1


@pytest.mark.parametrize(("status", "body"), [(500, None), (404, b"{}"), (200, b"<html>"), (200, b'{"keys": []}')])
async def test_the_key_servers_outage_signs_nobody_out(
    server: KeyServer, verifier: TokenVerifier, clock: Clock, status: int, body: bytes | None
) -> None:
    await verifier.verify(server.token())
    server.status, server.body = status, body
    clock.now_s += 601

    assert (await verifier.verify(server.token())).user_id == USER
    assert (await verifier.verify(server.token(RSA, "rsa", "RS256"))).user_id == USER
    assert len(server.requests) == 2


async def test_without_any_key_we_cannot_tell_and_say_so(clock: Clock) -> None:
    nowhere = KeyServer()
    nowhere.issuer = f"http://{HOST}:{any_free_port()}/auth/v1"

    async with verifier_of(nowhere.issuer, clock) as verifier:
        with pytest.raises(Unavailable) as caught:
            await verifier.verify(nowhere.token())

    assert (caught.value.code, caught.value.retry_after_s) == ("auth_unavailable", 5)


async def test_keys_are_had_again_soon_after_the_key_server_is_back(
    server: KeyServer, verifier: TokenVerifier, clock: Clock
) -> None:
    server.status = 503
    for _ in range(5):
        with pytest.raises(Unavailable):
            await verifier.verify(server.token())
    asked = len(server.requests)
    server.status = 200
    clock.now_s += 11

    person = await verifier.verify(server.token())

    assert person.user_id == USER
    assert (asked, len(server.requests)) == (1, 2)


async def test_a_refusal_never_repeats_the_token(server: KeyServer, verifier: TokenVerifier) -> None:
    token = server.token(iss="https://other.example")

    with pytest.raises(Untrusted) as caught:
        await verifier.verify(token)

    assert all(piece not in f"{caught.value} {caught.value.hint}" for piece in token.split("."))


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b'"oops"', b'{"keys": ["x"]}', b'{"keys": null}', b'{"keys": [{"kty": 7}]}']
)
async def test_a_key_server_that_answers_nonsense_signs_nobody_out(server, verifier, clock, body) -> None:
    await verifier.verify(server.token())
    server.body = body
    clock.now_s += 601

    for _ in range(3):
        await verifier.verify(server.token())

    assert len(server.requests) == 2
