"""What Meta takes as the content of a message, type by type. Pure: body in, nothing or a refusal out.

Source: Meta, messages/*, read 2026-11-22; limits as in section 4.2 of the fact sheet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.interactive import check_interactive
from deploy.sandbox.graph.shapes import a_list, a_map, a_text, only_keys

ENVELOPE = {
    "messaging_product",
    "recipient_type",
    "to",
    "recipient",
    "type",
    "context",
    "biz_opaque_callback_data",
    "recipient_identity_key_hash",
    "category",
    "ttl_seconds",
    "product_policy",
    "message_activity_sharing",
}
MEDIA_KEYS = {
    "image": ("id", "link", "caption"),
    "video": ("id", "link", "caption"),
    "audio": ("id", "link", "voice"),
    "document": ("id", "link", "caption", "filename"),
    "sticker": ("id", "link"),
}


def check_content(kind: str, body: dict[str, Any]) -> None:
    """Refuse a message whose envelope or content Meta would not take."""
    check = TYPES.get(kind)
    if check is None:
        raise Refused(131051, f"Message type {kind[:60]} is not supported.")
    if not ENVELOPE.issuperset(body):
        for key in body:
            if key not in ENVELOPE and key != kind:
                raise Refused(100, f'Unexpected key "{key[:80]}" on param "message".')
    if body.get("recipient_type", "individual") not in ("individual", "group"):
        raise Refused(131009, "recipient_type must be individual or group.")
    callback_data = body.get("biz_opaque_callback_data")
    if callback_data is not None and (not isinstance(callback_data, str) or len(callback_data) > 512):
        raise Refused(131009, "biz_opaque_callback_data length invalid. Max length: 512")
    if "context" in body:
        a_text(a_map(body, "context", "context"), "message_id", "context['message_id']")
        if kind == "reaction":
            raise Refused(131009, "context is not allowed with a reaction.")
    check(body)
    if "category" in body:
        _direct_send(kind, body)


def _direct_send(kind: str, body: dict[str, Any]) -> None:
    # Direct Send (beta, July 2026): outside the window without a template.
    limits = {"utility": (30, 43_200), "authentication": (30, 900)}.get(str(body["category"]))
    ttl = body.get("ttl_seconds", 600)
    if limits is None or kind == "template" or not isinstance(ttl, int) or not limits[0] <= ttl <= limits[1]:
        raise Refused(100, "category and ttl_seconds do not belong together.")
    if kind == "text" and len(body["text"]["body"]) > 1_024:
        raise Refused(100, "text['body'] length invalid. Max length: 1024")


def _text(body: dict[str, Any]) -> None:
    text = a_map(body, "text", "text")
    only_keys(text, ("body", "preview_url"), "text")
    a_text(text, "body", "text['body']", most=4_096)
    if not isinstance(text.get("preview_url", False), bool):
        raise Refused(100, "Param text['preview_url'] must be a boolean.")


def _media(kind: str) -> Callable[[dict[str, Any]], None]:
    def check(body: dict[str, Any]) -> None:
        media = a_map(body, kind, kind)
        only_keys(media, MEDIA_KEYS[kind], kind)
        check_media_reference(media, kind)
        if "caption" in media:
            a_text(media, "caption", f"{kind}['caption']", least=0, most=1_024)
        if not isinstance(media.get("voice", False), bool):
            raise Refused(100, "Param audio['voice'] must be a boolean.")

    return check


def check_media_reference(media: dict[str, Any], kind: str) -> None:
    if bool(media.get("id")) == bool(media.get("link")):
        raise Refused(131008 if not media.get("id") else 131009, f"Exactly one of {kind}['id'] and ['link'] is needed.")
    if media.get("link") and not str(media["link"]).startswith(("http://", "https://")):
        raise Refused(131009, f"Param {kind}['link'] is not a valid URI.")


def check_location(place: dict[str, Any]) -> None:
    only_keys(place, ("latitude", "longitude", "name", "address"), "location")
    for key, most in (("latitude", 90), ("longitude", 180)):
        if place.get(key) is None:
            raise Refused(131008, f"The parameter location['{key}'] is required.")
        try:
            value = float(place[key])  # Meta takes numbers and strings
        except (TypeError, ValueError) as error:
            raise Refused(131009, f"location['{key}'] is not a number.") from error
        if not -most <= value <= most:
            raise Refused(131009, f"location['{key}'] is out of range.")


def _location(body: dict[str, Any]) -> None:
    check_location(a_map(body, "location", "location"))


def _contacts(body: dict[str, Any]) -> None:
    for card in a_list(body, "contacts", "contacts", most=257):
        if not isinstance(card, dict):
            raise Refused(100, "Each contact must be an object.")
        name = a_map(card, "name", "contacts['name']")
        a_text(name, "formatted_name", "contacts['name']['formatted_name']")
        if not any(name.get(f"{part}") for part in ("first_name", "last_name", "middle_name", "prefix", "suffix")):
            raise Refused(131009, "contacts['name'] needs another part beside formatted_name.")


def _reaction(body: dict[str, Any]) -> None:
    reaction = a_map(body, "reaction", "reaction")
    only_keys(reaction, ("message_id", "emoji"), "reaction")
    a_text(reaction, "message_id", "reaction['message_id']")
    a_text(reaction, "emoji", "reaction['emoji']", least=0, most=64)


def _interactive(body: dict[str, Any]) -> None:
    check_interactive(a_map(body, "interactive", "interactive"))


def _template(body: dict[str, Any]) -> None:
    template = a_map(body, "template", "template")
    only_keys(template, ("name", "language", "components", "namespace"), "template")
    a_text(template, "name", "template['name']", most=512)
    a_text(a_map(template, "language", "template['language']"), "code", "template['language']['code']")
    if not isinstance(template.get("components", []), list):
        raise Refused(100, "Param template['components'] must be an array.")


TYPES: dict[str, Callable[[dict[str, Any]], None]] = {
    "text": _text,
    **{kind: _media(kind) for kind in MEDIA_KEYS},
    "location": _location,
    "contacts": _contacts,
    "reaction": _reaction,
    "interactive": _interactive,
    "template": _template,
}
