"""A template message: the name of an approved template and the values for its placeholders.

Built so that the shapes Meta refuses mostly cannot be written: one header value, a value per button, cards with cards'
parts only. Whether the values fit the template is `shared.whatsapp.templates`' business: it needs the definition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from shared.whatsapp.outbound.location import Location
from shared.whatsapp.outbound.media import check_source, source
from shared.whatsapp.outbound.part import Part, given
from shared.whatsapp.outbound.products import CARDS_LEAST, CARDS_MOST, ProductSection, check_product_sections
from shared.whatsapp.problems import Problems, is_web_address
from shared.whatsapp.wire import Json

NAME_MOST = 512
BUTTONS_MOST = 10
COUPON_MOST = 20  # Meta's newer pages; older ones say 15
CODE_MOST = 15  # a one-time password
_NAME = re.compile(r"[a-z0-9_]+")
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Z]{2})?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_MILLISECONDS_FROM = 10**12  # September 2001: a smaller number is seconds

_BREAKS = re.compile(r"[^\S\n\r\t]*[\n\r\t\v\f\x85\u2028\u2029]+\s*")
_SPACES = re.compile(" {5,}")


def normalised(text: str) -> str:
    """Write a parameter as Meta takes it: no line breaks, no tabs, never more than 4 spaces in a row.

    Each run of breaks and tabs becomes one space. Source: fact sheet 4.4, "reported to be refused": not tried.
    """
    return _SPACES.sub(" " * 4, _BREAKS.sub(" ", text))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextValue(Part):
    """name: the placeholder's, in templates whose placeholders are named."""

    text: str
    name: str | None = None
    type: Literal["text"] = "text"

    def check(self, problems: Problems) -> None:
        problems.at("text").text(self.text, "The value")
        if self.name is not None and not _NAME.fullmatch(self.name):
            problems.at("name").add("bad_format", "A placeholder's name is of a-z, 0-9 and _.")

    def graph(self) -> Json:
        return {"type": "text", **given(parameter_name=self.name), "text": normalised(self.text)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrencyValue(Part):
    """fallback_value: what is usually shown. amount_1000: the amount times 1,000, whatever the currency."""

    fallback_value: str
    code: str
    amount_1000: int
    name: str | None = None
    type: Literal["currency"] = "currency"

    def check(self, problems: Problems) -> None:
        problems.at("fallback_value").text(self.fallback_value, "The amount as text")
        if not _CURRENCY.fullmatch(self.code):
            problems.at("code").add("bad_format", "A currency is three capital letters, such as EUR.")

    def graph(self) -> Json:
        currency = {
            "fallback_value": normalised(self.fallback_value),
            "code": self.code,
            "amount_1000": self.amount_1000,
        }
        return {"type": "currency", **given(parameter_name=self.name), "currency": currency}


@dataclass(frozen=True, slots=True, kw_only=True)
class DateTimeValue(Part):
    """fallback_value: what is shown; Meta formats nothing itself."""

    fallback_value: str
    name: str | None = None
    type: Literal["date_time"] = "date_time"

    def check(self, problems: Problems) -> None:
        problems.at("fallback_value").text(self.fallback_value, "The date as text")

    def graph(self) -> Json:
        shown = {"fallback_value": normalised(self.fallback_value)}
        return {"type": "date_time", **given(parameter_name=self.name), "date_time": shown}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileValue(Part):
    """A header's picture, film or document. filename: a document's."""

    type: Literal["image", "video", "document"]
    media_id: str | None = None
    meta_id: str | None = None
    link: str | None = None
    filename: str | None = None

    def check(self, problems: Problems) -> None:
        check_source(problems, self.media_id, self.meta_id, self.link)
        if self.filename and self.type != "document":
            problems.at("filename").add("not_allowed", "Only a document has a file name.")

    def graph(self) -> Json:
        file = source(self.media_id, self.meta_id, self.link) | given(filename=self.filename)
        return {"type": self.type, self.type: file}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceValue(Part):
    """A header's map."""

    location: Location
    type: Literal["location"] = "location"

    def check(self, problems: Problems) -> None:
        self.location.check(problems.at("location"))

    def graph(self) -> Json:
        return {"type": "location", "location": self.location.place()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductValue(Part):
    """A header's product."""

    catalog_id: str
    product_retailer_id: str
    type: Literal["product"] = "product"

    def check(self, problems: Problems) -> None:
        problems.at("catalog_id").identifier(self.catalog_id, "The catalogue's id")
        problems.at("product_retailer_id").identifier(self.product_retailer_id, "The product's id")

    def graph(self) -> Json:
        product = {"catalog_id": self.catalog_id, "product_retailer_id": self.product_retailer_id}
        return {"type": "product", "product": product}


HeaderValue = TextValue | FileValue | PlaceValue | ProductValue
BodyValue = TextValue | CurrencyValue | DateTimeValue


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickReplyValue(Part):
    """payload: comes back to us when tapped."""

    index: int
    payload: str
    type: Literal["quick_reply"] = "quick_reply"

    def check(self, problems: Problems) -> None:
        problems.at("payload").text(self.payload, "The button's payload")

    def parameters(self) -> list[Json]:
        return [{"type": "payload", "payload": self.payload}]


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlValue(Part):
    """text: what completes the button's link; for a one-time password, the code itself."""

    index: int
    text: str
    type: Literal["url"] = "url"

    def check(self, problems: Problems) -> None:
        problems.at("text").text(self.text, "The end of the button's link")

    def parameters(self) -> list[Json]:
        return [{"type": "text", "text": normalised(self.text)}]


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponValue(Part):
    index: int
    code: str
    type: Literal["copy_code"] = "copy_code"

    def check(self, problems: Problems) -> None:
        problems.at("code").text(self.code, "The coupon code", COUPON_MOST)

    def parameters(self) -> list[Json]:
        return [{"type": "coupon_code", "coupon_code": self.code}]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowValue(Part):
    """flow_token: ours, comes back with the answer. data: for the flow's first screen."""

    index: int
    flow_token: str | None = None
    data: dict[str, Any] | None = None
    type: Literal["flow"] = "flow"

    def check(self, problems: Problems) -> None:
        problems.at("flow_token").optional_text(self.flow_token, "The flow's token")

    def parameters(self) -> list[Json]:
        action = given(flow_token=self.flow_token, flow_action_data=self.data)
        return [{"type": "action", "action": action}] if action else []


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogValue(Part):
    """The thumbnail is the given product's, else the catalogue's first."""

    index: int
    thumbnail_product_retailer_id: str | None = None
    type: Literal["catalog"] = "catalog"

    def check(self, problems: Problems) -> None:
        problems.at("thumbnail_product_retailer_id").optional_text(
            self.thumbnail_product_retailer_id, "The product's id"
        )

    def parameters(self) -> list[Json]:
        action = given(thumbnail_product_retailer_id=self.thumbnail_product_retailer_id)
        return [{"type": "action", "action": action}] if action else []


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductsValue(Part):
    """The products of a multi-product button."""

    index: int
    thumbnail_product_retailer_id: str
    sections: tuple[ProductSection, ...]
    type: Literal["mpm"] = "mpm"

    def check(self, problems: Problems) -> None:
        problems.at("thumbnail_product_retailer_id").identifier(self.thumbnail_product_retailer_id, "The product's id")
        check_product_sections(problems, self.sections)

    def parameters(self) -> list[Json]:
        action = {
            "thumbnail_product_retailer_id": self.thumbnail_product_retailer_id,
            "sections": [section.graph() for section in self.sections],
        }
        return [{"type": "action", "action": action}]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainButtonValue(Part):
    """A button that takes no value but may be named: one product (the header names it), a voice call."""

    index: int
    type: Literal["spm", "voice_call"]

    def check(self, problems: Problems) -> None:
        """Nothing can be wrong with it."""

    def parameters(self) -> list[Json]:
        return []


ButtonValue = QuickReplyValue | UrlValue | CouponValue | FlowValue | CatalogValue | ProductsValue | PlainButtonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateCard(Part):
    """The values of one card, in the template's order of cards."""

    header: FileValue | ProductValue | None = None
    body: tuple[BodyValue, ...] = ()
    buttons: tuple[ButtonValue, ...] = ()

    def check(self, problems: Problems) -> None:
        _check_components(problems, self.header, self.body, self.buttons)

    def graph(self, index: int) -> Json:
        return {"card_index": index, "components": _components(self.header, self.body) + _buttons(self.buttons)}

    def shape(self) -> tuple[str, ...]:
        return self.header.type if self.header else "", *(f"{b.type}/{b.index}" for b in self.buttons)


@dataclass(frozen=True, slots=True, kw_only=True)
class TapTarget(Part):
    """Title and link shown where the message's picture is tapped (Marketing Messages)."""

    url: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Template(Part):
    """language: a code, as the template has it. offer_expires_at_ms: of a limited-time offer, Unix milliseconds."""

    name: str
    language: str
    header: HeaderValue | None = None
    body: tuple[BodyValue, ...] = ()
    buttons: tuple[ButtonValue, ...] = ()
    cards: tuple[TemplateCard, ...] = ()
    offer_expires_at_ms: int | None = None
    tap_target: TapTarget | None = None
    type: Literal["template"] = "template"

    @staticmethod
    def one_time_password(*, name: str, language: str, code: str) -> Template:
        """Meta wants the code twice: in the body and in the one button."""
        return Template(
            name=name, language=language, body=(TextValue(text=code),), buttons=(UrlValue(index=0, text=code),)
        )

    def check(self, problems: Problems) -> None:
        check_name(problems.at("name"), self.name)
        if not _LANGUAGE.fullmatch(self.language):
            problems.at("language").add("bad_format", "A language is a code such as en or pt_BR.")
        _check_components(problems, self.header, self.body, self.buttons)
        if self.cards:
            problems.at("cards").count(self.cards, "cards", least=CARDS_LEAST, most=CARDS_MOST)
        for index, card in enumerate(self.cards):
            card.check(problems.at("cards", index))
        if len({card.shape() for card in self.cards}) > 1:
            problems.at("cards").add("not_alike", "The cards must be alike: the same header and the same buttons.")
        if self.offer_expires_at_ms is not None and self.offer_expires_at_ms < _MILLISECONDS_FROM:
            problems.at("offer_expires_at_ms").add(
                "bad_format", "The offer's end must be given in milliseconds since 1970."
            )
        if self.tap_target:
            problems.at("tap_target").at("title").text(self.tap_target.title, "The title")
            if not is_web_address(self.tap_target.url):
                problems.at("tap_target").at("url").add("bad_format", "The link must start with https:// or http://.")

    def graph(self) -> Json:
        components = _components(self.header, self.body)
        if self.offer_expires_at_ms is not None:
            offer = {"expiration_time_ms": self.offer_expires_at_ms}
            components.append(_of("limited_time_offer", {"type": "limited_time_offer", "limited_time_offer": offer}))
        if self.cards:
            cards = [card.graph(index) for index, card in enumerate(self.cards)]
            components.append({"type": "carousel", "cards": cards})
        components += _buttons(self.buttons)
        if self.tap_target:
            target = [{"url": self.tap_target.url, "title": self.tap_target.title}]
            kind = "tap_target_configuration"
            components.append(_of(kind, {"type": kind, kind: target}))
        template = {"name": self.name, "language": {"code": self.language}, "components": components}
        return {"type": "template", "template": template}


def check_name(at: Problems, name: str) -> None:
    at.text(name, "The template's name", NAME_MOST)
    if name.strip() and not _NAME.fullmatch(name):
        at.add("bad_format", "A template's name is of a-z, 0-9 and _.")


def _check_components(
    problems: Problems, header: HeaderValue | None, body: tuple[BodyValue, ...], buttons: tuple[ButtonValue, ...]
) -> None:
    if header:
        header.check(problems.at("header"))
    for index, value in enumerate(body):
        value.check(problems.at("body", index))
    names = [value.name for value in body]
    if any(names) and not all(names):
        problems.at("body").add("not_together", "Either every value has a placeholder's name or none has.")
    problems.at("body").unique((name for name in names if name), "placeholders' names")
    problems.at("buttons").count(buttons, "buttons", least=0, most=BUTTONS_MOST)
    problems.at("buttons").unique((str(button.index) for button in buttons), "button positions")
    for index, button in enumerate(buttons):
        at = problems.at("buttons", index)
        at.at("index").between(button.index, "The button's position", least=0, most=BUTTONS_MOST - 1)
        button.check(at)


def _components(header: HeaderValue | None, body: tuple[BodyValue, ...]) -> list[Json]:
    components = [_of("header", header.graph())] if header else []
    if body:
        components.append(_of("body", *(value.graph() for value in body)))
    return components


def _of(kind: str, *parameters: Json) -> Json:
    return {"type": kind, "parameters": list(parameters)}


def _buttons(buttons: tuple[ButtonValue, ...]) -> list[Json]:
    """Meta takes the position as string or number; its OpenAPI knows the string."""
    return [
        {
            "type": "button",
            "sub_type": button.type,
            "index": str(button.index),
            **given(parameters=button.parameters() or None),
        }
        for button in buttons
    ]
