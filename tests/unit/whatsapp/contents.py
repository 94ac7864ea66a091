"""One content of every type we can send, beside the exchange with Meta it should make; contract tests use it too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared.whatsapp.outbound import Bsuid, Content, Group, Phone, Recipient
from shared.whatsapp.outbound.contacts import Card, CardName, CardPhone, Contacts
from shared.whatsapp.outbound.header import Header
from shared.whatsapp.outbound.interactive import (
    Buttons,
    CallPermissionRequest,
    CallToAction,
    ContactRequest,
    Flow,
    List,
    LocationRequest,
    ReplyButton,
    Row,
    Section,
)
from shared.whatsapp.outbound.location import Location
from shared.whatsapp.outbound.media import Audio, Document, Image, Sticker, Video
from shared.whatsapp.outbound.products import (
    Carousel,
    Catalog,
    LinkCard,
    Product,
    ProductCard,
    ProductList,
    ProductSection,
)
from shared.whatsapp.outbound.reaction import Reaction
from shared.whatsapp.outbound.template import (
    CatalogValue,
    CouponValue,
    CurrencyValue,
    DateTimeValue,
    FileValue,
    FlowValue,
    PlaceValue,
    PlainButtonValue,
    ProductsValue,
    ProductValue,
    QuickReplyValue,
    TapTarget,
    Template,
    TemplateCard,
    TextValue,
    UrlValue,
)
from shared.whatsapp.outbound.text import DirectSend, Text

GRAPH = Path(__file__).parents[2] / "fixtures" / "graph"
MANIFEST = json.loads((GRAPH / "MANIFEST.json").read_text())["fixtures"]

PHONE = Phone(number="+1 (202) 555-0117")
BSUID = Bsuid(user_id="US.9120047736618250")
WAMID = "wamid.HBgLMTIwMjU1NTAxMTcVAgASGBQ2MjhCNDlEOTZEQ0RFOTdBNDMwRAA="
DOCK = Location(latitude=38.97121, longitude=-76.50164, name="City Dock Boat Ramp", address="1 Dock St, Annapolis")


def exchange(name: str) -> dict[str, Any]:
    """Return a fixture: request, response, expect."""
    read: dict[str, Any] = json.loads((GRAPH / name).read_text())
    return read


def template(name: str, **parts: Any) -> Template:
    return Template(name=name, language="en_US", **parts)


def texts(*values: str) -> tuple[TextValue, ...]:
    return tuple(TextValue(text=value) for value in values)


def link_card(index: int) -> LinkCard:
    return LinkCard(
        header=Header(type="image", link=f"https://cdn.example.com/c/{index}.jpg"),
        body=f"Tent {index + 1}",
        display_text="See tent",
        url=f"https://example.com/t/{index}",
    )


# The fixture, the content, to whom.
AS_FIXTURE: list[tuple[str, Content, Recipient]] = [
    ("send_text_ok", Text(body="Your dry bag is back in stock. https://example.com/dry-bag", preview_url=True), PHONE),
    ("send_text_reply_ok", Text(body="Yes, until Friday."), PHONE),
    ("send_bsuid_ok", Text(body="Held for you until Friday."), BSUID),
    ("send_input_differs_from_wa_id_ok", Text(body="hola"), Phone(number="+54 11 1555 0117")),
    ("send_group_ok", Text(body="Meet at 8."), Group(group_id="Y2FwZS1tYXktcGFkZGxlLTIwMjY")),
    (
        "send_direct_send_ok",
        Text(body="Your parcel arrives today.", direct_send=DirectSend(category="utility", ttl_s=3600)),
        Phone(number="12025550162"),
    ),
    ("send_image_id_ok", Image(meta_id="7301884420196655", caption="Green, size L"), PHONE),
    ("send_image_link_ok", Image(link="https://cdn.example.com/p/green-l.jpg", caption="Green, size L"), PHONE),
    ("send_audio_voice_ok", Audio(meta_id="7301884420196701", is_voice=True), PHONE),
    ("send_video_ok", Video(meta_id="7301884420196702", caption="How to fold it"), PHONE),
    (
        "send_document_ok",
        Document(meta_id="7301884420196703", filename="invoice-20731.pdf", caption="Invoice"),
        PHONE,
    ),
    ("send_sticker_ok", Sticker(meta_id="7301884420196704"), PHONE),
    ("send_location_ok", DOCK, PHONE),
    (
        "send_contacts_ok",
        Contacts(
            cards=(
                Card(
                    name=CardName(formatted_name="Repair desk", first_name="Repair"),
                    phones=(CardPhone(phone="+12025550188", type="WORK", wa_id="12025550188"),),
                ),
            )
        ),
        PHONE,
    ),
    ("send_reaction_ok", Reaction(wamid=WAMID, emoji="👍"), PHONE),
    (
        "send_buttons_ok",
        Buttons(
            body="Pick one",
            buttons=(
                ReplyButton(id="confirm:bk_20731", title="Confirm booking"),
                ReplyButton(id="cancel:bk_20731", title="Cancel"),
            ),
            header=Header(type="image", meta_id="7301884420196655"),
            footer="Harbor & Pine",
        ),
        PHONE,
    ),
    (
        "send_list_ok",
        List(
            body="Pick one",
            button="See times",
            sections=(
                Section(
                    title="Tuesday",
                    rows=(Row(id="slot:2026-11-24T10", title="Tue 24 Nov, 10:00", description="Beginner kayak, 2 h"),),
                ),
                Section(title="Wednesday", rows=(Row(id="slot:2026-11-25T14", title="Wed 25 Nov, 14:00"),)),
            ),
            header=Header(type="text", text="Lessons"),
        ),
        PHONE,
    ),
    (
        "send_cta_url_ok",
        CallToAction(body="Pick one", display_text="Track parcel", url="https://example.com/track/20731"),
        PHONE,
    ),
    ("send_location_request_ok", LocationRequest(body="Pick one"), PHONE),
    (
        "send_flow_ok",
        Flow(
            body="Pick one",
            flow_id="733019284465510",
            flow_token="ft_9a71c0d2",
            flow_cta="Book a trip",
            flow_action="navigate",
            screen="TRIP",
        ),
        PHONE,
    ),
    ("send_call_permission_request_ok", CallPermissionRequest(body="May we call you about your repair?"), PHONE),
    (
        "send_contact_info_request_ok",
        ContactRequest(body="Could you share your number so the courier can reach you?"),
        BSUID,
    ),
    ("send_catalog_ok", Catalog(body="Pick one", thumbnail_product_retailer_id="HP-MUG-ENAMEL"), PHONE),
    ("send_carousel_ok", Carousel(body="Pick one", cards=(link_card(0), link_card(1))), PHONE),
    ("send_template_positional_ok", template("trip_reminder_v3", body=texts("Maren", "24 Nov")), PHONE),
    (
        "send_template_named_ok",
        template(
            "order_ready_named",
            body=(TextValue(name="first_name", text="Maren"), TextValue(name="order_no", text="20731")),
        ),
        PHONE,
    ),
    (
        "send_template_header_image_buttons_ok",
        template(
            "autumn_sale",
            header=FileValue(type="image", meta_id="7301884420196655"),
            body=texts("Maren", "20%"),
            buttons=(QuickReplyValue(index=0, payload="OPTOUT_PROMO"), UrlValue(index=1, text="tents?c=nov")),
        ),
        PHONE,
    ),
    (
        "send_template_header_document_ok",
        template(
            "invoice_ready",
            header=FileValue(type="document", meta_id="7301884420196703", filename="invoice-20731.pdf"),
            body=texts("20731"),
        ),
        PHONE,
    ),
    (
        "send_template_header_location_ok",
        template("meet_here", header=PlaceValue(location=DOCK), body=texts("Maren")),
        PHONE,
    ),
    (
        "send_template_auth_otp_ok",
        Template.one_time_password(name="verify_code", language="en_US", code="483920"),
        PHONE,
    ),
    (
        "send_template_currency_date_ok",
        template(
            "refund_done",
            body=(
                CurrencyValue(fallback_value="$14.50", code="USD", amount_1000=14500),
                DateTimeValue(fallback_value="24 November 2026"),
            ),
        ),
        PHONE,
    ),
    (
        "send_template_coupon_ok",
        template("coupon_nov", body=texts("PADDLE20", "20%"), buttons=(CouponValue(index=1, code="PADDLE20"),)),
        PHONE,
    ),
    (
        "send_template_limited_time_offer_ok",
        template("lto_cape_may", offer_expires_at_ms=1795269600000, buttons=(CouponValue(index=0, code="PADDLE20"),)),
        PHONE,
    ),
    (
        "send_template_carousel_ok",
        template(
            "tents_carousel",
            body=texts("Maren"),
            cards=tuple(
                TemplateCard(
                    header=FileValue(type="image", meta_id=f"730188442019670{index}"),
                    buttons=(QuickReplyValue(index=0, payload=f"tent_{index}"),),
                )
                for index in range(2)
            ),
        ),
        PHONE,
    ),
    (
        "send_template_flow_button_ok",
        template("survey_after_trip", buttons=(FlowValue(index=0, flow_token="ft_51be", data={"trip": "20731"}),)),
        PHONE,
    ),
    ("send_template_held_ok", template("autumn_sale"), PHONE),
]
SECTIONS = (ProductSection(title="Tents", product_retailer_ids=("HP-TENT-2P", "HP-TENT-3P")),)
# Types and values no fixture of that name shows as we write them.
BESIDES: list[Content] = [
    Reaction(wamid=WAMID, emoji=""),
    Product(catalog_id="1180", product_retailer_id="HP-MUG-ENAMEL"),
    ProductList(body="All tents", header=Header(type="text", text="Tents"), catalog_id="1180", sections=SECTIONS),
    Catalog(body="Have a look"),
    CallPermissionRequest(),
    Carousel(body="Mugs", cards=(ProductCard(catalog_id="1180", product_retailer_id="A"),) * 2),
    Flow(body="Book", flow_name="book", flow_cta="Book", mode="draft", flow_action="data_exchange"),
    CallToAction(
        body="See", display_text="See", url="https://example.com", header=Header(type="video", meta_id="1"), footer="F"
    ),
    template(
        "everything",
        header=ProductValue(catalog_id="1180", product_retailer_id="A"),
        buttons=(
            CatalogValue(index=0, thumbnail_product_retailer_id="A"),
            ProductsValue(index=1, thumbnail_product_retailer_id="A", sections=SECTIONS),
            PlainButtonValue(index=2, type="spm"),
            PlainButtonValue(index=3, type="voice_call"),
            FlowValue(index=4),
            CatalogValue(index=5),
        ),
        tap_target=TapTarget(url="https://example.com", title="More"),
    ),
]
EVERY_CONTENT: list[Content] = [*(content for _, content, _ in AS_FIXTURE), *BESIDES]


def named(content: object) -> str:
    return type(content).__name__
