"""How a template will look: with the values of a message, or with the samples its author gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.whatsapp.outbound.template import (
    ButtonValue,
    CouponValue,
    HeaderValue,
    Template,
    TextValue,
    UrlValue,
    normalised,
)
from shared.whatsapp.templates.definition import Body, Button, Footer, Header, TemplateDefinition
from shared.whatsapp.templates.fill import body_placeholders, body_texts
from shared.whatsapp.templates.placeholders import placeholders, replaced

# Meta writes authentication texts itself, in the template's language; these are its English ones.
_CODE_TEXT = "*{{1}}* is your verification code."
_CODE_WARNING = " For your security, do not share this code."
_CODE_SAMPLE = "123456"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewButton:
    """target: the link, phone number or code behind it."""

    type: str
    text: str
    target: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """header: the text, for the format TEXT. A placeholder without value or sample stays as it is."""

    header_format: str | None
    header: str | None
    body: str | None
    footer: str | None = None
    offer: str | None = None
    buttons: tuple[PreviewButton, ...] = ()
    cards: tuple[Preview, ...] = ()


def preview(definition: TemplateDefinition, template: Template | None = None) -> Preview:
    """Return what the customer will see; without a message, with the author's samples."""
    cards = template.cards if template else ()
    return Preview(
        header_format=definition.header.format if definition.header else None,
        header=_header(definition.header, template.header if template else None),
        body=_body(
            definition.body,
            definition,
            body_texts(template.body, body_placeholders(definition.body, definition)) if template else None,
        ),
        footer=_footer(definition.footer),
        offer=definition.offer.text if definition.offer else None,
        buttons=_buttons(definition.buttons, template.buttons if template else None),
        cards=tuple(
            Preview(
                header_format=card.header.format if card.header else None,
                header=_header(card.header, None),
                body=_body(
                    card.body,
                    definition,
                    body_texts(cards[index].body, body_placeholders(card.body, definition))
                    if index < len(cards)
                    else None,
                ),
                buttons=_buttons(card.buttons, cards[index].buttons if index < len(cards) else None),
            )
            for index, card in enumerate(definition.cards)
        ),
    )


def _header(header: Header | None, value: HeaderValue | None) -> str | None:
    if header is None or not header.text:
        return None
    if isinstance(value, TextValue):
        return replaced(header.text, dict.fromkeys(placeholders(header.text), normalised(value.text)))
    return replaced(header.text, header.examples)


def _body(body: Body | None, definition: TemplateDefinition, values: Mapping[str, str] | None) -> str | None:
    if body is None:
        return None
    if definition.is_authentication and not body.text:
        written = _CODE_TEXT + (_CODE_WARNING if body.adds_security_recommendation else "")
        return replaced(written, {"1": _CODE_SAMPLE} if values is None else values)
    return replaced(body.text or "", body.examples if values is None else values)


def _footer(footer: Footer | None) -> str | None:
    if footer is None:
        return None
    if footer.code_expiration_minutes is not None and not footer.text:
        return f"This code expires in {footer.code_expiration_minutes} minutes."
    return footer.text


def _buttons(buttons: tuple[Button, ...], values: tuple[ButtonValue, ...] | None) -> tuple[PreviewButton, ...]:
    by_index = {value.index: value for value in values or ()}
    return tuple(_button(button, by_index.get(index)) for index, button in enumerate(buttons))


def _button(button: Button, value: ButtonValue | None) -> PreviewButton:
    target = button.phone_number
    if button.url:
        shown = (
            replaced(button.url, dict.fromkeys(placeholders(button.url), value.text))
            if isinstance(value, UrlValue)
            else None
        )
        target = shown or (button.example if placeholders(button.url) and button.example else button.url)
    elif button.type == "COPY_CODE":
        target = value.code if isinstance(value, CouponValue) else button.example
    return PreviewButton(type=button.type, text=button.text or _TEXTS.get(button.type, ""), target=target)


_TEXTS = {"COPY_CODE": "Copy code", "OTP": "Copy code", "REQUEST_CONTACT_INFO": "Share phone number"}
