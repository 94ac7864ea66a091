"""Templates: what Meta would refuse of one, whether values fit it, the message they make, how it will look."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from shared.whatsapp.outbound import Bsuid, Phone, to_graph
from shared.whatsapp.outbound import check as check_message
from shared.whatsapp.outbound.template import (
    CurrencyValue,
    FileValue,
    QuickReplyValue,
    Template,
    TemplateCard,
    TextValue,
    UrlValue,
)
from shared.whatsapp.templates import (
    Body,
    Button,
    Card,
    Footer,
    Header,
    Offer,
    Preview,
    PreviewButton,
    TemplateDefinition,
    Values,
    check,
    fill,
    fits,
    preview,
    read_definition,
)
from shared.whatsapp.templates import to_graph as creation

from .contents import exchange

REMINDER = Body(
    text="Hi {{1}}, your paddle trip starts on {{2}}. See you there!", examples={"1": "Maren", "2": "24 Nov"}
)
PLAIN = Body(text="Your order is ready.")
LINK = Button(type="URL", text="Directions", url="https://example.com/t/{{1}}", example="https://example.com/t/20731")
REPLY = Button(type="QUICK_REPLY", text="Stop")
OTP = Button(type="OTP", otp_type="COPY_CODE", text="Copy code")


def define(**parts: Any) -> TemplateDefinition:
    return TemplateDefinition(
        **{"name": "trip_reminder_v3", "language": "en_US", "category": "UTILITY", "body": PLAIN} | parts
    )


def verify(**parts: Any) -> TemplateDefinition:
    return define(
        **{
            "name": "verify_code",
            "category": "AUTHENTICATION",
            "body": Body(adds_security_recommendation=True),
            "footer": Footer(code_expiration_minutes=10),
            "buttons": (OTP,),
        }
        | parts
    )


def codes(template: TemplateDefinition) -> list[tuple[str, str]]:
    return [(problem.field, problem.code) for problem in check(template)]


# --- definitions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fixture", ["template_create_ok.json", "template_create_recategorised_ok.json", "template_create_auth_ok.json"]
)
def test_a_definition_is_created_as_it_was_read(fixture: str) -> None:
    body = exchange(fixture)["request"]["body"]

    definition = read_definition(body)

    assert creation(definition) == body
    assert check(definition) == []


def test_an_edit_replaces_all_components() -> None:
    wanted = exchange("template_edit_ok.json")["request"]["body"]["components"]

    assert creation(define(body=REMINDER, footer=Footer(text="Harbor & Pine"), buttons=(LINK,)))["components"] == wanted


RICH = define(
    category="MARKETING",
    parameter_format="NAMED",
    header=Header(format="TEXT", text="For {{first_name}}", examples={"first_name": "Maren"}),
    body=Body(text="Dear {{first_name}}, look what we have put aside.", examples={"first_name": "Maren"}),
    cards=tuple(
        Card(
            header=Header(format="IMAGE", handle="4::aW"),
            body=Body(text="A tent"),
            buttons=(REPLY, Button(type="FLOW", text="Book", flow_id="1", flow_action="navigate", navigate_screen="A")),
        )
        for _ in range(2)
    ),
    offer=Offer(text="Until Sunday", has_expiration=True),
    asks_to_call=True,
    ttl_s=43_200,
)


def test_every_component_survives_the_way_to_meta_and_back() -> None:
    assert check(RICH) == []
    assert read_definition(creation(RICH)) == RICH


def test_a_definition_comes_back_from_json_as_it_was() -> None:
    boundary = TypeAdapter(TemplateDefinition)

    assert boundary.validate_json(boundary.dump_json(RICH)) == RICH


def test_reading_is_lenient() -> None:
    odd = {"components": [None, {}, {"type": "HOLOGRAM"}, {"type": "body", "text": 5, "example": []}], "category": 7}

    definition = read_definition(odd)

    assert (definition.unknown, definition.body) == (("HOLOGRAM",), Body(text="5"))
    assert read_definition({}).name == ""


X: Callable[[int], str] = "x".__mul__


def body_with(count: int) -> Body:
    text = "a b c " + " d e ".join(f"{{{{{n}}}}}" for n in range(1, count + 1)) + " f"
    return Body(text=text, examples={str(n): "x" for n in range(1, count + 1)})


def replies(count: int) -> tuple[Button, ...]:
    return tuple(Button(type="QUICK_REPLY", text=f"B{n}") for n in range(count))


def of_kind(kind: str, count: int, **parts: Any) -> tuple[Button, ...]:
    return tuple(Button(type=kind, text="t", **parts) for _ in range(count))


def cards(count: int, body: str = "b") -> tuple[Card, ...]:
    return (Card(header=Header(format="IMAGE", handle="h"), body=Body(text=body)),) * count


LIMITS: list[tuple[str, Callable[[int], TemplateDefinition], str, str, int]] = [
    ("name", lambda n: define(name=X(n)), "name", "too_long", 512),
    ("header", lambda n: define(header=Header(format="TEXT", text=X(n))), "header.text", "too_long", 60),
    ("body", lambda n: define(body=Body(text=X(n))), "body.text", "too_long", 1024),
    (
        "offer body",
        lambda n: define(category="MARKETING", body=Body(text=X(n)), offer=Offer(text="o")),
        "body.text",
        "too_long",
        600,
    ),
    ("offer", lambda n: define(category="MARKETING", offer=Offer(text=X(n))), "offer.text", "too_long", 16),
    ("footer", lambda n: define(footer=Footer(text=X(n))), "footer.text", "too_long", 60),
    ("buttons", lambda n: define(buttons=replies(n)), "buttons", "too_many", 10),
    (
        "button text",
        lambda n: define(buttons=(Button(type="QUICK_REPLY", text=X(n)),)),
        "buttons[0].text",
        "too_long",
        25,
    ),
    ("links", lambda n: define(buttons=of_kind("URL", n, url="https://a.example")), "buttons", "too_many", 2),
    (
        "link",
        lambda n: define(buttons=of_kind("URL", 1, url="https://a.example/" + X(n - 18))),
        "buttons[0].url",
        "too_long",
        2000,
    ),
    ("phone buttons", lambda n: define(buttons=of_kind("PHONE_NUMBER", n, phone_number="1")), "buttons", "too_many", 1),
    (
        "phone number",
        lambda n: define(buttons=of_kind("PHONE_NUMBER", 1, phone_number="1" * n)),
        "buttons[0].phone_number",
        "too_long",
        20,
    ),
    ("copy buttons", lambda n: define(buttons=of_kind("COPY_CODE", n, example="A")), "buttons", "too_many", 1),
    (
        "code",
        lambda n: define(buttons=of_kind("COPY_CODE", 1, example=X(n))),
        "buttons[0].example",
        "too_long",
        20,
    ),
    ("cards", lambda n: define(cards=cards(n)), "cards", "too_many", 10),
    ("card body", lambda n: define(cards=cards(2, X(n))), "cards[0].body.text", "too_long", 160),
    (
        "expiration",
        lambda n: verify(footer=Footer(code_expiration_minutes=n)),
        "footer.code_expiration_minutes",
        "out_of_range",
        90,
    ),
    ("authentication ttl", lambda n: verify(ttl_s=n), "ttl_s", "out_of_range", 900),
    ("utility ttl", lambda n: define(ttl_s=n), "ttl_s", "out_of_range", 43_200),
    ("marketing ttl", lambda n: define(category="MARKETING", ttl_s=n), "ttl_s", "out_of_range", 2_592_000),
]


@pytest.mark.parametrize(("what", "make", "field", "code", "most"), LIMITS, ids=[limit[0] for limit in LIMITS])
def test_a_limit_holds_to_its_last_value(
    what: str, make: Callable[[int], TemplateDefinition], field: str, code: str, most: int
) -> None:
    assert codes(make(most)) == []
    assert (field, code) in codes(make(most + 1))


@pytest.mark.parametrize(
    ("make", "field", "code", "least"),
    [
        (lambda n: define(cards=cards(n)), "cards", "too_few", 2),
        (
            lambda n: verify(footer=Footer(code_expiration_minutes=n)),
            "footer.code_expiration_minutes",
            "out_of_range",
            1,
        ),
        (lambda n: verify(ttl_s=n), "ttl_s", "out_of_range", 30),
        (lambda n: define(ttl_s=n), "ttl_s", "out_of_range", 30),
        (lambda n: define(category="MARKETING", ttl_s=n), "ttl_s", "out_of_range", 43_200),
    ],
)
def test_a_limit_holds_to_its_least_value(
    make: Callable[[int], TemplateDefinition], field: str, code: str, least: int
) -> None:
    assert codes(make(least)) == []
    assert (field, code) in codes(make(least - 1))


def test_thirty_days_are_written_as_minus_one() -> None:
    assert codes(define(ttl_s=-1)) == []


def test_two_words_for_each_placeholder_and_one_more() -> None:
    enough = Body(text="one {{1}} two three", examples={"1": "x"})
    too_few = Body(text="one {{1}} two", examples={"1": "x"})

    assert codes(define(body=enough)) == []
    assert codes(define(body=too_few)) == [("body.text", "too_many_placeholders")]
    assert codes(define(body=too_few, language="ja")) == []  # no blanks between words there


@pytest.mark.parametrize(
    ("template", "problems"),
    [
        (define(name="Trip Reminder"), [("name", "bad_format")]),
        (define(name=""), [("name", "empty")]),
        (define(language="english"), [("language", "unsupported")]),
        (define(language="en-GB"), [("language", "unsupported")]),
        (define(language="xx"), [("language", "unsupported")]),
        (define(language="en_GH"), []),
        (define(category="SERVICE"), [("category", "unsupported")]),
        (define(parameter_format="LETTERED"), [("parameter_format", "unsupported")]),
        (define(body=None), [("body", "missing")]),
        (define(body=Body(text=" ")), [("body.text", "empty")]),
        (
            define(body=Body(text="{{1}} has come to you", examples={"1": "It"})),
            [("body.text", "placeholder_at_edge")],
        ),
        (define(body=Body(text="it has come {{1}}", examples={"1": "x"})), [("body.text", "placeholder_at_edge")]),
        (
            define(body=Body(text="a b c {{1}} {{2}} d e", examples={"1": "x", "2": "y"})),
            [("body.text", "placeholders_adjacent")],
        ),
        (define(body=Body(text="a b {{1}} c")), [("body.examples", "missing")]),
        (define(body=Body(text="a b c", examples={"1": "x"})), [("body.examples", "too_many")]),
        (define(body=Body(text="a b {{2}} c", examples={"2": "x"})), [("body.text", "bad_placeholder")]),
        (define(body=Body(text="a b {{name}} c", examples={"name": "x"})), [("body.text", "bad_placeholder")]),
        (define(body=Body(text="a b {{1} c")), [("body.text", "bad_placeholder")]),
        (
            define(body=Body(text="a b {{1}} c", examples={"1": "x"}), parameter_format="NAMED"),
            [("body.text", "bad_placeholder")],
        ),
        (
            define(header=Header(format="TEXT", text="{{1}} and {{2}}", examples={"1": "x", "2": "y"})),
            [("header.text", "too_many")],
        ),
        (define(header=Header(format="TEXT", text="a\nb")), [("header.text", "bad_format")]),
        (define(header=Header(format="IMAGE")), [("header.handle", "missing")]),
        (define(header=Header(format="IMAGE", handle="h", text="t")), [("header.text", "not_together")]),
        (define(header=Header(format="GIF", handle="h")), [("header.format", "not_allowed")]),
        (define(header=Header(format="AUDIO")), [("header.format", "unsupported")]),
        (define(header=Header(format="LOCATION")), []),
        (define(footer=Footer(text="by {{1}}")), [("footer.text", "not_allowed")]),
        (
            define(footer=Footer(text="f", code_expiration_minutes=5)),
            [("footer.code_expiration_minutes", "not_allowed")],
        ),
        (define(offer=Offer(text="o")), [("offer", "not_allowed")]),
        (define(buttons=(REPLY, LINK, Button(type="QUICK_REPLY", text="No"))), [("buttons", "not_grouped")]),
        (define(buttons=(LINK, REPLY)), []),
        (define(buttons=(Button(type="HOLOGRAM", text="t"),)), [("buttons[0].type", "unsupported")]),
        (define(buttons=(OTP,)), [("buttons[0].type", "not_allowed")]),
        (
            define(buttons=of_kind("URL", 1, url="https://a.example/{{1}}/b", example="https://a.example/x/b")),
            [("buttons[0].url", "bad_placeholder")],
        ),
        (define(buttons=of_kind("URL", 1, url="https://a.example/{{1}}")), [("buttons[0].example", "missing")]),
        (define(buttons=of_kind("URL", 1, url="a.example")), [("buttons[0].url", "bad_format")]),
        (define(buttons=of_kind("FLOW", 1)), [("buttons[0].flow_id", "missing")]),
        (define(buttons=(Button(type="REQUEST_CONTACT_INFO"),)), []),
        (
            define(cards=(*cards(1), Card(header=Header(format="VIDEO", handle="h"), body=Body(text="b")))),
            [("cards", "not_alike")],
        ),
        (define(cards=(Card(),) * 2), [("cards[0].header", "missing"), ("cards[1].header", "missing")]),
        (
            define(cards=(Card(header=Header(format="TEXT", text="t")),) * 2),
            [("cards[0].header.format", "not_allowed"), ("cards[1].header.format", "not_allowed")],
        ),
        (verify(body=Body(text="Your code is {{1}}")), [("body.text", "not_allowed")]),
        (verify(header=Header(format="TEXT", text="h")), [("header", "not_allowed")]),
        (verify(buttons=()), [("buttons", "missing")]),
        (verify(buttons=(OTP, REPLY)), [("buttons", "missing")]),
        (verify(footer=Footer(text="f", code_expiration_minutes=5)), [("footer.text", "not_allowed")]),
        (verify(buttons=(Button(type="OTP"),)), [("buttons[0].otp_type", "unsupported")]),
        (verify(buttons=(Button(type="OTP", otp_type="ONE_TAP"),)), [("buttons[0].supported_apps", "missing")]),
        (
            verify(buttons=(Button(type="OTP", otp_type="ZERO_TAP", supported_apps=(("com.a", "K8a"),)),)),
            [("buttons[0].zero_tap_terms_accepted", "missing")],
        ),
    ],
)
def test_what_meta_would_refuse_is_told(template: TemplateDefinition, problems: list[tuple[str, str]]) -> None:
    assert codes(template) == problems


# --- filling ----------------------------------------------------------------------------------------------------------

FILLED = define(body=REMINDER, buttons=(LINK, REPLY))


def test_values_become_the_message_meta_takes() -> None:
    values = Values(body={"2": "24 Nov", "1": "Maren"}, buttons={0: "20731", 1: "STOP"})

    template, problems = fill(FILLED, values)

    assert problems == []
    assert template == Template(
        name="trip_reminder_v3",
        language="en_US",
        body=(TextValue(text="Maren"), TextValue(text="24 Nov")),
        buttons=(UrlValue(index=0, text="20731"), QuickReplyValue(index=1, payload="STOP")),
    )


def test_named_values_carry_their_names() -> None:
    definition = define(
        parameter_format="NAMED",
        header=Header(format="TEXT", text="For {{who}}", examples={"who": "x"}),
        body=Body(text="Dear {{who}}, it is {{what}} for you", examples={"who": "x", "what": "y"}),
    )

    template, problems = fill(
        definition, Values(header=TextValue(text="Maren"), body={"what": "ready", "who": "Maren"})
    )

    assert problems == []
    assert template.header == TextValue(text="Maren", name="who")
    assert template.body == (TextValue(text="Maren", name="who"), TextValue(text="ready", name="what"))


def test_a_code_goes_in_twice() -> None:
    template, problems = fill(verify(), Values(code="483920"), to=Phone(number="+12025550117"))
    wanted = exchange("send_template_auth_otp_ok.json")["request"]["body"]

    assert problems == []
    assert to_graph(template, to=Phone(number="+12025550117")) == wanted


def test_a_template_as_meta_reports_it_takes_a_code_too() -> None:
    reported = verify(
        body=Body(text="*{{1}}* is your verification code."),
        footer=Footer(text="This code expires in 10 minutes."),
        buttons=(Button(type="URL", text="Copy code", url="https://www.whatsapp.com/otp/code/?code=otp{{1}}"),),
    )

    assert fill(reported, Values(code="483920"))[1] == []


@pytest.mark.parametrize(("code", "problems"), [("1" * 15, []), ("1" * 16, ["too_long"]), ("", ["empty"])])
def test_a_code_has_15_characters_at_most(code: str, problems: list[str]) -> None:
    found = fill(verify(), Values(code=code))[1]

    assert sorted({problem.code for problem in found}) == problems


def test_a_code_needs_a_phone_number() -> None:
    problems = fill(verify(), Values(code="1"), to=Bsuid(user_id="US.9120047736618250"))[1]

    assert [(problem.field, problem.code) for problem in problems] == [("to", "needs_phone")]


def test_the_code_in_the_button_is_the_one_in_the_body() -> None:
    template = Template(name="v", language="en", body=(TextValue(text="1"),), buttons=(UrlValue(index=0, text="2"),))

    assert [problem.code for problem in fits(verify(), template)] == ["not_alike"]


ROOM = 1024 - len("Hi , your paddle trip starts on b. See you there!")  # what is left of a body for {{1}}
IMAGE = define(header=Header(format="IMAGE", handle="h"))
CAROUSEL = define(
    cards=(
        Card(
            header=Header(format="IMAGE", handle="h"),
            body=Body(text="Tent {{1}} is here", examples={"1": "x"}),
            buttons=(REPLY,),
        ),
    )
    * 2
)
PICTURE = FileValue(type="image", meta_id="1")
OFFER = define(category="MARKETING", offer=Offer(text="o", has_expiration=True))
COUPON = define(buttons=(Button(type="COPY_CODE", example="A"),))


@pytest.mark.parametrize(
    ("definition", "values", "problems"),
    [
        (FILLED, Values(), [("body", "wrong_count"), ("buttons", "missing")]),
        (
            FILLED,
            Values(body={"1": "a", "2": "b", "3": "c"}, buttons={0: "x"}),
            [("body", "unknown_placeholder")],
        ),
        (FILLED, Values(body={"1": "", "2": "b"}, buttons={0: "x"}), [("body[0].text", "empty")]),
        (
            FILLED,
            Values(body={"1": "a" * (ROOM + 1), "2": "b"}, buttons={0: "x"}),
            [("body", "too_long")],
        ),
        (FILLED, Values(body={"1": "a" * ROOM, "2": "b"}, buttons={0: "x"}), []),
        (FILLED, Values(body={"1": "a", "2": "b"}, buttons={0: "x" * 1979}), [("buttons", "too_long")]),
        (FILLED, Values(body={"1": "a", "2": "b"}, buttons={0: "x" * 1978}), []),
        (IMAGE, Values(), [("header", "missing")]),
        (IMAGE, Values(header=TextValue(text="a")), [("header", "wrong_kind")]),
        (IMAGE, Values(header=PICTURE), []),
        (define(), Values(header=PICTURE), [("header", "not_allowed")]),
        (
            define(header=Header(format="TEXT", text="For {{1}}", examples={"1": "x"})),
            Values(header=TextValue(text="a" * 57)),
            [("header", "too_long")],
        ),
        (OFFER, Values(), [("offer_expires_at_ms", "missing")]),
        (OFFER, Values(offer_expires_at_ms=1795269600000), []),
        (define(), Values(offer_expires_at_ms=1795269600000), [("offer_expires_at_ms", "not_allowed")]),
        (COUPON, Values(), [("buttons", "missing")]),
        (COUPON, Values(buttons={0: "PADDLE20"}), []),
        (CAROUSEL, Values(), [("cards", "wrong_count")]),
        (CAROUSEL, Values(cards=(Values(header=PICTURE, body={"1": "a"}),) * 2), []),
        (
            CAROUSEL,
            Values(cards=(Values(header=PICTURE, body={"1": "a" * 161}),) * 2),
            [("cards[0].body", "too_long"), ("cards[1].body", "too_long")],
        ),
        (
            CAROUSEL,
            Values(cards=(Values(header=PICTURE),) * 2),
            [("cards[0].body", "wrong_count"), ("cards[1].body", "wrong_count")],
        ),
        (define(buttons=(Button(type="FLOW", text="Book", flow_id="1"),)), Values(), []),
    ],
)
def test_values_that_do_not_fit_are_told(
    definition: TemplateDefinition, values: Values, problems: list[tuple[str, str]]
) -> None:
    template, found = fill(definition, values)

    assert [(problem.field, problem.code) for problem in found] == problems
    if not problems:
        assert check_message(template) == []


@pytest.mark.parametrize(
    ("template", "problems"),
    [
        ({"body": (TextValue(text="a", name="n"), TextValue(text="b", name="m"))}, [("body", "not_allowed")]),
        (
            {
                "buttons": (QuickReplyValue(index=0, payload="p"), UrlValue(index=4, text="x")),
            },
            [("buttons", "wrong_kind"), ("buttons", "unknown_button")],
        ),
        ({"cards": (TemplateCard(),)}, [("cards", "wrong_count")]),
        ({"body": (CurrencyValue(fallback_value="a", code="EUR", amount_1000=1), TextValue(text="b"))}, []),
    ],
)
def test_a_message_written_by_hand_is_held_against_its_template(
    template: dict[str, Any], problems: list[tuple[str, str]]
) -> None:
    sound = Template(
        name="t",
        language="en",
        body=(TextValue(text="a"), TextValue(text="b")),
        buttons=(UrlValue(index=0, text="x"),),
    )

    found = fits(FILLED, dataclasses.replace(sound, **template))

    assert [(problem.field, problem.code) for problem in found] == problems


# --- previews ---------------------------------------------------------------------------------------------------------


def test_a_preview_shows_the_samples() -> None:
    definition = define(
        header=Header(format="TEXT", text="For {{1}}", examples={"1": "you"}),
        body=REMINDER,
        footer=Footer(text="Harbor & Pine"),
        buttons=(LINK, REPLY, Button(type="PHONE_NUMBER", text="Call", phone_number="+12025550143")),
    )

    assert preview(definition) == Preview(
        header_format="TEXT",
        header="For you",
        body="Hi Maren, your paddle trip starts on 24 Nov. See you there!",
        footer="Harbor & Pine",
        buttons=(
            PreviewButton(type="URL", text="Directions", target="https://example.com/t/20731"),
            PreviewButton(type="QUICK_REPLY", text="Stop"),
            PreviewButton(type="PHONE_NUMBER", text="Call", target="+12025550143"),
        ),
    )


def test_a_preview_of_a_message_shows_its_values() -> None:
    template, _ = fill(FILLED, Values(body={"1": "Ana\nSouza", "2": "Monday"}, buttons={0: "7"}))

    shown = preview(FILLED, template)

    assert shown.body == "Hi Ana Souza, your paddle trip starts on Monday. See you there!"
    assert shown.buttons[0].target == "https://example.com/t/7"


def test_a_preview_of_a_code() -> None:
    assert preview(verify()) == Preview(
        header_format=None,
        header=None,
        body="*123456* is your verification code. For your security, do not share this code.",
        footer="This code expires in 10 minutes.",
        buttons=(PreviewButton(type="OTP", text="Copy code"),),
    )


def test_a_preview_shows_every_card() -> None:
    template, _ = fill(CAROUSEL, Values(cards=(Values(header=PICTURE, body={"1": "A"}), Values(body={"1": "B"}))))

    assert [card.body for card in preview(CAROUSEL, template).cards] == ["Tent A is here", "Tent B is here"]
    assert [card.body for card in preview(CAROUSEL).cards] == ["Tent x is here"] * 2


def test_a_missing_value_leaves_its_placeholder_to_be_seen() -> None:
    template, _ = fill(FILLED, Values(body={"1": "Ana"}))

    assert preview(FILLED, template).body == "Hi Ana, your paddle trip starts on {{2}}. See you there!"
