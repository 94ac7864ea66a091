"""Is this body really from Meta? HMAC over the raw bytes, never over anything re-serialised."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

_PREFIX = b"sha256="


def matching_secret(body: bytes, header: bytes | None, app_secrets: Sequence[bytes]) -> int | None:
    """Return the index of the app secret that signed `body`, or None.

    `header`: the value of X-Hub-Signature-256, as bytes (it may hold anything). Every secret is tried, so the time
    taken does not tell which matched. No secrets: nothing matches.
    Source: Meta, "Getting started with webhooks", validating payloads; read 2026-11-22.
    """
    if header is None or not header.startswith(_PREFIX):
        return None
    claimed = header.removeprefix(_PREFIX)
    found = None
    for index, secret in enumerate(app_secrets):
        expected = hmac.new(secret, body, hashlib.sha256).hexdigest().encode()
        if hmac.compare_digest(expected, claimed) and found is None:
            found = index
    return found
