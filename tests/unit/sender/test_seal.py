"""Tokens are sealed by whoever stores them and opened by the sender alone."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode

import pytest

from services.sender.seal import KeyPair, TokenOpener, new_key_pair
from shared.auth.seal import Sealed, checked_public_key, seal
from shared.domain.errors import Rejected

TOKEN = "EAAG-system-user-token.0123456789"


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return new_key_pair()


def test_what_is_sealed_to_a_public_key_opens_with_its_private_key_only(pair: KeyPair) -> None:
    sealed = seal(TOKEN, pair.public_key)

    assert TokenOpener([pair.private_key]).open(sealed.token_sealed, sealed.key_id) == TOKEN
    assert TOKEN.encode() not in b64decode(sealed.token_sealed)
    assert sealed.token_sealed != seal(TOKEN, pair.public_key).token_sealed
    with pytest.raises(Rejected) as refused:
        TokenOpener([new_key_pair().private_key]).open(sealed.token_sealed, sealed.key_id)
    assert refused.value.code == "token_unreadable"
    assert pair.key_id in str(refused.value)


def test_a_key_is_named_by_its_digest(pair: KeyPair) -> None:
    assert pair.key_id == hashlib.sha256(b64decode(pair.public_key)).hexdigest()[:16]
    assert seal(TOKEN, pair.public_key).key_id == pair.key_id


def test_older_keys_open_and_the_newest_seals(pair: KeyPair) -> None:
    newer = new_key_pair()
    opener = TokenOpener([newer.private_key, pair.private_key])
    old = seal(TOKEN, pair.public_key)

    new = opener.reseal(old)

    assert opener.key_ids == (newer.key_id, pair.key_id)
    assert new.key_id == newer.key_id
    assert TokenOpener([newer.private_key]).open(new.token_sealed, new.key_id) == TOKEN
    assert opener.open(old.token_sealed, old.key_id) == TOKEN


@pytest.mark.parametrize("damage", [lambda box: box[:-1], lambda box: box[:40], lambda box: box[::-1], lambda box: b""])
def test_a_damaged_box_is_told_from_a_missing_key(pair: KeyPair, damage: object) -> None:
    sealed = seal(TOKEN, pair.public_key)
    damaged = b64encode(damage(b64decode(sealed.token_sealed))).decode()  # type: ignore[operator]
    opener = TokenOpener([pair.private_key])

    for text in (damaged, "not base64 at all"):
        with pytest.raises(Rejected, match="cannot be opened") as refused:
            opener.open(text, sealed.key_id)
        assert refused.value.code == "token_unreadable"


def test_a_token_opened_before_is_not_opened_again_under_another_key(pair: KeyPair) -> None:
    sealed = seal(TOKEN, pair.public_key)
    opener = TokenOpener([pair.private_key])
    opener.open(sealed.token_sealed, sealed.key_id)

    with pytest.raises(Rejected, match="does not hold"):
        opener.open(sealed.token_sealed, "0" * 16)


@pytest.mark.parametrize("token", ["", "   ", "two words", "quoted\u201d", "line\nbreak", "x" * 4_097])
def test_what_cannot_be_a_token_is_not_sealed(pair: KeyPair, token: str) -> None:
    with pytest.raises(Rejected) as refused:
        seal(token, pair.public_key)

    assert refused.value.code == "token_not_valid"


@pytest.mark.parametrize("key", ["", "short", "c2hvcnQ=", "ö" * 44])
def test_what_is_no_key_is_refused_without_showing_it(key: str) -> None:
    for use in (checked_public_key, lambda text: TokenOpener([text])):
        with pytest.raises(ValueError, match=r"base64|bytes") as refused:
            use(key)
        assert not key or key not in str(refused.value)


def test_nothing_shows_a_private_key(pair: KeyPair) -> None:
    opener = TokenOpener([pair.private_key])
    sealed = Sealed("x", pair.key_id)

    assert pair.private_key not in repr(pair) + repr(opener) + repr(sealed)
