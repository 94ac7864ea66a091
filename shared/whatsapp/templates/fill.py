"""Values for a template's placeholders: whether they fit, and the message they make.

What Meta would say otherwise: 132000 (how many), 132012 (of what kind), 132005 (too long once filled), 131062.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.whatsapp.outbound.message import Bsuid, Recipient
from shared.whatsapp.outbound.part import Part
from shared.whatsapp.outbound.template import (
    CODE_MOST,
    BodyValue,
    ButtonValue,
    CouponValue,
    CurrencyValue,
    DateTimeValue,
    FileValue,
    FlowValue,
    HeaderValue,
    PlainButtonValue,
    ProductValue,
    QuickReplyValue,
    Template,
    TemplateCard,
    TextValue,
    UrlValue,
    normalised,
)
from shared.whatsapp.problems import Problem, Problems
from shared.whatsapp.templates.check import (
    BODY_MOST,
    CARD_BODY_MOST,
    HEADER_MOST,
    OFFER_BODY_MOST,
    URL_MOST,
)
from shared.whatsapp.templates.definition import Body, Button, Card, Header, TemplateDefinition
from shared.whatsapp.templates.placeholders import placeholders, replaced

# The kind of value a button's place in the message takes, and whether it must have one.
_TAKES: dict[str, tuple[str, bool]] = {
    "QUICK_REPLY": ("quick_reply", False),
    "COPY_CODE": ("copy_code", True),
    "FLOW": ("flow", False),
    "CATALOG": ("catalog", False),
    "MPM": ("mpm", True),
    "SPM": ("spm", False),
    "VOICE_CALL": ("voice_call", False),
    "OTP": ("url", True),  # Meta reports it as URL once it is created
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Values(Part):
    """What an agent fills in.

    body: text per placeholder, by its number or name. buttons: text per button's position (a link's end, a payload, a
    coupon code, a flow's token). code: an authentication template's; nothing else is needed for those.
    """

    header: HeaderValue | None = None
    body: Mapping[str, str] = field(default_factory=dict)
    buttons: Mapping[int, str] = field(default_factory=dict)
    cards: tuple[Values, ...] = ()
    offer_expires_at_ms: int | None = None
    code: str | None = None


def fill(
    definition: TemplateDefinition, values: Values, *, to: Recipient | None = None
) -> tuple[Template, list[Problem]]:
    """Return the message, and what is wrong with it: nothing, if it may go."""
    template = _filled(definition, values)
    problems = Problems()
    template.check(problems)
    unknown = sorted(set(values.body) - set(body_placeholders(definition.body, definition)))
    if unknown and values.code is None:
        problems.at("body").add("unknown_placeholder", f"The template has no placeholder {{{{{unknown[0]}}}}}.")
    return template, [*problems.found(), *fits(definition, template, to=to)]


def _filled(definition: TemplateDefinition, values: Values) -> Template:
    if definition.is_authentication and values.code is not None:
        return Template.one_time_password(name=definition.name, language=definition.language, code=values.code)
    return Template(
        name=definition.name,
        language=definition.language,
        header=_header(values.header, definition),
        body=_body(definition.body, values, definition),
        buttons=_buttons(definition.buttons, values.buttons),
        cards=tuple(
            TemplateCard(
                header=inner.header if isinstance(inner.header, FileValue | ProductValue) else None,
                body=_body(card.body, inner, definition),
                buttons=_buttons(card.buttons, inner.buttons),
            )
            for card, inner in zip(definition.cards, values.cards, strict=False)
        ),
        offer_expires_at_ms=values.offer_expires_at_ms,
    )


def _header(value: HeaderValue | None, definition: TemplateDefinition) -> HeaderValue | None:
    if isinstance(value, TextValue) and definition.is_named and value.name is None and definition.header:
        name = next(iter(placeholders(definition.header.text or "")), None)
        return TextValue(text=value.text, name=name)
    return value


def body_placeholders(body: Body | None, definition: TemplateDefinition) -> list[str]:
    """Return the placeholders values are wanted for, in the order Meta wants them."""
    if body is None:
        return []
    if definition.is_authentication and not body.text:
        return ["1"]
    found = placeholders(body.text or "")
    return found if definition.is_named else sorted(found, key=lambda number: int(number) if number.isdigit() else 0)


def _body(body: Body | None, values: Values, definition: TemplateDefinition) -> tuple[BodyValue, ...]:
    return tuple(
        TextValue(text=values.body[placeholder], name=placeholder if definition.is_named else None)
        for placeholder in body_placeholders(body, definition)
        if placeholder in values.body
    )


def _buttons(buttons: tuple[Button, ...], values: Mapping[int, str]) -> tuple[ButtonValue, ...]:
    made = (_button(index, button, values.get(index)) for index, button in enumerate(buttons))
    return tuple(value for value in made if value is not None)


def _button(index: int, button: Button, value: str | None) -> ButtonValue | None:
    """Return a button's value; a flow is always named, since Meta wants its button in the message."""
    if button.type == "FLOW":
        return FlowValue(index=index, flow_token=value)
    if button.type == "SPM":
        return PlainButtonValue(index=index, type="spm")
    if value is None:
        return None
    if button.type == "QUICK_REPLY":
        return QuickReplyValue(index=index, payload=value)
    if button.type == "COPY_CODE":
        return CouponValue(index=index, code=value)
    if button.type in ("URL", "OTP"):
        return UrlValue(index=index, text=value)
    return None


def fits(definition: TemplateDefinition, template: Template, *, to: Recipient | None = None) -> list[Problem]:
    """Return where a message does not fit its template. Not checked: the message by itself (`outbound.check`)."""
    problems = Problems()
    _header_fits(problems.at("header"), definition.header, template.header)
    most = OFFER_BODY_MOST if definition.offer else BODY_MOST
    _body_fits(problems.at("body"), definition.body, template.body, definition, most)
    _buttons_fit(problems.at("buttons"), definition.buttons, template.buttons)
    _cards_fit(problems.at("cards"), definition, template.cards)
    wants_end = definition.offer is not None and definition.offer.has_expiration
    if wants_end != (template.offer_expires_at_ms is not None):
        sentence = "Say when the offer ends." if wants_end else "This template has no offer that ends."
        problems.at("offer_expires_at_ms").add("missing" if wants_end else "not_allowed", sentence)
    if definition.is_authentication:
        _code_fits(problems, template, to)
    return problems.found()


def _header_fits(at: Problems, header: Header | None, value: HeaderValue | None) -> None:
    wanted = _header_kind(header)
    if value is None and wanted is not None:
        at.add("missing", f"The template's header wants {_ARTICLES[wanted]}.")
    elif value is not None and value.type != wanted:
        sentence = f"The template's header wants {_ARTICLES[wanted]}." if wanted else "The header takes no value."
        at.add("wrong_kind" if wanted else "not_allowed", sentence)
    elif isinstance(value, TextValue) and header:
        name = next(iter(placeholders(header.text or "")), "")
        _short_enough(at, replaced(header.text or "", {name: normalised(value.text)}), "header", HEADER_MOST)


_ARTICLES = {
    "text": "a text",
    "image": "an image",
    "video": "a video",
    "document": "a document",
    "location": "a location",
    "product": "a product",
}


def _header_kind(header: Header | None) -> str | None:
    """Return the kind of value a header wants; None where it wants none."""
    if header is None:
        return None
    if header.format == "TEXT":
        return "text" if placeholders(header.text or "") else None
    kind = "video" if header.format == "GIF" else header.format.lower()
    return kind if kind in _ARTICLES else None


def _body_fits(
    at: Problems, body: Body | None, values: tuple[BodyValue, ...], definition: TemplateDefinition, most: int
) -> None:
    wanted = body_placeholders(body, definition)
    if definition.is_named:
        names = [value.name or "" for value in values]
        missing = [name for name in wanted if name not in names]
        extra = [name for name in names if name not in wanted]
        if missing:
            at.add("missing", f"There is no value for {{{{{missing[0]}}}}}.")
        if extra:
            at.add("unknown_placeholder", f"The template has no placeholder {{{{{extra[0]}}}}}.")
    elif len(values) != len(wanted):
        at.add("wrong_count", f"The template wants {len(wanted)} values, and {len(values)} are given.")
    elif any(value.name for value in values):
        at.add("not_allowed", "This template numbers its placeholders; values have no names.")
    if body and body.text:
        _short_enough(at, replaced(body.text, body_texts(values, wanted)), "body", most)


def body_texts(values: tuple[BodyValue, ...], wanted: list[str]) -> dict[str, str]:
    """Return what is shown for each placeholder."""
    shown: dict[str, str] = {}
    for index, value in enumerate(values):
        placeholder = value.name or (wanted[index] if index < len(wanted) else "")
        written = value.fallback_value if isinstance(value, CurrencyValue | DateTimeValue) else value.text
        shown[placeholder] = normalised(written)
    return shown


def _short_enough(at: Problems, filled: str, what: str, most: int) -> None:
    if len(filled) > most:
        at.add("too_long", f"With these values the {what} has {len(filled):,} characters; WhatsApp allows {most:,}.")


def _buttons_fit(at: Problems, buttons: tuple[Button, ...], values: tuple[ButtonValue, ...]) -> None:
    by_index = {value.index: value for value in values}
    for index, button in enumerate(buttons):
        takes, is_needed = _takes(button)
        value = by_index.pop(index, None)
        if value is None and is_needed:
            at.add("missing", f"Button {index + 1} (“{button.text or button.type}”) wants a value.")
        elif value is not None and value.type != takes:
            at.add("wrong_kind", f"Button {index + 1} takes {takes or 'no value'}, not {value.type}.")
        elif isinstance(value, UrlValue) and button.url:
            name = next(iter(placeholders(button.url)), "")
            _short_enough(at, replaced(button.url, {name: value.text}), "button's link", URL_MOST)
    for index in by_index:
        at.add("unknown_button", f"The template has no button {index + 1}.")


def _takes(button: Button) -> tuple[str | None, bool]:
    if button.type == "URL":
        return ("url", True) if placeholders(button.url or "") else (None, False)
    return _TAKES.get(button.type, (None, False))


def _cards_fit(at: Problems, definition: TemplateDefinition, values: tuple[TemplateCard, ...]) -> None:
    if len(values) != len(definition.cards):
        at.add("wrong_count", f"The template has {len(definition.cards)} cards, and {len(values)} are given.")
    card: Card
    for index, (card, value) in enumerate(zip(definition.cards, values, strict=False)):
        inner = at.item(index)
        _header_fits(inner.at("header"), card.header, value.header)
        _body_fits(inner.at("body"), card.body, value.body, definition, CARD_BODY_MOST)
        _buttons_fit(inner.at("buttons"), card.buttons, value.buttons)


def _code_fits(problems: Problems, template: Template, to: Recipient | None) -> None:
    body = next((value.text for value in template.body if isinstance(value, TextValue)), "")
    buttons = [value.text for value in template.buttons if isinstance(value, UrlValue)]
    problems.at("body").text(body, "The code", CODE_MOST)
    if buttons and buttons != [body]:
        problems.at("buttons").add("not_alike", "The code in the button must be the one in the body.")
    if isinstance(to, Bsuid):
        problems.at("to").add("needs_phone", "Authentication templates need the customer's phone number.")
