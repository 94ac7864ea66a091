"""Open Meta's access tokens: only processes with the private keys can. Sealing is shared.auth.seal."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox

from shared.auth.seal import Sealed, key_bytes, key_id_of, seal
from shared.domain.errors import Rejected

_MOST_CACHED = 10_000  # opening costs 0.1 ms (2026-11-24); an entry is about 1 kB


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A new pair, in base64. private_key: for WHATSAPP_TOKEN_KEYS; public_key: for WHATSAPP_TOKEN_PUBLIC_KEY."""

    key_id: str
    public_key: str
    private_key: str = field(repr=False)


def new_key_pair() -> KeyPair:
    """Make a pair from the system's randomness."""
    made = PrivateKey.generate()
    public = bytes(made.public_key)
    return KeyPair(key_id_of(public), b64encode(public).decode(), b64encode(bytes(made)).decode())


class TokenOpener:
    """Opens tokens sealed to any of the keys it holds.

    private_keys: base64, the newest first: what is sealed anew is sealed to that one. Raises: ValueError, without
    showing a key, where one is no key.
    """

    def __init__(self, private_keys: Sequence[str]) -> None:
        pairs = [PrivateKey(key_bytes(key)) for key in private_keys]
        self._boxes = {key_id_of(bytes(pair.public_key)): SealedBox(pair) for pair in pairs}
        self._opened: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._newest = b64encode(bytes(pairs[0].public_key)).decode() if pairs else None

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The keys it holds, newest first."""
        return tuple(self._boxes)

    def open(self, token_sealed: str, key_id: str) -> str:
        """Return the token. Raises: Rejected `token_unreadable`, with the sentence that says what to do."""
        entry = (key_id, token_sealed)
        token = self._opened.get(entry)
        if token is None:
            token = self._opened[entry] = self._open(token_sealed, key_id)
            if len(self._opened) > _MOST_CACHED:
                self._opened.popitem(last=False)
        return token

    def reseal(self, sealed: Sealed) -> Sealed:
        """Return the same token sealed to the newest key. Raises: Rejected `token_unreadable`."""
        if self._newest is None:
            raise _unreadable("this process holds no key", "Set WHATSAPP_TOKEN_KEYS.")
        return seal(self._open(sealed.token_sealed, sealed.key_id), self._newest)

    def _open(self, token_sealed: str, key_id: str) -> str:
        box = self._boxes.get(key_id)
        if box is None:
            raise _unreadable(
                f"the token is sealed to key {key_id}, which this process does not hold",
                f"Add the private key {key_id} to WHATSAPP_TOKEN_KEYS, or set the number's token anew.",
            )
        try:
            return box.decrypt(b64decode(token_sealed, validate=True)).decode()
        except (CryptoError, binascii.Error, ValueError):
            raise _unreadable(
                f"what is stored cannot be opened with key {key_id}, to which it is said to be sealed",
                "It was damaged: set the number's token anew.",
            ) from None


def _unreadable(message: str, hint: str) -> Rejected:
    return Rejected(message, code="token_unreadable", hint=hint)
