"""Where webhooks go: the app's subscription, and callback URLs that override it.

An override on this machine is verified as Meta does it; elsewhere the sandbox talks to nobody, so it is taken as it is.
Nothing is sent to an override: a test that wants webhooks elsewhere starts the sandbox with that address.
Source: Meta, webhooks/override and "Application Subscriptions", read 2026-11-22.
"""

from __future__ import annotations

import secrets
from typing import Any

import httpx

from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.wire import Answer, Request

LOOPBACK = ("http://127.0.0.1:", "http://localhost:")
VERIFY_TIMEOUT_S = 5.0
FIELDS = (
    *("messages", "message_template_status_update", "message_template_quality_update", "template_category_update"),
    *("account_update", "account_alerts", "phone_number_quality_update", "user_preferences"),
)


def check_callback(asked: dict[str, Any]) -> str:
    """Return the URL, `""` to clear it. Raises: Refused 100."""
    url = asked.get("override_callback_uri", "")
    if not isinstance(url, str) or len(url) > 200:
        raise Refused(100, "override_callback_uri has at most 200 characters.")
    if url and not url.startswith(("https://", *LOOPBACK)):
        raise Refused(100, "override_callback_uri must be an https URL.")
    if url and not asked.get("verify_token"):
        raise Refused(100, "The parameter verify_token is required.")
    return url


async def unverified(request: Request, client: httpx.AsyncClient) -> Answer | None:
    """Return the refusal of a request that sets an override which does not answer with the challenge; None if fine."""
    if request.method != "POST" or b"override_callback_uri" not in request.raw:
        return None
    try:
        body = request.body()
        configuration = body.get("webhook_configuration")
        asked = configuration if isinstance(configuration, dict) else body
        url = check_callback(asked)
        if url.startswith(LOOPBACK):
            await _verify(url, str(asked["verify_token"]), client)
    except Refused as refused:
        return Answer(refused.body(), refused.http)
    return None


async def _verify(url: str, token: str, client: httpx.AsyncClient) -> None:
    challenge = str(secrets.randbelow(2**31))
    query = {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": token}
    try:
        answer = await client.get(url, params=query, timeout=VERIFY_TIMEOUT_S)
    except httpx.HTTPError as error:
        raise Refused(2200, f"The callback could not be reached: {type(error).__name__}.") from error
    if answer.status_code != 200 or answer.text != challenge:
        raise Refused(2200, f"The callback answered {answer.status_code}, not 200 with the challenge.")


def subscriptions(webhook_url: str, request: Request) -> Answer:
    """Answer `GET /<APP_ID>/subscriptions`: where the app's webhooks go. With the app's own token, as at Meta.

    Raises: Refused.
    """
    if not request.token.is_app:
        raise Refused(15, message="(#15) This method must be called with an app access_token.")
    if request.method != "GET":
        raise Refused(100, "The sandbox's webhook is set by SANDBOX_WEBHOOK_URL.")
    fields = [{"name": name, "version": request.version} for name in FIELDS]
    row = {"object": "whatsapp_business_account", "callback_url": webhook_url, "active": True, "fields": fields}
    return Answer({"data": [row]})
