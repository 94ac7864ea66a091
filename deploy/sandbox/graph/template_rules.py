"""What Meta refuses when a template is created or edited. Pure: the request in, nothing or a refusal out.

Source: Meta, templates/components and support/error-codes (2388xxx), read 2026-11-22. Which sub-code goes with which
mistake in a button is not documented: those come as a plain 100 with a sentence.
"""

from __future__ import annotations

import re
from typing import Any

from deploy.sandbox.graph.errors import Refused

VARIABLE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_NAME = re.compile(r"[a-z0-9_]{1,512}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Z]{2,3})?")
_PARAMETER = re.compile(r"[a-z][a-z0-9_]{0,99}")
CATEGORIES = {"MARKETING", "UTILITY", "AUTHENTICATION"}
HEADERS = {"TEXT", "IMAGE", "VIDEO", "DOCUMENT", "LOCATION", "GIF"}
# button → how many of it, longest text
BUTTONS: dict[str, tuple[int, int]] = {
    "QUICK_REPLY": (10, 25),
    "URL": (2, 25),
    "PHONE_NUMBER": (1, 20),
    "COPY_CODE": (1, 25),
    "FLOW": (1, 25),
    "CATALOG": (1, 25),
    "MPM": (1, 25),
    "SPM": (1, 25),
    "OTP": (1, 25),
    "VOICE_CALL": (1, 20),
    "REQUEST_CONTACT_INFO": (1, 25),
}
# A template must have some words beside its variables; Meta does not publish the ratio.
# Two words for each variable and one more refuses "Hi {{1}} {{2}}" and takes every example of Meta's.
WORDS_PER_VARIABLE = 2
TTL_S = {"AUTHENTICATION": (30, 900), "UTILITY": (30, 43_200), "MARKETING": (43_200, 2_592_000)}


def wrong(title: str, message: str, subcode: int | None = None) -> Refused:
    """Build a refusal as template creation words it: 100 with a sub-code and two sentences for the user."""
    return Refused(100, subcode=subcode, user_title=title, user_message=message)


def too_long(what: str, most: int) -> Refused:
    return wrong("Character limit exceeded", f"{what} has more than {most} characters.", 2388040)


def check_template(asked: dict[str, Any]) -> None:
    """Refuse a request to create a template that Meta would refuse."""
    for key in ("name", "language", "category", "components"):
        if not asked.get(key):
            raise Refused(100, f"The parameter {key} is required.")
    if not isinstance(asked["name"], str) or not _NAME.fullmatch(asked["name"]):
        raise wrong("Invalid name", "A name has 1 to 512 of: lower-case letters, digits, underscores.")
    if not _LANGUAGE.fullmatch(str(asked["language"])):
        raise wrong("Invalid language", "The language is not one that WhatsApp supports.")
    if not isinstance(asked["category"], str) or asked["category"] not in CATEGORIES:
        raise Refused(100, "Param category must be one of {AUTHENTICATION, MARKETING, UTILITY}.")
    if asked.get("parameter_format", "POSITIONAL") not in ("POSITIONAL", "NAMED"):
        raise Refused(100, "Param parameter_format must be one of {NAMED, POSITIONAL}.")
    ttl = asked.get("message_send_ttl_seconds")
    least, most = TTL_S[asked["category"]]
    if ttl is not None and ttl != -1 and not (isinstance(ttl, int) and least <= ttl <= most):
        raise wrong("Invalid TTL", f"message_send_ttl_seconds must be between {least} and {most}, or -1.")
    check_components(asked["components"], str(asked["category"]), str(asked.get("parameter_format", "POSITIONAL")))


def check_components(components: Any, category: str, parameter_format: str) -> None:
    """Refuse components that do not make a template."""
    if not isinstance(components, list) or not all(isinstance(one, dict) for one in components):
        raise Refused(100, "Param components must be an array of objects.")
    kinds = [str(one.get("type", "")).upper() for one in components]
    for kind in ("HEADER", "BODY", "FOOTER", "BUTTONS", "CAROUSEL"):
        if kinds.count(kind) > 1:
            raise wrong("Component repeated", f"A template has at most one {kind}.")
    if "BODY" not in kinds:
        raise wrong("Message body missing", "A template needs a BODY component.", 2388072)
    for kind, component in zip(kinds, components, strict=True):
        if kind == "HEADER":
            _header(component, parameter_format)
        elif kind == "BODY":
            limit = 600 if "LIMITED_TIME_OFFER" in kinds else 1_024
            _body(component, category, parameter_format, limit)
        elif kind == "FOOTER":
            _footer(component, category)
        elif kind == "BUTTONS":
            _buttons(component, category)


def _example(component: dict[str, Any]) -> dict[str, Any]:
    found = component.get("example")
    return found if isinstance(found, dict) else {}


def _header(component: dict[str, Any], parameter_format: str) -> None:
    form = str(component.get("format", "")).upper()
    if form not in HEADERS:
        raise wrong("Header format invalid", "A header is TEXT, IMAGE, VIDEO, DOCUMENT or LOCATION.", 2388047)
    example = _example(component)
    if form == "TEXT":
        text = component.get("text")
        if not isinstance(text, str) or not text:
            raise wrong("Header text missing", "A text header needs its text.", 2388047)
        if len(text) > 60:
            raise too_long("The header", 60)
        found = VARIABLE.findall(text)
        if len(found) > 1:
            raise wrong("Header variables", "A header has at most one variable.", 2388047)
        if found and not example.get("header_text") and not example.get("header_text_named_params"):
            raise wrong("Header example missing", "Give an example for the header's variable.", 2388047)
        _check_names(found, parameter_format, 2388047)
    elif form != "LOCATION" and not example.get("header_handle"):
        raise wrong("Header example missing", "Give an example file as header_handle.", 2388047)


def _body(component: dict[str, Any], category: str, parameter_format: str, limit: int) -> None:
    if category == "AUTHENTICATION":
        if "text" in component:
            raise wrong("Fixed text", "The body of an authentication template is fixed by WhatsApp.", 2388072)
        return
    text = component.get("text")
    if not isinstance(text, str) or not text.strip():
        raise wrong("Message body missing", "The body needs its text.", 2388072)
    if len(text) > limit:
        raise too_long("The body", limit)
    found = VARIABLE.findall(text)
    if not found:
        return
    stripped = text.strip()
    if stripped.startswith("{{") or stripped.endswith("}}"):
        raise wrong(
            "Leading or trailing parameters not allowed",
            "Variables can't be at the start or end of the template.",
            2388299,
        )
    if re.search(r"\}\}\s*\{\{", text):
        raise wrong("Message body invalid", "Variables can't stand next to each other.", 2388072)
    words = len(VARIABLE.sub(" ", text).split())
    if words < WORDS_PER_VARIABLE * len(found) + 1:
        raise wrong("Too many variables for the length", "Reduce the variables or lengthen the text.", 2388293)
    _check_names(found, parameter_format, 2388072)
    example = _example(component)
    rows = example.get("body_text")
    given = example.get("body_text_named_params") or (rows[0] if isinstance(rows, list) and rows else None)
    if not isinstance(given, list) or len(given) < len(set(found)):
        raise wrong("Example missing", "Give an example for each variable of the body.", 2388072)


def _check_names(found: list[str], parameter_format: str, subcode: int) -> None:
    if parameter_format == "NAMED":
        if not all(_PARAMETER.fullmatch(name) for name in found):
            raise wrong("Variable name invalid", "Names are lower-case letters, digits and underscores.", subcode)
    elif sorted({int(name) if name.isdigit() else 0 for name in found}) != list(range(1, len(set(found)) + 1)):
        raise wrong("Variables not in order", "Variables count {{1}}, {{2}}, … without a gap.", subcode)


def _footer(component: dict[str, Any], category: str) -> None:
    if category == "AUTHENTICATION":
        minutes = component.get("code_expiration_minutes")
        if minutes is not None and not (isinstance(minutes, int) and 1 <= minutes <= 90):
            raise wrong("Footer invalid", "code_expiration_minutes is between 1 and 90.", 2388073)
        return
    text = component.get("text")
    if not isinstance(text, str) or not text:
        raise wrong("Footer text missing", "The footer needs its text.", 2388073)
    if len(text) > 60:
        raise too_long("The footer", 60)
    if VARIABLE.search(text):
        raise wrong("Footer invalid", "A footer has no variables.", 2388073)


def _buttons(component: dict[str, Any], category: str) -> None:
    buttons = component.get("buttons")
    if not isinstance(buttons, list) or not 1 <= len(buttons) <= 10:
        raise wrong("Buttons invalid", "A template has 1 to 10 buttons.")
    kinds = [str(button.get("type", "")).upper() if isinstance(button, dict) else "" for button in buttons]
    if category == "AUTHENTICATION" and kinds != ["OTP"]:
        raise wrong("Buttons invalid", "An authentication template has one OTP button.")
    for kind, button in zip(kinds, buttons, strict=True):
        if kind not in BUTTONS:
            raise wrong("Buttons invalid", f"{kind[:40] or 'No type'} is not a type of button.")
        most, longest = BUTTONS[kind]
        if kinds.count(kind) > most:
            raise wrong("Buttons invalid", f"A template has at most {most} {kind} buttons.")
        if len(str(button.get("text", ""))) > longest:
            raise too_long("A button's text", longest)
        _one_button(kind, button)
    # Quick replies stand together: the list changes between them and the others at most once.
    if sum(first != second for first, second in zip(_are_replies(kinds), _are_replies(kinds)[1:], strict=False)) > 1:
        raise wrong("Buttons invalid", "Quick replies must stand together.")


def _are_replies(kinds: list[str]) -> list[bool]:
    return [kind == "QUICK_REPLY" for kind in kinds]


def _one_button(kind: str, button: dict[str, Any]) -> None:
    if kind not in ("COPY_CODE", "OTP") and not button.get("text"):
        raise wrong("Buttons invalid", "A button needs its text.")
    if kind == "URL":
        url = button.get("url")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise wrong("Buttons invalid", "A URL button needs its url.")
        if len(url) > 2_000:
            raise too_long("A button's url", 2_000)
        found = VARIABLE.findall(url)
        if len(found) > 1 or (found and not url.rstrip().endswith("}}")):
            raise wrong("Buttons invalid", "A url has at most one variable, at its end.")
        if found and not button.get("example"):
            raise wrong("Buttons invalid", "Give an example for the url's variable.")
    elif kind == "PHONE_NUMBER" and not 1 <= len(str(button.get("phone_number", ""))) <= 20:
        raise wrong("Buttons invalid", "A PHONE_NUMBER button needs a number of up to 20 characters.")
    elif kind == "COPY_CODE" and len(str(button.get("example", ""))) > 20:
        raise too_long("A code", 20)
    elif kind == "OTP" and button.get("otp_type") not in ("COPY_CODE", "ONE_TAP", "ZERO_TAP"):
        raise wrong("Buttons invalid", "otp_type is COPY_CODE, ONE_TAP or ZERO_TAP.")
