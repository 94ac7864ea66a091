"""A template as its author writes it and Meta keeps it.

Reading is lenient, as all of Meta's JSON is: a part of an unknown kind is named in `unknown` and otherwise ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.whatsapp.outbound.part import Part, given
from shared.whatsapp.wire import Json, elements, mapping, text

NAMED = "NAMED"
POSITIONAL = "POSITIONAL"
AUTHENTICATION = "AUTHENTICATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header(Part):
    """examples: sample per placeholder. handle: the sample file, from the Resumable Upload API."""

    format: str  # TEXT, IMAGE, VIDEO, DOCUMENT, LOCATION, GIF, PRODUCT
    text: str | None = None
    examples: Mapping[str, str] = field(default_factory=dict)
    handle: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Body(Part):
    """text: none in an authentication template's draft: Meta writes it. examples: sample per placeholder."""

    text: str | None = None
    examples: Mapping[str, str] = field(default_factory=dict)
    adds_security_recommendation: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer(Part):
    """code_expiration_minutes: of authentication templates, whose footer Meta writes."""

    text: str | None = None
    code_expiration_minutes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Button(Part):
    """example: the whole link for a link with a placeholder, the code for COPY_CODE.

    supported_apps: pairs of package name and signature hash, for the one-tap and zero-tap kinds of OTP.
    """

    type: str
    text: str | None = None
    url: str | None = None
    example: str | None = None
    phone_number: str | None = None
    flow_id: str | None = None
    flow_name: str | None = None
    flow_json: str | None = None
    flow_action: str | None = None
    navigate_screen: str | None = None
    otp_type: str | None = None
    autofill_text: str | None = None
    supported_apps: tuple[tuple[str, str], ...] = ()
    zero_tap_terms_accepted: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card(Part):
    header: Header | None = None
    body: Body | None = None
    buttons: tuple[Button, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(Part):
    """A limited-time offer. has_expiration: each message then says when it ends."""

    text: str
    has_expiration: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateDefinition(Part):
    """ttl_s: how long Meta tries to deliver; -1 means 30 days. parameter_format: None means POSITIONAL."""

    name: str
    language: str
    category: str
    body: Body | None = None
    header: Header | None = None
    footer: Footer | None = None
    buttons: tuple[Button, ...] = ()
    cards: tuple[Card, ...] = ()
    offer: Offer | None = None
    asks_to_call: bool = False
    parameter_format: str | None = None
    ttl_s: int | None = None
    unknown: tuple[str, ...] = ()

    @property
    def is_authentication(self) -> bool:
        return self.category == AUTHENTICATION

    @property
    def is_named(self) -> bool:
        return self.parameter_format == NAMED


def read_definition(template: Json) -> TemplateDefinition:
    """Return the definition in Meta's JSON of a template, as we create, list or read one."""
    parts = {kind: part for part in elements(template.get("components")) if (kind := _kind(part))}
    known = {"HEADER", "BODY", "FOOTER", "BUTTONS", "CAROUSEL", "LIMITED_TIME_OFFER", "CALL_PERMISSION_REQUEST"}
    ttl = template.get("message_send_ttl_seconds")
    offer = mapping(mapping(parts.get("LIMITED_TIME_OFFER")).get("limited_time_offer"))
    return TemplateDefinition(
        name=text(template.get("name")) or "",
        language=text(template.get("language")) or "",
        category=(text(template.get("category")) or "").upper(),
        parameter_format=(text(template.get("parameter_format")) or "").upper() or None,
        ttl_s=ttl if isinstance(ttl, int) else None,
        header=_read_header(parts["HEADER"]) if "HEADER" in parts else None,
        body=_read_body(parts["BODY"]) if "BODY" in parts else None,
        footer=_read_footer(parts["FOOTER"]) if "FOOTER" in parts else None,
        buttons=_read_buttons(parts.get("BUTTONS")),
        cards=tuple(_read_card(card) for card in elements(mapping(parts.get("CAROUSEL")).get("cards"))),
        offer=Offer(text=text(offer.get("text")) or "", has_expiration=offer.get("has_expiration") is True)
        if "LIMITED_TIME_OFFER" in parts
        else None,
        asks_to_call="CALL_PERMISSION_REQUEST" in parts,
        unknown=tuple(sorted(set(parts) - known)),
    )


def _kind(part: object) -> str:
    """Return a component's kind; Meta writes it in both cases."""
    return (text(mapping(part).get("type")) or "").upper()


def _examples(example: object, positional: str, named: str) -> dict[str, str]:
    samples = mapping(example)
    listed = elements(samples.get(positional))
    if listed and isinstance(listed[0], list):  # body_text: a list of lists, of which the first is used
        listed = listed[0]
    found = {str(number): text(sample) or "" for number, sample in enumerate(listed, start=1)}
    for sample in map(mapping, elements(samples.get(named))):
        found[text(sample.get("param_name")) or ""] = text(sample.get("example")) or ""
    return found


def _read_header(part: object) -> Header:
    header = mapping(part)
    example = header.get("example")
    return Header(
        format=(text(header.get("format")) or "").upper(),
        text=text(header.get("text")),
        examples=_examples(example, "header_text", "header_text_named_params"),
        handle=text(next(iter(elements(mapping(example).get("header_handle"))), None)),
    )


def _read_body(part: object) -> Body:
    body = mapping(part)
    recommends = body.get("add_security_recommendation")
    return Body(
        text=text(body.get("text")),
        examples=_examples(body.get("example"), "body_text", "body_text_named_params"),
        adds_security_recommendation=recommends if isinstance(recommends, bool) else None,
    )


def _read_footer(part: object) -> Footer:
    footer = mapping(part)
    minutes = footer.get("code_expiration_minutes")
    return Footer(text=text(footer.get("text")), code_expiration_minutes=minutes if isinstance(minutes, int) else None)


def _read_buttons(part: object) -> tuple[Button, ...]:
    return tuple(_read_button(mapping(button)) for button in elements(mapping(part).get("buttons")))


def _read_button(button: Json) -> Button:
    example = button.get("example")
    accepted = button.get("zero_tap_terms_accepted")
    apps = map(mapping, elements(button.get("supported_apps")))
    return Button(
        type=_kind(button),
        text=text(button.get("text")),
        url=text(button.get("url")),
        example=text(next(iter(example), None) if isinstance(example, list) else example),
        phone_number=text(button.get("phone_number")),
        flow_id=text(button.get("flow_id")),
        flow_name=text(button.get("flow_name")),
        flow_json=text(button.get("flow_json")),
        flow_action=text(button.get("flow_action")),
        navigate_screen=text(button.get("navigate_screen")),
        otp_type=text(button.get("otp_type")),
        autofill_text=text(button.get("autofill_text")),
        supported_apps=tuple(
            (text(app.get("package_name")) or "", text(app.get("signature_hash")) or "") for app in apps
        ),
        zero_tap_terms_accepted=accepted if isinstance(accepted, bool) else None,
    )


def _read_card(card: object) -> Card:
    parts = {kind: part for part in elements(mapping(card).get("components")) if (kind := _kind(part))}
    return Card(
        header=_read_header(parts["HEADER"]) if "HEADER" in parts else None,
        body=_read_body(parts["BODY"]) if "BODY" in parts else None,
        buttons=_read_buttons(parts.get("BUTTONS")),
    )


def to_graph(template: TemplateDefinition) -> Json:
    """Return the body that creates it, for `POST /<account>/message_templates`; its `components` also edit one."""
    is_named = template.is_named
    components = _components(template.header, template.body, is_named)
    if template.offer:
        offer = {"text": template.offer.text, "has_expiration": template.offer.has_expiration}
        components.insert(1 if template.header else 0, {"type": "LIMITED_TIME_OFFER", "limited_time_offer": offer})
    if template.footer:
        footer = given(text=template.footer.text, code_expiration_minutes=template.footer.code_expiration_minutes)
        components.append({"type": "FOOTER", **footer})
    components += _buttons(template.buttons)
    if template.cards:
        cards = [
            {"components": _components(card.header, card.body, is_named) + _buttons(card.buttons)}
            for card in template.cards
        ]
        components.append({"type": "CAROUSEL", "cards": cards})
    if template.asks_to_call:
        components.append({"type": "CALL_PERMISSION_REQUEST"})
    return {
        "name": template.name,
        "language": template.language,
        "category": template.category,
        **given(parameter_format=template.parameter_format, message_send_ttl_seconds=template.ttl_s),
        "components": components,
    }


def _components(header: Header | None, body: Body | None, is_named: bool) -> list[Json]:
    components: list[Json] = []
    if header:
        example = _written(header.examples, "header_text", is_named) | given(
            header_handle=[header.handle] if header.handle else None
        )
        shown = given(text=header.text, example=example or None)
        components.append({"type": "HEADER", "format": header.format, **shown})
    if body:
        samples = _written(body.examples, "body_text", is_named)
        if "body_text" in samples:
            samples["body_text"] = [samples["body_text"]]
        shown = given(
            text=body.text, example=samples or None, add_security_recommendation=body.adds_security_recommendation
        )
        components.append({"type": "BODY", **shown})
    return components


def _written(examples: Mapping[str, str], key: str, is_named: bool) -> Json:
    if not examples:
        return {}
    if is_named:
        return {f"{key}_named_params": [{"param_name": name, "example": e} for name, e in examples.items()]}
    ordered = sorted(examples.items(), key=lambda sample: int(sample[0]) if sample[0].isdigit() else 0)
    return {key: [example for _, example in ordered]}


def _buttons(buttons: tuple[Button, ...]) -> list[Json]:
    return [{"type": "BUTTONS", "buttons": [_written_button(button) for button in buttons]}] if buttons else []


def _written_button(button: Button) -> Json:
    example = [button.example] if button.example and button.type == "URL" else button.example
    apps = [{"package_name": name, "signature_hash": signature} for name, signature in button.supported_apps]
    return {
        "type": button.type,
        **given(
            text=button.text,
            url=button.url,
            phone_number=button.phone_number,
            example=example,
            flow_id=button.flow_id,
            flow_name=button.flow_name,
            flow_json=button.flow_json,
            flow_action=button.flow_action,
            navigate_screen=button.navigate_screen,
            otp_type=button.otp_type,
            autofill_text=button.autofill_text,
            supported_apps=apps or None,
            zero_tap_terms_accepted=button.zero_tap_terms_accepted,
        ),
    }
