"""The body of `POST /<number>/messages` for a claimed message. Pure."""

from __future__ import annotations

import re
from typing import Any

from shared.store.outbox import ClaimedMessage
from shared.whatsapp.outbound.message import Bsuid, Group, Phone, Recipient
from shared.whatsapp.wire import Json

# A file of ours, where Meta's id has to stand; in the one form that the database looks for (app.media_in). What a
# button is called may begin so, too.
OURS = "parley:"
_OURS_WHOLE = re.compile(OURS + "([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


class Unsendable(ValueError):
    """The row does not say all that Meta needs: our bug, and certainly not sent. Names the reason, nothing personal."""


def request_body(message: ClaimedMessage) -> Json:
    """Return what to post. Raises: Unsendable."""
    body: Json = {
        "messaging_product": "whatsapp",
        **_recipient(message).graph(),
        **_with_files(message.payload, message.files),
        "biz_opaque_callback_data": f"{message.message_id}.{message.attempt}",
    }
    if message.reply_to is not None:
        body["context"] = {"message_id": message.reply_to}
    return body


def _recipient(message: ClaimedMessage) -> Recipient:
    """By phone where we know one: that keeps the number in Meta's webhooks."""
    if message.group_id is not None:
        return Group(group_id=message.group_id)
    if message.wa_id is not None:
        return Phone(number=message.wa_id)
    if message.user_id is not None:
        return Bsuid(user_id=message.user_id)
    raise Unsendable("no_recipient")


def _with_files(payload: Json, files: dict[str, str]) -> Json:
    if not files and OURS not in str(payload):
        return payload
    replaced: Json = _replaced(payload, files)
    return replaced


def _replaced(value: Any, files: dict[str, str]) -> Any:
    """Put Meta's ids for ours; a customer-visible text that happens to look like one stands under another key."""
    if isinstance(value, dict):
        return {
            key: _meta_id(inner, files) if key == "id" and isinstance(inner, str) else _replaced(inner, files)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_replaced(inner, files) for inner in value]
    return value


def _meta_id(written: str, files: dict[str, str]) -> str:
    ours = _OURS_WHOLE.fullmatch(written)
    if ours is None:
        return written
    try:
        return files[ours[1]]
    except KeyError:
        raise Unsendable("file_missing") from None
