"""What we say to Meta: bodies are those of the fixtures; each limit holds at its last value and fails one past it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.whatsapp.outbound import (
    Bsuid,
    Content,
    Group,
    Phone,
    check,
    media_ids,
    message_type,
    to_graph,
    to_marketing_graph,
)
from shared.whatsapp.outbound.contacts import Card, CardEmail, CardName, CardPhone, CardUrl, Contacts
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
from shared.whatsapp.outbound.media import Audio, Document, Image, Sticker, Video, check_file
from shared.whatsapp.outbound.products import (
    Carousel,
    Catalog,
    Product,
    ProductCard,
    ProductList,
    ProductSection,
)
from shared.whatsapp.outbound.reaction import Reaction
from shared.whatsapp.outbound.receipts import block_users, check_block, read_receipt
from shared.whatsapp.outbound.template import (
    CouponValue,
    CurrencyValue,
    FileValue,
    FlowValue,
    PlaceValue,
    QuickReplyValue,
    TapTarget,
    TemplateCard,
    TextValue,
    UrlValue,
    normalised,
)
from shared.whatsapp.outbound.text import DirectSend, Text

from .contents import (
    AS_FIXTURE,
    BSUID,
    DOCK,
    EVERY_CONTENT,
    PHONE,
    SECTIONS,
    WAMID,
    exchange,
    link_card,
    named,
    template,
    texts,
)

OURS = "0199c2f4-7a31-7cc0-9a3e-0d4f2b1c6e55"  # the id of an upload


def codes(content: Content, **around: Any) -> list[tuple[str, str]]:
    return [(problem.field, problem.code) for problem in check(content, **around)]


# --- bodies -----------------------------------------------------------------------------------------------------------


def as_ours(body: Any) -> Any:
    """Write a fixture's body as we do: button positions as strings, phone numbers without blanks."""
    written = re.sub(r'"index": (\d+)', r'"index": "\1"', json.dumps(body))
    body = json.loads(written)
    if body["recipient_type"] == "individual" and "to" in body:
        body["to"] = body["to"].replace(" ", "")
    return body


@pytest.mark.parametrize(
    ("name", "content", "to"), AS_FIXTURE, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_body_is_the_one_meta_took(name: str, content: Content, to: Any) -> None:
    wanted = exchange(f"{name}.json")["request"]["body"]

    body = to_graph(
        content,
        to=to,
        reply_to=wanted.get("context", {}).get("message_id"),
        callback_data=wanted.get("biz_opaque_callback_data"),
    )

    assert body == as_ours(wanted)


def test_a_marketing_message_names_its_policy() -> None:
    wanted = exchange("send_marketing_messages_ok.json")["request"]["body"]

    body = to_marketing_graph(
        template("autumn_sale"),
        to=Phone(number="+12025550162"),
        product_policy="CLOUD_API_FALLBACK",
        shares_activity=True,
    )

    assert body == wanted


@pytest.mark.parametrize(("fixture", "is_typing"), [("mark_read_ok.json", False), ("mark_read_typing_ok.json", True)])
def test_a_read_mark_may_show_that_we_type(fixture: str, is_typing: bool) -> None:
    assert read_receipt(WAMID, is_typing=is_typing) == exchange(fixture)["request"]["body"]


def test_blocking_names_people() -> None:
    assert block_users([Phone(number="+12025550162")]) == exchange("block_users_ok.json")["request"]["body"]
    assert block_users([BSUID])["block_users"] == [{"user": BSUID.user_id}]


@pytest.mark.parametrize("content", EVERY_CONTENT, ids=named)
def test_a_sound_content_has_no_problems(content: Content) -> None:
    assert check(content, to=PHONE) == []


def test_every_type_is_among_them() -> None:
    assert {type(content) for content in EVERY_CONTENT} == set(get_args(Content))


@pytest.mark.parametrize("content", EVERY_CONTENT, ids=named)
def test_a_content_comes_back_from_json_as_it_was(content: Content) -> None:
    boundary: TypeAdapter[Content] = TypeAdapter(Content)

    assert boundary.validate_json(boundary.dump_json(content)) == content


def test_the_boundary_refuses_keys_it_does_not_know() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Content).validate_python({"type": "text", "body": "hi", "bodyy": "hi"})


def test_what_is_tapped_is_interactive() -> None:
    assert message_type(LocationRequest(body="Where?")) == "interactive"
    assert message_type(Text(body="hi")) == "text"


def test_a_preview_is_asked_for_only_where_there_is_a_link() -> None:
    assert Text(body="hi", preview_url=True).graph() == {"type": "text", "text": {"body": "hi"}}


def test_small_coordinates_have_no_exponent() -> None:
    assert Location(latitude=1e-7, longitude=-1e-9).place() == {"latitude": "0.0000001", "longitude": "0"}


def test_an_identity_hash_is_sent_with_the_message() -> None:
    body = to_graph(Text(body="hi"), to=PHONE, identity_hash="DF2lS5v2W6x=")

    assert body["recipient_identity_key_hash"] == "DF2lS5v2W6x="


@pytest.mark.parametrize(
    ("given_text", "sent"),
    [
        ("a\nb", "a b"),
        ("a \r\n\t b", "a b"),
        ("a\u2028b", "a b"),
        ("a    b", "a    b"),
        ("a     b", "a    b"),
        ("a          b", "a    b"),
        ("plain", "plain"),
    ],
)
def test_template_values_are_written_as_meta_takes_them(given_text: str, sent: str) -> None:
    assert normalised(given_text) == sent


@given(st.text(alphabet="a \n\t\r\x0b\u2028", max_size=30))
def test_a_normalised_value_is_never_refused_for_blanks(value: str) -> None:
    assert not re.search(r"[\n\t\r]| {5}", normalised(value))
    assert normalised(normalised(value)) == normalised(value)


# --- limits -----------------------------------------------------------------------------------------------------------


def buttons(count: int) -> tuple[ReplyButton, ...]:
    return tuple(ReplyButton(id=f"{n}", title=f"Button {n}") for n in range(count))


def rows(count: int, start: int = 0) -> tuple[Row, ...]:
    return tuple(Row(id=f"{n}", title=f"Row {n}") for n in range(start, start + count))


def list_of(*sections: Section, **parts: Any) -> List:
    return List(**{"body": "b", "button": "b", "sections": sections or (Section(rows=rows(1)),)} | parts)


def ask(**parts: Any) -> Buttons:
    return Buttons(**{"body": "b", "buttons": buttons(1)} | parts)


def flow(**parts: Any) -> Flow:
    return Flow(**{"body": "b", "flow_cta": "c", "flow_id": "1"} | parts)


def one_section(count: int) -> tuple[ProductSection, ...]:
    return (ProductSection(product_retailer_ids=tuple(f"p{n}" for n in range(count))),)


def product_list(**parts: Any) -> ProductList:
    given_parts = {"body": "b", "header": Header(type="text", text="h"), "catalog_id": "1", "sections": SECTIONS}
    return ProductList(**given_parts | parts)


def cards(count: int) -> tuple[Card, ...]:
    return (Card(name=CardName(formatted_name="A", first_name="A")),) * count


def titled(count: int) -> tuple[Section, ...]:
    return tuple(Section(title=f"S{n}", rows=rows(1, start=n)) for n in range(count))


def card(**parts: Any) -> Carousel:
    return Carousel(body="b", cards=(dataclasses.replace(link_card(0), **parts), link_card(1)))


def template_cards(count: int) -> tuple[TemplateCard, ...]:
    return (TemplateCard(header=FileValue(type="image", meta_id="1")),) * count


X: Callable[[int], str] = "x".__mul__

# What grows, where the problem shows, its code, the last size allowed.
LIMITS: list[tuple[str, Callable[[int], Content], str, str, int]] = [
    ("text", lambda n: Text(body=X(n)), "body", "too_long", 4096),
    (
        "direct send",
        lambda n: Text(body=X(n), direct_send=DirectSend(category="utility", ttl_s=30)),
        "body",
        "too_long",
        1024,
    ),
    (
        "direct send utility ttl",
        lambda n: Text(body="b", direct_send=DirectSend(category="utility", ttl_s=n)),
        "direct_send.ttl_s",
        "out_of_range",
        43_200,
    ),
    (
        "direct send authentication ttl",
        lambda n: Text(body="b", direct_send=DirectSend(category="authentication", ttl_s=n)),
        "direct_send.ttl_s",
        "out_of_range",
        900,
    ),
    ("image caption", lambda n: Image(meta_id="1", caption=X(n)), "caption", "too_long", 1024),
    ("video caption", lambda n: Video(meta_id="1", caption=X(n)), "caption", "too_long", 1024),
    ("document caption", lambda n: Document(meta_id="1", caption=X(n)), "caption", "too_long", 1024),
    ("cards", lambda n: Contacts(cards=cards(n)), "cards", "too_many", 257),
    ("latitude", lambda n: Location(latitude=n, longitude=0), "latitude", "out_of_range", 90),
    ("longitude", lambda n: Location(latitude=0, longitude=n), "longitude", "out_of_range", 180),
    ("buttons", lambda n: ask(buttons=buttons(n)), "buttons", "too_many", 3),
    (
        "button title",
        lambda n: ask(buttons=(ReplyButton(id="1", title=X(n)),)),
        "buttons[0].title",
        "too_long",
        20,
    ),
    ("button id", lambda n: ask(buttons=(ReplyButton(id=X(n), title="t"),)), "buttons[0].id", "too_long", 256),
    ("buttons body", lambda n: ask(body=X(n)), "body", "too_long", 1024),
    ("buttons footer", lambda n: ask(footer=X(n)), "footer", "too_long", 60),
    ("buttons header", lambda n: ask(header=Header(type="text", text=X(n))), "header.text", "too_long", 60),
    ("list rows in one section", lambda n: list_of(Section(rows=rows(n))), "sections", "too_many", 10),
    ("list sections", lambda n: list_of(*titled(n)), "sections", "too_many", 10),
    (
        "list section title",
        lambda n: list_of(Section(title=X(n), rows=rows(1))),
        "sections[0].title",
        "too_long",
        24,
    ),
    (
        "list row title",
        lambda n: list_of(Section(rows=(Row(id="1", title=X(n)),))),
        "sections[0].rows[0].title",
        "too_long",
        24,
    ),
    (
        "list row description",
        lambda n: list_of(Section(rows=(Row(id="1", title="t", description=X(n)),))),
        "sections[0].rows[0].description",
        "too_long",
        72,
    ),
    (
        "list row id",
        lambda n: list_of(Section(rows=(Row(id=X(n), title="t"),))),
        "sections[0].rows[0].id",
        "too_long",
        200,
    ),
    ("list button", lambda n: list_of(button=X(n)), "button", "too_long", 20),
    ("list header", lambda n: list_of(header=Header(type="text", text=X(n))), "header.text", "too_long", 60),
    ("list footer", lambda n: list_of(footer=X(n)), "footer", "too_long", 60),
    ("list body", lambda n: list_of(body=X(n)), "body", "too_long", 4096),
    (
        "call to action text",
        lambda n: CallToAction(body="b", display_text=X(n), url="https://a.example"),
        "display_text",
        "too_long",
        20,
    ),
    (
        "call to action body",
        lambda n: CallToAction(body=X(n), display_text="d", url="https://a.example"),
        "body",
        "too_long",
        1024,
    ),
    ("location request body", lambda n: LocationRequest(body=X(n)), "body", "too_long", 1024),
    ("contact request body", lambda n: ContactRequest(body=X(n)), "body", "too_long", 1024),
    ("call permission body", lambda n: CallPermissionRequest(body=X(n)), "body", "too_long", 1024),
    ("flow cta", lambda n: flow(flow_cta=X(n)), "flow_cta", "too_long", 30),
    ("flow body", lambda n: flow(body=X(n)), "body", "too_long", 1024),
    ("products", lambda n: product_list(sections=one_section(n)), "sections", "too_many", 30),
    (
        "product sections",
        lambda n: product_list(
            sections=tuple(ProductSection(title="t", product_retailer_ids=("a",)) for _ in range(n))
        ),
        "sections",
        "too_many",
        10,
    ),
    (
        "product list header",
        lambda n: product_list(header=Header(type="text", text=X(n))),
        "header.text",
        "too_long",
        60,
    ),
    ("catalog body", lambda n: Catalog(body=X(n)), "body", "too_long", 1024),
    ("catalog footer", lambda n: Catalog(body="b", footer=X(n)), "footer", "too_long", 60),
    ("carousel cards", lambda n: Carousel(body="b", cards=(link_card(0),) * n), "cards", "too_many", 10),
    ("carousel card body", lambda n: card(body=X(n)), "cards[0].body", "too_long", 160),
    ("carousel card line breaks", lambda n: card(body="x" + "\n" * n), "cards[0].body", "too_many_lines", 2),
    ("carousel card button", lambda n: card(display_text=X(n)), "cards[0].display_text", "too_long", 20),
    ("template name", lambda n: template(X(n)), "name", "too_long", 512),
    (
        "template buttons",
        lambda n: template("t", buttons=tuple(QuickReplyValue(index=i, payload="p") for i in range(n))),
        "buttons",
        "too_many",
        10,
    ),
    (
        "template button position",
        lambda n: template("t", buttons=(QuickReplyValue(index=n, payload="p"),)),
        "buttons[0].index",
        "out_of_range",
        9,
    ),
    (
        "coupon",
        lambda n: template("t", buttons=(CouponValue(index=0, code=X(n)),)),
        "buttons[0].code",
        "too_long",
        20,
    ),
    ("template cards", lambda n: template("t", cards=template_cards(n)), "cards", "too_many", 10),
]


@pytest.mark.parametrize(("what", "make", "field", "code", "most"), LIMITS, ids=[limit[0] for limit in LIMITS])
def test_a_limit_holds_to_its_last_value(
    what: str, make: Callable[[int], Content], field: str, code: str, most: int
) -> None:
    assert codes(make(most)) == []
    assert (field, code) in codes(make(most + 1))


@pytest.mark.parametrize(
    ("fewest", "one_less", "field"),
    [
        (lambda: ask(), lambda: ask(buttons=()), "buttons"),
        (lambda: list_of(), lambda: List(body="b", button="b", sections=()), "sections"),
        (lambda: list_of(), lambda: list_of(Section(rows=())), "sections[0].rows"),
        (lambda: Contacts(cards=cards(1)), lambda: Contacts(cards=()), "cards"),
        (
            lambda: Carousel(body="b", cards=(link_card(0),) * 2),
            lambda: Carousel(body="b", cards=(link_card(0),)),
            "cards",
        ),
        (lambda: template("t", cards=template_cards(2)), lambda: template("t", cards=template_cards(1)), "cards"),
        (lambda: product_list(), lambda: product_list(sections=()), "sections"),
        (
            lambda: product_list(),
            lambda: product_list(sections=(ProductSection(product_retailer_ids=()),)),
            "sections[0].product_retailer_ids",
        ),
    ],
)
def test_too_few_is_told(fewest: Callable[[], Content], one_less: Callable[[], Content], field: str) -> None:
    assert codes(fewest()) == []
    assert codes(one_less()) == [(field, "too_few")]


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        (Text(body=""), [("body", "empty")]),
        (Text(body=" \n"), [("body", "empty")]),
        (Text(body="a\ud83d"), [("body", "not_text")]),
        (Text(body="a\x00"), [("body", "not_text")]),
        (Image(), [("", "missing")]),
        (Image(meta_id="1", link="https://a.example/b"), [("", "not_together")]),
        (Image(link="ftp://a.example/b"), [("link", "bad_format")]),
        (Image(link="https://a.example/b c"), [("link", "bad_format")]),
        (Sticker(meta_id=" 1"), [("meta_id", "bad_format")]),
        (Image(media_id=OURS, meta_id="1"), [("", "not_together")]),
        (Video(media_id=OURS, link="https://a.example/b"), [("", "not_together")]),
        (Sticker(media_id=OURS.upper()), [("media_id", "bad_format")]),
        (Document(media_id="1"), [("media_id", "bad_format")]),
        (Audio(meta_id=f"parley:{OURS}"), [("meta_id", "bad_format")]),
        (ask(header=Header(type="text", text="h", media_id=OURS)), [("header", "not_together")]),
        (Location(latitude=float("nan"), longitude=0), [("latitude", "out_of_range")]),
        (Location(latitude=-90.1, longitude=-180.1), [("latitude", "out_of_range"), ("longitude", "out_of_range")]),
        (Contacts(cards=(Card(name=CardName(formatted_name="A")),)), [("cards[0].name", "missing")]),
        (
            Contacts(
                cards=(
                    Card(
                        name=CardName(formatted_name="", first_name="A"),
                        phones=(CardPhone(phone=" "),),
                        emails=(CardEmail(email="nobody"),),
                        urls=(CardUrl(url="example.com"),),
                        birthday="2026-02-30",
                    ),
                )
            ),
            [
                ("cards[0].name.formatted_name", "empty"),
                ("cards[0].phones[0].phone", "empty"),
                ("cards[0].emails[0].email", "bad_format"),
                ("cards[0].urls[0].url", "bad_format"),
                ("cards[0].birthday", "bad_format"),
            ],
        ),
        (Reaction(wamid="", emoji="👍"), [("wamid", "empty")]),
        (Reaction(wamid=WAMID, emoji="ok"), [("emoji", "not_an_emoji")]),
        (Reaction(wamid=WAMID, emoji="👍👍"), [("emoji", "not_an_emoji")]),
        (ask(buttons=buttons(1) * 2), [("buttons", "duplicate"), ("buttons", "duplicate")]),
        (ask(header=Header(type="image")), [("header", "missing")]),
        (ask(header=Header(type="text")), [("header.text", "empty")]),
        (ask(header=Header(type="text", text="h", meta_id="1")), [("header", "not_together")]),
        (ask(header=Header(type="image", text="h", meta_id="1")), [("header.text", "not_together")]),
        (ask(header=Header(type="image", meta_id="1", filename="f")), [("header.filename", "not_allowed")]),
        (list_of(header=Header(type="image", meta_id="1")), [("header.type", "not_allowed")]),
        (
            list_of(Section(rows=rows(1)), Section(rows=rows(1, start=1))),
            [("sections[0].title", "missing"), ("sections[1].title", "missing")],
        ),
        (
            list_of(Section(title="a", rows=rows(6)), Section(title="b", rows=rows(5, start=6))),
            [("sections", "too_many")],
        ),
        (list_of(Section(rows=rows(1) * 2)), [("sections", "duplicate")]),
        (CallToAction(body="b", display_text="d", url="example.com"), [("url", "bad_format")]),
        (flow(flow_id=None), [("flow_id", "missing")]),
        (flow(flow_name="n"), [("flow_id", "not_together")]),
        (flow(flow_action="data_exchange", screen="S"), [("screen", "not_together")]),
        (flow(data={"a": 1}), [("screen", "missing")]),
        (Product(catalog_id="", product_retailer_id="p"), [("catalog_id", "empty")]),
        (product_list(header=Header(type="image", meta_id="1")), [("header.type", "not_allowed")]),
        (card(header=Header(type="text", text="h")), [("cards[0].header.type", "not_allowed"), ("cards", "not_alike")]),
        (card(body=None), [("cards", "not_alike")]),
        (
            Carousel(body="b", cards=(link_card(0), ProductCard(catalog_id="1", product_retailer_id="p"))),
            [("cards", "not_alike")],
        ),
        (template("Trip-Reminder"), [("name", "bad_format")]),
        (dataclasses.replace(template("t"), language="English"), [("language", "bad_format")]),
        (template("t", body=texts("")), [("body[0].text", "empty")]),
        (
            template("t", body=(TextValue(text="a", name="b"), TextValue(text="a"))),
            [("body", "not_together")],
        ),
        (template("t", body=(TextValue(text="a", name="b"),) * 2), [("body", "duplicate")]),
        (template("t", body=(TextValue(text="a", name="B!"),)), [("body[0].name", "bad_format")]),
        (
            template("t", body=(CurrencyValue(fallback_value="1", code="eur", amount_1000=1),)),
            [("body[0].code", "bad_format")],
        ),
        (
            template("t", header=FileValue(type="image", meta_id="1", filename="f")),
            [("header.filename", "not_allowed")],
        ),
        (
            template("t", header=PlaceValue(location=Location(latitude=91, longitude=0))),
            [("header.location.latitude", "out_of_range")],
        ),
        (template("t", buttons=(UrlValue(index=0, text="a"),) * 2), [("buttons", "duplicate")]),
        (template("t", offer_expires_at_ms=1_795_269_600), [("offer_expires_at_ms", "bad_format")]),
        (
            template("t", cards=(TemplateCard(header=FileValue(type="image", meta_id="1")), TemplateCard())),
            [("cards", "not_alike")],
        ),
        (
            template("t", tap_target=TapTarget(url="x", title="")),
            [("tap_target.title", "empty"), ("tap_target.url", "bad_format")],
        ),
    ],
)
def test_what_meta_would_refuse_is_told(content: Content, problems: list[tuple[str, str]]) -> None:
    assert codes(content) == problems


def test_all_problems_are_told_at_once_in_sentences_that_name_the_limit() -> None:
    problems = check(ask(body="x" * 1025, buttons=buttons(4), footer="x" * 61))

    assert [problem.message for problem in problems] == [
        "The text has 1,025 characters; WhatsApp allows 1,024.",
        "The footer has 61 characters; WhatsApp allows 60.",
        "There are 4 buttons; WhatsApp allows 3.",
    ]


def test_an_emoji_of_two_code_points_counts_two() -> None:
    assert codes(ask(buttons=(ReplyButton(id="1", title="👍🏽" * 10),))) == []
    assert codes(ask(buttons=(ReplyButton(id="1", title="👍🏽" * 10 + "!"),))) == [("buttons[0].title", "too_long")]


@pytest.mark.parametrize("emoji", ["👍", "👍🏽", "❤️", "❤", "🇧🇷", "1️⃣", "👨‍👩‍👧", "🏳️‍🌈", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "☕", ""])
def test_every_kind_of_emoji_is_a_reaction(emoji: str) -> None:
    assert codes(Reaction(wamid=WAMID, emoji=emoji)) == []


# --- around the content -----------------------------------------------------------------------------------------------

GROUP = Group(group_id="Y2FwZS1tYXk")


def test_callback_data_may_have_512_characters() -> None:
    assert codes(Text(body="b"), callback_data="x" * 512) == []
    assert codes(Text(body="b"), callback_data="x" * 513) == [("callback_data", "too_long")]


def test_a_reaction_is_no_reply() -> None:
    assert codes(Reaction(wamid=WAMID, emoji="👍"), reply_to=WAMID) == [("reply_to", "not_together")]
    assert codes(Text(body="b"), reply_to=WAMID) == []


@pytest.mark.parametrize("number", ["12025550117", "+1 (202) 555-0117", "+54 11 1555 0117", "12345", "1" * 20])
def test_people_write_phone_numbers_in_many_ways(number: str) -> None:
    assert codes(Text(body="b"), to=Phone(number=number)) == []
    assert re.fullmatch(r"\+\d+", to_graph(Text(body="b"), to=Phone(number=number))["to"])


@pytest.mark.parametrize("number", ["", "1234", "1" * 21, "+1 202 CALL-US", "١٢٣٤٥٦"])
def test_what_is_no_phone_number_is_told(number: str) -> None:
    assert codes(Text(body="b"), to=Phone(number=number)) == [("to.number", "bad_format")]


def test_a_user_id_has_its_shape() -> None:
    assert codes(Text(body="b"), to=BSUID) == []
    assert codes(Text(body="b"), to=Bsuid(user_id="US.ENT.9120047736618250")) == []
    assert codes(Text(body="b"), to=Bsuid(user_id="12025550117")) == [("to.user_id", "bad_format")]


@pytest.mark.parametrize(
    ("content", "may"),
    [
        (Text(body="b"), True),
        (Image(meta_id="1"), True),
        (Audio(meta_id="1"), True),
        (template("t", header=FileValue(type="image", meta_id="1"), body=texts("a")), True),
        (template("t", buttons=(QuickReplyValue(index=0, payload="p"),)), True),
        (template("t", header=PlaceValue(location=DOCK)), False),
        (template("t", cards=template_cards(2)), False),
        (template("t", offer_expires_at_ms=1795269600000), False),
        (template("t", buttons=(FlowValue(index=0),)), False),
        (Text(body="b", direct_send=DirectSend(category="utility", ttl_s=30)), False),
        (DOCK, False),
        (Reaction(wamid=WAMID, emoji="👍"), False),
        (ask(), False),
    ],
)
def test_groups_take_texts_and_files_only(content: Content, may: bool) -> None:
    assert codes(content, to=GROUP) == ([] if may else [("", "not_in_groups")])


def test_a_block_list_holds_64_000_people() -> None:
    assert check_block("block", [PHONE], blocked_already=63_999) == []
    assert [p.code for p in check_block("block", [PHONE], blocked_already=64_000)] == ["list_full"]
    assert check_block("unblock", [PHONE], blocked_already=64_000) == []
    assert [p.code for p in check_block("block", [PHONE] * 64_001)] == ["too_many"]
    assert [p.code for p in check_block("block", [])] == ["too_few"]


# --- files ------------------------------------------------------------------------------------------------------------

MB = 1024 * 1024


@pytest.mark.parametrize(
    ("kind", "mime_type", "most", "traits"),
    [
        ("audio", "audio/mpeg", 16 * MB, {}),
        ("audio", "audio/ogg; codecs=opus", 16 * MB, {"is_voice": True}),
        ("image", "image/jpeg", 5 * MB, {}),
        ("video", "video/mp4", 16 * MB, {}),
        ("document", "application/pdf", 100 * MB, {}),
        ("sticker", "image/webp", 100 * 1024, {}),
        ("sticker", "image/webp", 500 * 1024, {"is_animated": True}),
    ],
)
def test_a_file_may_be_so_large(kind: Any, mime_type: str, most: int, traits: dict[str, bool]) -> None:
    assert check_file(kind, mime_type=mime_type, size_bytes=most, **traits) == []
    assert [p.code for p in check_file(kind, mime_type=mime_type, size_bytes=most + 1, **traits)] == ["too_large"]


@pytest.mark.parametrize(
    ("kind", "mime_type", "traits"),
    [
        ("image", "image/webp", {}),
        ("sticker", "image/png", {}),
        ("video", "video/webm", {}),
        ("audio", "audio/ogg; codecs=vorbis", {}),
        ("audio", "audio/mpeg", {"is_voice": True}),
        ("document", "application/zip", {}),
        ("document", "", {}),
    ],
)
def test_a_file_of_another_format_is_told(kind: Any, mime_type: str, traits: dict[str, bool]) -> None:
    problems = check_file(kind, mime_type=mime_type, size_bytes=1, **traits)

    assert [(p.field, p.code) for p in problems] == [("mime_type", "unsupported_format")]


def test_an_empty_file_is_told() -> None:
    assert [p.code for p in check_file("image", mime_type="image/png", size_bytes=0)] == ["empty"]


# --- files of ours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        Image(media_id=OURS),
        Video(media_id=OURS),
        Audio(media_id=OURS, is_voice=True),
        Document(media_id=OURS, filename="f"),
        Sticker(media_id=OURS),
        ask(header=Header(type="document", media_id=OURS, filename="f")),
        template("t", header=FileValue(type="video", media_id=OURS)),
        template(
            "t",
            cards=(
                TemplateCard(header=FileValue(type="image", media_id=OURS)),
                TemplateCard(header=FileValue(type="image", media_id=OURS)),
            ),
        ),
        Carousel(
            body="b",
            cards=tuple(dataclasses.replace(link_card(n), header=Header(type="image", media_id=OURS)) for n in (0, 1)),
        ),
    ],
    ids=named,
)
def test_an_upload_of_ours_is_found_in_every_body_that_names_it(content: Content) -> None:
    assert check(content) == []
    assert media_ids(content.graph()) == [OURS]
    assert f'"id": "parley:{OURS}"' in json.dumps(content.graph())  # as app.media_in looks for it


@pytest.mark.parametrize("content", EVERY_CONTENT, ids=named)
def test_files_that_are_not_ours_are_not_taken_for_ours(content: Content) -> None:
    assert media_ids(content.graph()) == []
