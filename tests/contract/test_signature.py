"""Meta's signature and Meta's verification of the callback URL: what is Meta's passes, nothing else does."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.ports import any_free_port
from services.ingest.accept_webhook import PATH, WebhookEndpoint
from shared.web.health import Health
from shared.web.serve import serving
from shared.whatsapp.signature import matching_secret

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "fixtures" / "signature_vectors.json").read_text())
ACCEPTED = [VECTORS["secrets"]["current"].encode(), VECTORS["secrets"]["previous"].encode()]


def signature(body: bytes, secret: bytes) -> bytes:
    return b"sha256=" + hmac.digest(secret, body, hashlib.sha256).hex().encode()


def flip(value: bytes, bit: int) -> bytes:
    bit %= len(value) * 8
    return value[: bit // 8] + bytes([value[bit // 8] ^ 1 << bit % 8]) + value[bit // 8 + 1 :]


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_a_body_is_accepted_exactly_as_the_vectors_say(vector: dict[str, Any]) -> None:
    header = None if vector["header"] is None else vector["header"].encode()

    found = matching_secret(vector["body_utf8"].encode(), header, ACCEPTED)

    if vector["accept"] is None:  # either answer is fine, but never the wrong secret
        assert found in (None, ["current", "previous"].index(vector["secret"]))
    elif vector["accept"]:
        assert found == ["current", "previous"].index(vector["secret"])
    else:
        assert found is None


def test_all_thirty_vectors_are_here() -> None:
    assert len(VECTORS["vectors"]) == 30
    assert {vector["accept"] for vector in VECTORS["vectors"]} == {True, False, None}


@given(body=st.binary(), secrets=st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=3, unique=True))
def test_what_any_of_our_secrets_signed_is_ours(body: bytes, secrets: list[bytes]) -> None:
    for secret in secrets:
        found = matching_secret(body, signature(body, secret), secrets)

        assert found is not None
        assert signature(body, secrets[found]) == signature(body, secret)


@given(body=st.binary(min_size=1), secret=st.binary(min_size=1), bit=st.integers(min_value=0))
def test_one_changed_bit_of_the_body_is_refused(body: bytes, secret: bytes, bit: int) -> None:
    assert matching_secret(flip(body, bit), signature(body, secret), [secret]) is None


@given(body=st.binary(), secret=st.binary(min_size=1), bit=st.integers(min_value=0))
def test_one_changed_bit_of_the_header_is_refused(body: bytes, secret: bytes, bit: int) -> None:
    assert matching_secret(body, flip(signature(body, secret), bit), [secret]) is None


@given(body=st.binary(), secret=st.binary(min_size=1), bit=st.integers(min_value=0))
def test_one_changed_bit_of_the_secret_is_refused(body: bytes, secret: bytes, bit: int) -> None:
    assert matching_secret(body, signature(body, flip(secret, bit)), [secret]) is None


@given(body=st.binary(), header=st.one_of(st.none(), st.binary()))
def test_any_header_at_all_is_answered_without_raising(body: bytes, header: bytes | None) -> None:
    assert matching_secret(body, header, ACCEPTED) is None


@given(body=st.binary(), secret=st.binary())
def test_without_secrets_nothing_matches(body: bytes, secret: bytes) -> None:
    assert matching_secret(body, signature(body, secret), []) is None


class KeepsNothing:
    async def keep(self, raw: bytes, traceparent: str = "") -> None:
        raise AssertionError("a verification keeps nothing")


@pytest.mark.parametrize(
    "vector", VECTORS["get_verification"], ids=lambda v: f"{v['status']}_{'_'.join(v['query'].values())[:40]}"
)
async def test_the_callback_url_is_verified_as_the_vectors_say(vector: dict[str, Any]) -> None:
    endpoint = WebhookEndpoint(
        Health({}).app,
        durable=KeepsNothing(),
        app_secrets=ACCEPTED,
        verify_token=vector["configured_token"].encode(),
        max_body_bytes=100,
    )
    port = any_free_port()

    async with serving(endpoint, host="127.0.0.1", port=port, drain_s=1), httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{port}{PATH}", params=vector["query"])

    assert answer.status_code == vector["status"]
    if vector["body"] is None:
        # What is refused is not echoed: the challenge may be a script, the token a guess.
        assert answer.headers["content-type"] == "application/problem+json"
        assert all(value not in answer.text for value in vector["query"].values() if len(value) > 1)
    else:
        assert answer.text == vector["body"]
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
