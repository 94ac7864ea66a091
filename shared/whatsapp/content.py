"""What a person would read of a message, and the file it carries."""

from __future__ import annotations

import base64
from collections.abc import Callable

from shared.whatsapp.events import Media
from shared.whatsapp.wire import Json, elements, identifier, mapping, text

_CONTENT_LIMIT = 65_536  # characters; WhatsApp's own texts end far earlier, the payload keeps all
_SHA256_BYTES = 32

_MEDIA_KINDS = {
    "image": "image",
    "audio": "audio",
    "voice": "audio",  # the type voice notes had before `audio.voice`
    "video": "video",
    "document": "document",
    "sticker": "sticker",
}


def content_of(message_type: str, message: Json) -> str | None:
    """Return what a person would read, by Meta's type of a message or of an edit's nested one."""
    written = _CONTENT.get(message_type)
    content = written(message.get(message_type)) if written else None
    return content[:_CONTENT_LIMIT] if content else None


def media_of(message_type: str, message: Json) -> Media | None:
    """Return a message's file; None for other types, and where Meta could not fetch it (131052)."""
    kind = _MEDIA_KINDS.get(message_type)
    if kind is None:
        return None
    sent = mapping(message.get(message_type))
    meta_id = identifier(sent.get("id"))
    if meta_id is None:
        return None
    return Media(
        meta_id=meta_id,
        kind=kind,
        mime_type=identifier(sent.get("mime_type")),
        sha256=_hex_sha256(sent.get("sha256")),
        filename=text(sent.get("filename")) or None,
        is_voice=message_type == "voice" or sent.get("voice") is True,
        is_animated=sent.get("animated") is True,
    )


def _hex_sha256(value: object) -> str | None:
    """Return 64 lower-case hex digits: Meta sends base64, and hex in its examples."""
    if not isinstance(value, str):
        return None
    try:
        digest = bytes.fromhex(value) if len(value) == 2 * _SHA256_BYTES else base64.b64decode(value, validate=True)
    except ValueError:
        return None
    return digest.hex() if len(digest) == _SHA256_BYTES else None


def _body(sent: object) -> str | None:
    return text(mapping(sent).get("body"))


def _caption(sent: object) -> str | None:
    return text(mapping(sent).get("caption"))


def _text(sent: object) -> str | None:
    return text(mapping(sent).get("text"))


def _place(sent: object) -> str | None:
    place = mapping(sent)
    named = [part for part in (text(place.get("name")), text(place.get("address"))) if part]
    if named:
        return ", ".join(named)
    latitude, longitude = text(place.get("latitude")), text(place.get("longitude"))
    return f"{latitude}, {longitude}" if latitude and longitude else None


def _cards(sent: object) -> str | None:
    return ", ".join(filter(None, map(_card, elements(sent))))


def _card(sent: object) -> str:
    """Name a card; one sent on request has phones only."""
    card = mapping(sent)
    name = mapping(card.get("name"))
    parts = [text(name.get(part)) for part in ("first_name", "last_name")]
    phones = [text(mapping(entry).get("phone")) for entry in elements(card.get("phones"))]
    return text(name.get("formatted_name")) or " ".join(filter(None, parts)) or ", ".join(filter(None, phones))


def _choice(sent: object) -> str | None:
    """Say what was chosen; of an interactive message of ours, seen as an echo, what it asks."""
    interactive = mapping(sent)
    kind = text(interactive.get("type")) or ""
    reply = mapping(interactive.get(kind))
    if kind == "nfm_reply":
        return text(reply.get("body")) or text(reply.get("name"))
    if kind == "call_permission_reply":
        return text(reply.get("response"))
    title, description = text(reply.get("title")), text(reply.get("description"))
    if title and description:
        return f"{title}: {description}"
    return title or _text(interactive.get("body"))


def _order(sent: object) -> str | None:
    order = mapping(sent)
    lines = len(elements(order.get("product_items")))
    return text(order.get("text")) or (f"{lines} item{'s' if lines > 1 else ''}" if lines else None)


_CONTENT: dict[str, Callable[[object], str | None]] = {
    "text": _body,
    "image": _caption,
    "audio": _caption,
    "video": _caption,
    "document": _caption,
    "location": _place,
    "contacts": _cards,
    "interactive": _choice,
    "button": _text,
    "order": _order,
}
