"""Whether two templates say the same: what we sent, and what Meta shows of it."""

from __future__ import annotations

from dataclasses import replace

from shared.whatsapp.templates.definition import Body, Button, Header, TemplateDefinition, read_definition
from shared.whatsapp.wire import Json


def is_same(a: Json, b: Json) -> bool:
    """Tell whether two templates, as Meta's endpoints write them, have the same parts, texts and buttons.

    Samples count for nothing (Meta shows a file's address where a handle was sent), nor does the category (Meta may
    choose another), nor what Meta writes itself: texts of authentication templates, whose OTP button becomes a link.
    """
    return _essence(read_definition(a)) == _essence(read_definition(b))


def _essence(template: TemplateDefinition) -> TemplateDefinition:
    is_code = template.is_authentication
    return replace(
        template,
        name="",
        language="",
        category="AUTHENTICATION" if is_code else "",
        parameter_format=None,
        ttl_s=None,
        header=_header(template.header),
        body=None if is_code else _body(template.body),
        footer=None if is_code else template.footer,
        buttons=() if is_code else tuple(_button(button) for button in template.buttons),
        cards=tuple(
            replace(
                card,
                header=_header(card.header),
                body=_body(card.body),
                buttons=tuple(_button(button) for button in card.buttons),
            )
            for card in template.cards
        ),
    )


def _header(header: Header | None) -> Header | None:
    return replace(header, examples={}, handle=None) if header else None


def _body(body: Body | None) -> Body | None:
    return replace(body, examples={}) if body else None


def _button(button: Button) -> Button:
    return Button(type=button.type, text=button.text, url=button.url, phone_number=button.phone_number)
