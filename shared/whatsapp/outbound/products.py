"""Messages about products of a catalogue, and the carousel of cards. Products go out inside the reply window only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shared.whatsapp.outbound.header import Header, check_around, interactive
from shared.whatsapp.outbound.interactive import BUTTON_TITLE_MOST, check_section_titles, cta_action
from shared.whatsapp.outbound.part import Part, given
from shared.whatsapp.problems import Problems
from shared.whatsapp.wire import Json

PRODUCTS_MOST = 30  # over all sections
CARDS_LEAST, CARDS_MOST = 2, 10
CARD_BODY_MOST = 160
CARD_LINE_BREAKS_MOST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Product(Part):
    """One product. No header: the product is it."""

    catalog_id: str
    product_retailer_id: str
    body: str | None = None
    footer: str | None = None
    type: Literal["product"] = "product"

    def check(self, problems: Problems) -> None:
        check_around(problems, body=self.body, footer=self.footer, needs_body=False)
        problems.at("catalog_id").identifier(self.catalog_id, "The catalogue's id")
        problems.at("product_retailer_id").identifier(self.product_retailer_id, "The product's id")

    def graph(self) -> Json:
        action = {"catalog_id": self.catalog_id, "product_retailer_id": self.product_retailer_id}
        return interactive("product", action, body=self.body, footer=self.footer)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductSection(Part):
    product_retailer_ids: tuple[str, ...]
    title: str | None = None

    def graph(self) -> Json:
        items = [{"product_retailer_id": product} for product in self.product_retailer_ids]
        return {**given(title=self.title), "product_items": items}


def check_product_sections(problems: Problems, sections: tuple[ProductSection, ...]) -> None:
    check_section_titles(problems, [section.title for section in sections])
    products = [product for section in sections for product in section.product_retailer_ids]
    problems.at("sections").count(products, "products in all sections together", least=0, most=PRODUCTS_MOST)
    for number, section in enumerate(sections):
        at = problems.at("sections", number)
        if not section.product_retailer_ids:
            at.at("product_retailer_ids").add("too_few", "This section has no products; WhatsApp wants at least one.")
        for index, product in enumerate(section.product_retailer_ids):
            at.at("product_retailer_ids", index).identifier(product, "The product's id")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductList(Part):
    """header: a text, and needed."""

    body: str
    header: Header
    catalog_id: str
    sections: tuple[ProductSection, ...]
    footer: str | None = None
    type: Literal["product_list"] = "product_list"

    def check(self, problems: Problems) -> None:
        self.header.check(problems.at("header"), ("text",))
        check_around(problems, body=self.body, footer=self.footer)
        problems.at("catalog_id").identifier(self.catalog_id, "The catalogue's id")
        check_product_sections(problems, self.sections)

    def graph(self) -> Json:
        action = {"catalog_id": self.catalog_id, "sections": [section.graph() for section in self.sections]}
        return interactive("product_list", action, header=self.header, body=self.body, footer=self.footer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog(Part):
    """The whole catalogue; the thumbnail is the given product's, else the first one's."""

    body: str
    thumbnail_product_retailer_id: str | None = None
    footer: str | None = None
    type: Literal["catalog_message"] = "catalog_message"

    def check(self, problems: Problems) -> None:
        check_around(problems, body=self.body, footer=self.footer)

    def graph(self) -> Json:
        thumbnail = given(thumbnail_product_retailer_id=self.thumbnail_product_retailer_id)
        action = {"name": "catalog_message", **given(parameters=thumbnail or None)}
        return interactive("catalog_message", action, body=self.body, footer=self.footer)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCard(Part):
    """A picture or film with a button that opens a link."""

    header: Header
    display_text: str
    url: str
    body: str | None = None
    type: Literal["cta_url"] = "cta_url"

    def check(self, problems: Problems) -> None:
        self.header.check(problems.at("header"), ("image", "video"))
        problems.at("body").optional_text(self.body, "The card's text", CARD_BODY_MOST)
        if self.body and self.body.count("\n") > CARD_LINE_BREAKS_MOST:
            problems.at("body").add(
                "too_many_lines", f"A card's text may break the line {CARD_LINE_BREAKS_MOST} times at most."
            )
        problems.at("display_text").text(self.display_text, "The card's button", BUTTON_TITLE_MOST)
        problems.at("url").url(self.url, "The link of the card's button")

    def graph(self, index: int) -> Json:
        return {
            "card_index": index,
            "type": "cta_url",
            "header": self.header.graph(),
            **given(body={"text": self.body} if self.body else None),
            "action": cta_action(self.display_text, self.url),
        }

    def shape(self) -> tuple[str, str, bool]:
        return self.type, self.header.type, bool(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductCard(Part):
    """A product of a catalogue; it brings its own picture."""

    catalog_id: str
    product_retailer_id: str
    type: Literal["product"] = "product"

    def check(self, problems: Problems) -> None:
        problems.at("catalog_id").identifier(self.catalog_id, "The catalogue's id")
        problems.at("product_retailer_id").identifier(self.product_retailer_id, "The product's id")

    def graph(self, index: int) -> Json:
        action = {"catalog_id": self.catalog_id, "product_retailer_id": self.product_retailer_id}
        return {"card_index": index, "type": "product", "action": action}

    def shape(self) -> tuple[str, str, bool]:
        return self.type, "", False


@dataclass(frozen=True, slots=True, kw_only=True)
class Carousel(Part):
    """Cards of one shape: all links or all products, all pictures or all films, all with a text or none."""

    body: str
    cards: tuple[LinkCard | ProductCard, ...]
    type: Literal["carousel"] = "carousel"

    def check(self, problems: Problems) -> None:
        check_around(problems, body=self.body)
        problems.at("cards").count(self.cards, "cards", least=CARDS_LEAST, most=CARDS_MOST)
        for index, card in enumerate(self.cards):
            card.check(problems.at("cards", index))
        if len({card.shape() for card in self.cards}) > 1:
            problems.at("cards").add(
                "not_alike", "The cards must be alike: the same kind, the same header, all with a text or none."
            )

    def graph(self) -> Json:
        return interactive(
            "carousel", {"cards": [card.graph(index) for index, card in enumerate(self.cards)]}, body=self.body
        )
