"""Meta's webhook bodies: building, serialising, signing. Values in, bytes out.

Source: Meta, "Webhooks" (Graph API, getting started) and the `messages` webhook reference, read 2026-11-22.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from datetime import datetime

from fastapi.responses import Response

from deploy.sandbox.story import Channel, Customer


def new_wamid(customer: Customer) -> str:
    """Make a message id as Meta's look: base64 of a small binary record around the number and 20 hex digits.

    Without a number Meta writes zeros (seen in BSUID-only messages).
    """
    number = (customer.wa_id or "00000000000").encode()
    record = b"\x1c\x18" + bytes([len(number)]) + number + b"\x15\x02\x00\x12\x18\x14"
    record += secrets.token_hex(10).upper().encode() + b"\x00"
    return "wamid." + base64.b64encode(record).decode()


def customer_message(
    *,
    channel: Channel,
    customer: Customer,
    wamid: str,
    kind: str,
    content: object,
    sent_at: datetime,
    reply_to: str | None = None,
) -> dict[str, object]:
    """Build the body Meta posts when a customer sends something.

    `content`: what stands under the key named like `kind`. `reply_to`: wamid of the message this one answers.
    Keys a sender does not have (`wa_id`, `from`, `user_id`, `profile.name`) are absent, never null.
    """
    profile = {"name": customer.name} if customer.name else {}
    if customer.username:
        profile["username"] = customer.username
    contact: dict[str, object] = {"profile": profile}
    message: dict[str, object] = {}
    if customer.wa_id and not customer.hides_number:
        contact["wa_id"] = customer.wa_id
        message["from"] = customer.wa_id
    if customer.user_id:
        contact["user_id"] = customer.user_id
        message["from_user_id"] = customer.user_id
    if reply_to:
        message["context"] = {"from": channel.display_phone_number, "id": reply_to}
    message |= {"id": wamid, "timestamp": str(int(sent_at.timestamp())), "type": kind, kind: content}
    value = {
        "messaging_product": "whatsapp",
        "metadata": {
            "display_phone_number": channel.display_phone_number,
            "phone_number_id": channel.phone_number_id,
        },
        "contacts": [contact],
        "messages": [message],
    }
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": channel.waba_id, "changes": [{"value": value, "field": "messages"}]}],
    }


def serialise(body: object) -> bytes:
    """Write JSON the way Meta does: no spaces, non-ASCII as lower-case \\uXXXX, every slash as \\/."""
    # A slash can only stand inside a string of JSON, so replacing them all is safe.
    return json.dumps(body, ensure_ascii=True, separators=(",", ":")).replace("/", "\\/").encode("ascii")


def as_json(found: object) -> Response:
    """Answer with JSON in ASCII: texts may hold lone surrogates, which UTF-8 cannot; and fast, without Pydantic."""
    return Response(json.dumps(found, separators=(",", ":")), media_type="application/json")


def signature(raw: bytes, app_secret: str) -> str:
    """Return the value of `X-Hub-Signature-256` for these bytes."""
    return "sha256=" + hmac.new(app_secret.encode(), raw, hashlib.sha256).hexdigest()


def first_wamid(body: object) -> str | None:
    """Find the id of the first message or status in a body of any shape; None if it has none."""
    if isinstance(body, dict):
        for name in ("messages", "statuses", "message_echoes"):
            rows = body.get(name)
            if isinstance(rows, list) and rows and isinstance(rows[0], dict) and isinstance(rows[0].get("id"), str):
                return str(rows[0]["id"])
        children: list[object] = list(body.values())
    else:
        children = body if isinstance(body, list) else []
    return next((found for child in children if (found := first_wamid(child))), None)
