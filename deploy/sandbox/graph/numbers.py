"""A business phone number: what is known of it, registering it, its callback. Source: Meta, phone-numbers."""

from __future__ import annotations

from typing import Any

from deploy.sandbox.graph.callbacks import check_callback
from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.fields import field_names
from deploy.sandbox.graph.wire import SUCCESS, Answer, Request
from deploy.sandbox.graph.world import Number, World

REGISTRATIONS, REGISTRATIONS_S = 10, 72 * 3600
LISTED = ("id", "display_phone_number", "verified_name", "quality_rating")


def facts(world: World, number: Number) -> dict[str, Any]:
    """Return every field that can be asked for."""
    channel = number.channel
    account = world.account_of(number)
    return {
        "id": number.id,
        "display_phone_number": written(number.digits),
        "verified_name": channel.verified_name or channel.workspace or "Business",
        "quality_rating": channel.quality_rating,
        "throughput": {"level": "HIGH" if channel.throughput >= 1_000 else "STANDARD"},
        "whatsapp_business_manager_messaging_limit": channel.messaging_limit,
        "code_verification_status": "VERIFIED",
        "name_status": channel.name_status,
        "platform_type": "CLOUD_API" if number.is_registered else "NOT_APPLICABLE",
        "status": "CONNECTED" if number.is_registered else "DISCONNECTED",
        "is_pin_enabled": number.pin is not None,
        "account_mode": "SANDBOX" if channel.allowed_recipients is not None else "LIVE",
        "webhook_configuration": {
            name: url
            for name, url in (("phone_number", number.callback), ("whatsapp_business_account", account.callback))
            if url
        },
        "health_status": _health(world, number),
    }


def _health(world: World, number: Number) -> dict[str, Any]:
    can_send = "AVAILABLE" if number.is_registered else "BLOCKED"
    account = world.account_of(number)
    entities: list[dict[str, Any]] = [{"entity_type": "PHONE_NUMBER", "id": number.id, "can_send_message": can_send}]
    if not number.is_registered:
        entities[0]["errors"] = [{"error_code": 141000, "error_description": "The phone number is not registered."}]
    entities += [
        {"entity_type": "WABA", "id": account.id, "can_send_message": "AVAILABLE"},
        {"entity_type": "BUSINESS", "id": account.portfolio_id, "can_send_message": "AVAILABLE"},
        {"entity_type": "APP", "id": world.story.meta.app_id, "can_send_message": "AVAILABLE"},
    ]
    return {"can_send_message": can_send, "entities": entities}


def written(digits: str) -> str:
    """Write a number for people: only North American ones are grouped as Meta does it."""
    if len(digits) == 11 and digits.startswith("1"):
        return f"+1 {digits[1:4]}-{digits[4:7]}-{digits[7:]}"
    return f"+{digits}"


def chosen(found: dict[str, Any], fields: str | None, default: tuple[str, ...]) -> dict[str, Any]:
    """Keep the fields asked for, and the id as always. Raises: Refused 100 for one that does not exist."""
    names = field_names(fields) if fields else list(default)
    for name in names:
        if name not in found:
            raise Refused(100, message=f"(#100) Tried accessing nonexisting field ({name[:60]})")
    return {name: found[name] for name in names} | {"id": found["id"]}


def show(world: World, number: Number, request: Request) -> Answer:
    return Answer(chosen(facts(world, number), request.query.get("fields"), LISTED))


def change(world: World, number: Number, request: Request) -> Answer:
    """Answer `POST /<PHONE_NUMBER_ID>`: a callback of its own, or the PIN."""
    body = request.body()
    configuration = body.get("webhook_configuration")
    if isinstance(configuration, dict):
        number.callback = check_callback(configuration) or None
        return Answer(SUCCESS)
    if "pin" in body:
        number.pin = _pin(body)
        return Answer(SUCCESS)
    raise Refused(100, "Nothing to change: webhook_configuration or pin is required.")


def _pin(body: dict[str, Any]) -> str:
    pin = str(body.get("pin", ""))
    if len(pin) != 6 or not pin.isdigit():
        raise Refused(100, "The parameter pin must have 6 digits.")
    return pin


def register(world: World, number: Number, request: Request) -> Answer:
    """Answer `POST /<PHONE_NUMBER_ID>/register`."""
    body = request.body()
    if body.get("messaging_product") != "whatsapp":
        raise Refused(100, "The parameter messaging_product is required.")
    pin = _pin(body)
    _count(world, number)
    if number.pin is not None and pin != number.pin:
        raise Refused(133005)
    number.pin = pin
    number.is_registered = True
    return Answer(SUCCESS)


def deregister(world: World, number: Number, _: Request) -> Answer:
    """Answer `POST /<PHONE_NUMBER_ID>/deregister`."""
    _count(world, number)
    number.is_registered = False
    return Answer(SUCCESS)


def _count(world: World, number: Number) -> None:
    now = world.clock()
    number.registrations = [at for at in number.registrations if now - at < REGISTRATIONS_S]
    if len(number.registrations) >= REGISTRATIONS:
        raise Refused(133016)
    number.registrations.append(now)


def username(world: World, number: Number, request: Request) -> Answer:
    """Answer GET, POST and DELETE of the business username."""
    if request.method == "POST":
        wanted = str(request.body().get("username", ""))
        if not 3 <= len(wanted) <= 35 or not wanted.replace("_", "").replace(".", "").isalnum():
            raise Refused(147001, "The username is not acceptable.")
        number.username = wanted.lower()
        return Answer({"status": "approved"})
    if request.method == "DELETE":
        number.username = None
        return Answer(SUCCESS)
    return Answer({"username": number.username, "status": "approved"} if number.username else {})
