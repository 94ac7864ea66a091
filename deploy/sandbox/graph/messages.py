"""`POST /<PHONE_NUMBER_ID>/messages`: everything a business says, and its read marks.

The order of checks is ours: what is wrong with the request itself first, then what depends on the recipient, then the
rates, so that a refused message uses up none of them.
"""

from __future__ import annotations

import base64
import secrets
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deploy.sandbox.graph.content import MEDIA_KEYS, check_content
from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.media import kind_of
from deploy.sandbox.graph.people import WINDOW_S, Recipient
from deploy.sandbox.graph.template_store import Template
from deploy.sandbox.graph.template_use import check_use
from deploy.sandbox.graph.wire import SUCCESS, Answer, Request
from deploy.sandbox.graph.world import Number, Sent, World
from deploy.sandbox.story import Customer

if TYPE_CHECKING:
    from deploy.sandbox.graph.statuses import Statuses

SYNC_S = 600.0


def messages(
    world: World, statuses: Statuses, number: Number, request: Request, late: Refused | None
) -> tuple[Answer, Sent | None]:
    """Answer a POST to `messages` or `marketing_messages`; also returns what was accepted.

    `late`: what this message fails with by webhook, as a fault asks.
    Raises: Refused.
    """
    body = request.body()
    product = body.get("messaging_product")
    if product != "whatsapp":
        problem = "is required." if product is None else "must be whatsapp."
        raise Refused(100, f"The parameter messaging_product {problem}")
    if not number.is_registered:
        raise Refused(133010)
    if "status" in body:
        return _mark(world, number, body), None
    return _accept(world, statuses, number, body, late, is_marketing=request.edge == "marketing_messages")


def _mark(world: World, number: Number, body: dict[str, Any]) -> Answer:
    if body["status"] != "read":
        raise Refused(131009, "status must be read.")
    if not isinstance(body.get("message_id"), str) or not body["message_id"]:
        raise Refused(131008, "The parameter message_id is required.")
    typing = body.get("typing_indicator")
    if typing is not None and (not isinstance(typing, dict) or typing.get("type") != "text"):
        raise Refused(131009, "typing_indicator['type'] must be text.")
    world.read_marks.append(
        {
            "at": world.clock(),
            "phone_number_id": number.id,
            "message_id": body["message_id"],
            "typing": typing is not None,
        }
    )
    return Answer(SUCCESS)


def _accept(
    world: World,
    statuses: Statuses,
    number: Number,
    body: dict[str, Any],
    late: Refused | None,
    *,
    is_marketing: bool,
) -> tuple[Answer, Sent]:
    now = world.clock()
    kind = body.get("type", "text")
    check_content(kind if isinstance(kind, str) else "", body)
    group_id = str(body["to"]) if body.get("recipient_type") == "group" and body.get("to") else None
    recipient = (
        Recipient(Customer(wa_id=number.digits, name="Group"), group_id, by_user_id=False)
        if group_id
        else world.people.recipient(body.get("to"), body.get("recipient"), number.digits)
    )
    template = _template(world, number, body, recipient) if kind == "template" else None
    if is_marketing:
        _check_marketing(template, now)
    _check_media(world, kind, body)
    if not group_id:
        late = _check_recipient(world, number, recipient, template, body, now) or late
    _check_rates(world, number, recipient, now)
    category, pricing_type = _price(world, number, template, body, now)
    world.ordinal += 1
    sent = Sent(
        world.ordinal,
        now,
        new_wamid(recipient.person, recipient.by_user_id),
        number,
        recipient.person,
        recipient.input,
        recipient.by_user_id,
        kind,
        body,
        category,
        pricing_type,
        body.get("biz_opaque_callback_data"),
        template_id=None if template is None else template.id,
        group_id=group_id,
        is_voice=kind == "audio" and bool(body["audio"].get("voice")),
    )
    message: dict[str, str] = {"id": sent.wamid}
    if group_id:
        message["group_id"] = group_id
    if template is not None:
        held = "held" in template.name
        message["message_status"] = "held_for_quality_assessment" if held else "accepted"
        if held:
            sent.states["held"] = now
    world.keep(sent)
    if late is not None:
        statuses.fail(sent, late.code, late.details)
    else:
        statuses.follow(sent)
    contact = {"input": group_id, "wa_id": group_id} if group_id else recipient.contact()
    return Answer({"messaging_product": "whatsapp", "contacts": [contact], "messages": [message]}), sent


def _template(world: World, number: Number, body: dict[str, Any], recipient: Recipient) -> Template:
    asked = body["template"]
    name, language = asked["name"], asked["language"]["code"]
    template = world.templates.find(number.waba_id, name, language)
    if template is None or template.status in ("PENDING", "REJECTED", "IN_APPEAL", "DELETED", "ARCHIVED"):
        raise Refused(132001, f"template name ({name[:80]}) does not exist in {language[:20]}")
    if template.status == "PAUSED":
        raise Refused(132015)
    if template.status == "DISABLED":
        raise Refused(132016)
    if recipient.by_user_id and template.category == "AUTHENTICATION":
        raise Refused(131062)
    check_use(template, asked.get("components") or [])
    return template


def _check_marketing(template: Template | None, now: float) -> None:
    if template is None or template.category != "MARKETING":
        raise Refused(131055)
    if "syncing" in template.name and now - template.created_at < SYNC_S:
        raise Refused(134101)


def _check_media(world: World, kind: str, body: dict[str, Any]) -> None:
    """Refuse media ids nobody uploaded, files of another kind, and links that lead nowhere.

    Links are not fetched, as the sandbox talks to our webhook only; one whose file is called missing… fails.
    """
    if kind not in MEDIA_KEYS:
        return
    media = body[kind]
    if media.get("link"):
        if urlsplit(media["link"]).path.rpartition("/")[2].startswith("missing"):
            raise Refused(131053)
        return
    file = world.media.find(str(media["id"]), world.clock())
    if file is None:
        raise Refused(100, f"Param {kind}['id'] is not a valid whatsapp business account media attachment ID")
    found = kind_of(file.mime_type)
    if found != kind and not (kind == "document" and found is not None):
        raise Refused(131053, f"The file is {file.mime_type}, which cannot be sent as {kind}.")
    if media.get("voice") and not file.mime_type.startswith("audio/ogg"):
        raise Refused(131053, "A voice message must be audio/ogg with the opus codec.")


def _check_recipient(
    world: World,
    number: Number,
    recipient: Recipient,
    template: Template | None,
    body: dict[str, Any],
    now: float,
) -> Refused | None:
    """Refuse what this person cannot get; what Meta finds out only later is returned instead."""
    person = recipient.person
    if person.wa_id is not None and person.wa_id == number.digits:
        raise Refused(131021)
    allowed = number.channel.allowed_recipients
    if allowed is not None and person.wa_id not in allowed:
        raise Refused(131030)
    if person.key in number.blocked:
        raise Refused(130403)
    key_hash = body.get("recipient_identity_key_hash")
    if key_hash is not None and person.identity_key_hash is not None and key_hash != person.identity_key_hash:
        raise Refused(137000)
    refused: Refused | None = None
    late = world.behaviour.late_refusals
    if person.refuses is not None:
        refused, late = Refused(person.refuses), late or person.refuses_by == "webhook"
    elif template is not None:
        if person.stopped_marketing and template.category == "MARKETING":
            refused = Refused(131050)
    elif "category" not in body and not window_is_open(world, number, person, now):
        refused = Refused(131047)
    if refused is not None and not late:
        raise refused
    return refused


def window_is_open(world: World, number: Number, person: Customer, now: float) -> bool:
    """Tell whether this person wrote to this number within 24 hours, as far as the sandbox saw."""
    if world.behaviour.window == "off":
        return True
    wrote_at = world.people.last_wrote(number.id, person)
    if wrote_at is None:
        return world.behaviour.window == "lenient"
    return now - wrote_at < WINDOW_S


def _check_rates(world: World, number: Number, recipient: Recipient, now: float) -> None:
    behaviour = world.behaviour
    if behaviour.throughput and not world.throughput.take(number.id, number.channel.throughput, now):
        raise Refused(130429)
    if not world.pairs.take((number.id, recipient.person.key), now, behaviour.pair_limit):
        if behaviour.throughput:
            world.throughput.give_back(number.id)
        raise Refused(131056)


def _price(
    world: World, number: Number, template: Template | None, body: dict[str, Any], now: float
) -> tuple[str, str]:
    """Return category and type of the price. Since 1 October 2026 utility templates cost inside the window, too."""
    if template is not None:
        return template.category.lower(), "regular"
    if "category" in body:
        return str(body["category"]), "regular"
    month = time.strftime("%Y-%m", time.gmtime(now))
    count = number.service_messages[month] = number.service_messages.get(month, 0) + 1
    return "service", "free_customer_service" if count <= world.behaviour.free_service_messages else "regular"


def new_wamid(person: Customer, by_user_id: bool) -> str:
    """Make the id of an outbound message: base64 of a small record around the number; zeros for a user id."""
    digits = ("00000000000" if by_user_id or not person.wa_id else person.wa_id).encode()
    record = b"\x1c\x18" + bytes([len(digits)]) + digits + b"\x15\x02\x00\x11\x18\x12"
    return "wamid." + base64.b64encode(record + secrets.token_hex(9).upper().encode() + b"\x00").decode()
