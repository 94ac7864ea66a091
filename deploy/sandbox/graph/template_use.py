"""A template and the parameters it is sent with: do they fit, and what will the customer read? Pure.

Source: Meta, templates/* and error codes 132000 to 132018, read 2026-11-22.
"""

from __future__ import annotations

import re
from typing import Any

from deploy.sandbox.graph.content import check_location, check_media_reference
from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.template_rules import VARIABLE
from deploy.sandbox.graph.template_store import Template

# Reported to be refused in text parameters; Meta's page does not say so any more (fact sheet 4.4, unconfirmed).
_NOT_IN_TEXT = re.compile(r"[\n\t]| {5,}")
_TEXT_LIKE = {"text", "currency", "date_time"}
_MEDIA = {"image", "video", "document", "gif"}

Parameters = list[dict[str, Any]]


def check_use(template: Template, components: list[Any]) -> None:
    """Refuse parameters that do not fit (132000, 132005, 132008, 132012, 132018, 131008)."""
    given: dict[str, Parameters] = {}
    buttons: dict[int, dict[str, Any]] = {}
    cards: list[Any] | None = None
    for component in components:
        if not isinstance(component, dict):
            raise Refused(100, "Each component must be an object.")
        kind = str(component.get("type", "")).lower()
        if kind == "button":
            buttons[_index(component)] = component
        elif kind == "carousel":
            cards = component.get("cards")
        elif kind in ("header", "body", "limited_time_offer"):
            given[kind] = _parameters(component)
        else:
            raise Refused(132012, f"component type {kind[:40]} is not known")
    _check_header(template.component("HEADER"), given.get("header", []), template.parameter_format)
    _check_body(template, given.get("body", []))
    _check_buttons(template.component("BUTTONS"), buttons)
    _check_cards(template.component("CAROUSEL"), cards)
    if template.component("LIMITED_TIME_OFFER") is not None and not given.get("limited_time_offer"):
        _check_count("limited_time_offer", 0, 1)


def _parameters(component: dict[str, Any]) -> Parameters:
    found = component.get("parameters", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Refused(100, "Param parameters must be an array of objects.")
    return found


def _index(component: dict[str, Any]) -> int:
    try:
        return int(component.get("index", ""))
    except (TypeError, ValueError, OverflowError) as error:
        raise Refused(131008, "A button component needs its index.") from error


def _check_count(where: str, given: int, expected: int) -> None:
    if given != expected:
        raise Refused(
            132000,
            f"{where}: number of localizable_params ({given}) does not match the expected number of params "
            f"({expected})",
        )


def _check_header(component: dict[str, Any] | None, given: Parameters, parameter_format: str) -> None:
    form = str((component or {}).get("format", "TEXT")).upper()
    if component is None or form == "TEXT":
        names = VARIABLE.findall(str((component or {}).get("text", "")))
        _check_count("header", len(given), len(set(names)))
        _check_texts(given, names, parameter_format, "header")
        return
    found = str(given[0].get("type", "")).lower() if given else "unknown"
    if found != form.lower():
        raise Refused(132012, f"header: Format mismatch, expected {form}, received {found.upper()}")
    value = given[0].get(found)
    if not isinstance(value, dict):
        raise Refused(131008, f"The parameter {found} is required.")
    if found in _MEDIA:
        check_media_reference(value, found)
    else:
        check_location(value)


def _check_body(template: Template, given: Parameters) -> None:
    if template.category == "AUTHENTICATION":
        _check_count("body", len(given), 1)
        if len(str(given[0].get("text", ""))) > 15:
            raise Refused(132005, "A code has at most 15 characters.")
        return
    text = str((template.component("BODY") or {}).get("text", ""))
    names = VARIABLE.findall(text)
    _check_count("body", len(given), len(set(names)))
    _check_texts(given, names, template.parameter_format, "body")
    if len(text) + sum(len(text_of(one)) for one in given) > 1_024 and len(fill(text, given)) > 1_024:
        raise Refused(132005)


def _check_texts(given: Parameters, names: list[str], parameter_format: str, where: str) -> None:
    for one in given:
        if str(one.get("type")) not in _TEXT_LIKE:
            raise Refused(132012, f"{where}: Format mismatch, expected TEXT, received {str(one.get('type'))[:40]}")
        text = text_of(one)
        if not text:
            raise Refused(132008, f"{where}: a parameter has no text")
        if _NOT_IN_TEXT.search(text):
            raise Refused(132018, "Param text cannot have new-line/tab characters or more than 4 consecutive spaces")
    if parameter_format == "NAMED" and {str(one.get("parameter_name")) for one in given} != set(names):
        raise Refused(132000, f"{where}: parameter names do not match: expected {sorted(set(names))}")


def _check_buttons(component: dict[str, Any] | None, given: dict[int, dict[str, Any]]) -> None:
    buttons = (component or {}).get("buttons", [])
    for index, sent in given.items():
        if not 0 <= index < len(buttons):
            raise Refused(132012, f"button: there is no button at index {index}")
        kind, sub_type = str(buttons[index].get("type", "")).lower(), str(sent.get("sub_type", "")).lower()
        if sub_type != {"otp": "url"}.get(kind, kind):
            raise Refused(
                132012, f"button: Format mismatch at index {index}, expected {kind}, received {sub_type[:40]}"
            )
    for index, button in enumerate(buttons):
        kind = str(button.get("type", "")).upper()
        parameters = _parameters(given.get(index, {}))
        needs = kind in ("OTP", "COPY_CODE") or (kind == "URL" and VARIABLE.search(str(button.get("url", ""))))
        if needs and not parameters:
            raise Refused(131008, f"buttons: Button at index {index} of type {kind.title()} requires a parameter")
        if kind == "COPY_CODE" and len(str(parameters[0].get("coupon_code", ""))) > 20:
            raise Refused(132005, "A coupon code has at most 20 characters.")


def _check_cards(component: dict[str, Any] | None, given: list[Any] | None) -> None:
    expected = len((component or {}).get("cards", []))
    found = len(given) if isinstance(given, list) else 0
    if found != expected:
        raise Refused(132012, f"carousel: {found} cards sent, {expected} expected")


def text_of(parameter: dict[str, Any]) -> str:
    """Return what the customer reads for one text-like parameter."""
    kind = parameter.get("type")
    if kind == "text":
        return str(parameter.get("text", ""))
    value = parameter.get(str(kind))
    return str(value.get("fallback_value", "")) if isinstance(value, dict) else ""


def fill(text: str, given: Parameters) -> str:
    """Put the parameters in; what is not given stays as it is written."""
    named = {str(one["parameter_name"]): text_of(one) for one in given if "parameter_name" in one}
    positions = {str(at): text_of(one) for at, one in enumerate(given, start=1)}
    values = named or positions
    return VARIABLE.sub(lambda found: values.get(found.group(1), found.group(0)), text)


def shown(template: Template, components: list[Any]) -> dict[str, Any]:
    """Return the message as a phone shows it: header, body, offer, footer, buttons, cards."""
    given = _given(components)
    body = given.get("body", [])
    code = text_of(body[0]) if template.category == "AUTHENTICATION" and body else None
    face = _face(template.components, components)
    if code:
        face["body"] = f"{code} is your verification code."
    sent = next((_list(one.get("cards")) for one in components if _kind(one) == "carousel"), [])
    cards = (template.component("CAROUSEL") or {}).get("cards", [])
    return {
        "name": template.name,
        **face,
        "offer": _shown_offer(template.component("LIMITED_TIME_OFFER"), given.get("limited_time_offer", [])),
        "footer": (template.component("FOOTER") or {}).get("text"),
        "cards": [
            _face(card.get("components", []), _list(_dict(values).get("components")))
            for card, values in zip(cards, sent, strict=False)
        ],
    }


def _face(made_of: list[dict[str, Any]], components: list[Any]) -> dict[str, Any]:
    """Return header, body and buttons of a template, or of one of its cards."""
    parts = {str(one.get("type", "")).upper(): one for one in made_of}
    given = _given(components)
    values = {
        str(one.get("index", 0)): _dict(next(iter(_list(one.get("parameters"))), None))
        for one in components
        if _kind(one) == "button"
    }
    buttons = parts.get("BUTTONS", {}).get("buttons", [])
    return {
        "header": _shown_header(parts["HEADER"], given.get("header", [])) if "HEADER" in parts else None,
        "body": fill(str(parts.get("BODY", {}).get("text", "")), given.get("body", [])),
        "buttons": [_shown_button(button, values.get(str(at))) for at, button in enumerate(buttons)],
    }


def _given(components: list[Any]) -> dict[str, Parameters]:
    return {
        _kind(one): [_dict(parameter) for parameter in _list(one.get("parameters"))]
        for one in components
        if _kind(one) not in ("", "button")
    }


def _dict(value: Any) -> dict[str, Any]:
    """Return it if it is one: what was accepted may hold anything where nobody looked."""
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _kind(component: Any) -> str:
    return str(component.get("type", "")).lower() if isinstance(component, dict) else ""


def _shown_offer(component: dict[str, Any] | None, given: Parameters) -> dict[str, Any] | None:
    if component is None:
        return None
    value = _dict(given[0].get("limited_time_offer") if given else None)
    offer = component.get("limited_time_offer", {})
    return {"text": offer.get("text"), "expires_at_ms": value.get("expiration_time_ms")}


def _shown_button(button: dict[str, Any], parameter: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "type": str(button.get("type", "")).upper(),
        "text": button.get("text", "Copy code"),
        "payload": (parameter or {}).get("payload", button.get("text")),
        "code": (parameter or {}).get("coupon_code"),
        "url": fill(str(button.get("url", "")), [parameter] if parameter else []) or None,
    }


def _shown_header(component: dict[str, Any], given: Parameters) -> dict[str, Any]:
    form = str(component.get("format", "TEXT")).lower()
    if form == "text":
        return {"type": "text", "text": fill(str(component.get("text", "")), given)}
    return {"type": form, form: given[0].get(form) if given else None}
