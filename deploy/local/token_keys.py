"""The key pair that seals the access tokens of numbers: the caller's, or one made up here."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field

from nacl.public import PrivateKey

from deploy.local.real import RealParts
from deploy.local.state import StackError, StateDir
from shared.auth.seal import key_bytes


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """`private`: as WHATSAPP_TOKEN_KEYS takes it, newest first. `public`: of the newest."""

    public: str
    private: str = field(repr=False)


def token_keys(state: StateDir, real: RealParts) -> TokenKeys:
    """Return the keys. Raises: StackError if the caller's is none; it shows no key."""
    private = real.graph.get("WHATSAPP_TOKEN_KEYS") or state.secret("token_key", make=_new_key)
    try:
        newest = key_bytes(private.split(",")[0])
    except ValueError as error:
        raise StackError(f"WHATSAPP_TOKEN_KEYS {error}.") from error
    public = b64encode(bytes(PrivateKey(newest).public_key)).decode()
    return TokenKeys(real.graph.get("WHATSAPP_TOKEN_PUBLIC_KEY") or public, private)


def _new_key() -> str:
    return b64encode(bytes(PrivateKey.generate())).decode()
