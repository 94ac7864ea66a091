"""Callback URLs that override the app's: kept and shown. Our webhook's own address comes from SANDBOX_WEBHOOK_URL.

Nothing is sent to an override: a test that wants webhooks elsewhere starts the sandbox with that address.
"""

from __future__ import annotations

from typing import Any

from deploy.sandbox.graph.errors import Refused


def check_callback(asked: dict[str, Any]) -> str:
    """Return the URL, `""` to clear it. Raises: Refused 100."""
    url = asked.get("override_callback_uri", "")
    if not isinstance(url, str) or len(url) > 200:
        raise Refused(100, "override_callback_uri has at most 200 characters.")
    if url and (not url.startswith("https://") and not url.startswith("http://127.0.0.1")):
        raise Refused(100, "override_callback_uri must be an https URL.")
    if url and not asked.get("verify_token"):
        raise Refused(100, "The parameter verify_token is required.")
    return url
