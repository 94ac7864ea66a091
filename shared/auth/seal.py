"""Seal Meta's access tokens to the sender's public key: whoever stores them cannot read them."""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from dataclasses import dataclass

from nacl.public import PublicKey, SealedBox

from shared.domain.errors import Rejected

TOKEN_MOST = 4_096  # characters; Meta's are about 200
_KEY_BYTES = 32  # of X25519


@dataclass(frozen=True, slots=True)
class Sealed:
    """A token as it is stored. token_sealed: base64 of a sealed box (X25519, XSalsa20-Poly1305)."""

    token_sealed: str
    key_id: str


def key_bytes(key: str) -> bytes:
    """Return the bytes of a key written in base64. Raises: ValueError, which never shows the key."""
    try:
        found = b64decode(key.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(
            "is not base64; copy the whole line that `python -m services.sender keys new` printed"
        ) from None
    if len(found) != _KEY_BYTES:
        raise ValueError(f"has {len(found)} bytes instead of {_KEY_BYTES}; copy the whole line")
    return found


def key_id_of(public_key: bytes) -> str:
    """Return the name of a key pair: 16 hex digits that tell nothing about the private part."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def checked_public_key(key: str) -> str:
    """Return a public key that can be sealed to. Raises: ValueError."""
    key_bytes(key)
    return key.strip()


def seal(token: str, public_key: str) -> Sealed:
    """Seal a token; twice the same looks different each time.

    public_key: base64, as `keys new` prints it. Raises: Rejected `token_not_valid` for what cannot be one of Meta's.
    """
    token = token.strip()
    # It travels in a header: anything else than visible ASCII was copied with something around it.
    if not token or len(token) > TOKEN_MOST or not all("!" <= sign <= "~" for sign in token):
        raise Rejected(
            "this cannot be an access token",
            code="token_not_valid",
            hint="Copy the system user's token whole, without blanks or quotes, from Meta's business settings.",
        )
    key = key_bytes(public_key)
    box = SealedBox(PublicKey(key)).encrypt(token.encode())
    return Sealed(b64encode(box).decode(), key_id_of(key))
