"""Addresses that are their own permission: signed, short-lived, for one file under one name."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

from shared.domain.errors import NotFound
from shared.storage.port import SignedUrl

PATH = "/api/whatsapp/files"


@dataclass(frozen=True, slots=True)
class Grant:
    """What an address allows."""

    key: str
    filename: str
    mime_type: str
    expires_at: datetime


class FileUrls:
    """Signs addresses and reads them. `public_url`: scheme and host in front; empty: relative to the page."""

    def __init__(self, secret: bytes, *, public_url: str = "") -> None:
        self._secret = secret
        self._public_url = public_url.rstrip("/")

    def sign(self, key: str, *, filename: str, mime_type: str, now: datetime, lives_s: int) -> SignedUrl:
        """Return the address of a file."""
        expires = int(now.timestamp()) + lives_s
        query = {"name": filename, "type": mime_type, "expires": str(expires)}
        query["signature"] = self._signature(key, query)
        url = f"{self._public_url}{PATH}/{quote(key)}?{urlencode(query)}"
        return SignedUrl(url, datetime.fromtimestamp(expires, UTC))

    def read(self, key: str, query: Mapping[str, str], *, now: datetime) -> Grant:
        """Return what an address allows. Raises: NotFound for one that is not ours, not whole, or too old."""
        signed = {name: query.get(name, "") for name in ("name", "type", "expires")}
        given = query.get("signature", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, self._signature(key, signed).encode()):
            raise NotFound("not an address of ours", code="file_not_found", hint="Ask for a new address of the file.")
        expires_at = datetime.fromtimestamp(int(signed["expires"]), UTC)
        if now >= expires_at:
            raise NotFound(
                "the address is too old", code="file_address_expired", hint="Ask for a new address of the file."
            )
        return Grant(key, signed["name"], signed["type"], expires_at)

    def _signature(self, key: str, query: Mapping[str, str]) -> str:
        # Lengths in front: what is in one field cannot be taken for the next.
        fields = (key, query["name"], query["type"], query["expires"])
        text = "".join(f"{len(field)}:{field}" for field in fields)
        digest = hmac.new(self._secret, text.encode("utf-8", "replace"), "sha256").digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def remaining_s(grant: Grant, now: datetime) -> int:
    """Return how long an answer may be kept."""
    return max(0, int((grant.expires_at - now) / timedelta(seconds=1)))
