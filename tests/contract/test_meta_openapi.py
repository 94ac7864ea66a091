"""What we send and what Meta answers, held against Meta's own OpenAPI (as reviewed: `meta_openapi/patches.py`).

The file is Meta's and lies beside the project, in ../shared/contracts. Where it is not there, all of this is skipped
and says so.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.whatsapp.outbound import Content, Group, check, to_graph, to_marketing_graph
from shared.whatsapp.outbound.header import Header
from shared.whatsapp.outbound.interactive import Buttons, List, ReplyButton, Row, Section
from shared.whatsapp.outbound.location import Location
from shared.whatsapp.outbound.media import Document, Image
from shared.whatsapp.outbound.receipts import block_users, read_receipt
from shared.whatsapp.outbound.template import FileValue, QuickReplyValue, Template, TextValue, UrlValue
from shared.whatsapp.outbound.text import Text
from shared.whatsapp.templates import to_graph as creation
from tests.contract.meta_openapi.document import ABSENCE, FILE, Contract, as_published, contract, patched
from tests.contract.meta_openapi.patches import PATCHES
from tests.unit.whatsapp.contents import BSUID, EVERY_CONTENT, MANIFEST, PHONE, WAMID, exchange, named, template
from tests.unit.whatsapp.test_templates import CAROUSEL, FILLED, RICH, verify

pytestmark = pytest.mark.skipif(not FILE.exists(), reason=ABSENCE)

MESSAGES = "/{Version}/{Phone-Number-ID}/messages"
MARKETING = "/{Version}/{Phone-Number-ID}/marketing_messages"
BLOCKS = "/{Version}/{Phone-Number-ID}/block_users"
UPLOAD = "/{Version}/{Phone-Number-ID}/media"
TEMPLATES = "/{Version}/{WABA-ID}/message_templates"
ACCOUNT = "/{Version}/{WABA-ID}"
# By the last step of a fixture's address; where that is an id, by the fixture's name.
PATHS = {
    "messages": MESSAGES,
    "marketing_messages": MARKETING,
    "block_users": BLOCKS,
    "media": UPLOAD,
    "message_templates": TEMPLATES,
    "phone_numbers": "/{Version}/{WABA-ID}/phone_numbers",
    "subscribed_apps": "/{Version}/{WABA-ID}/subscribed_apps",
}
PATHS_BY_NAME = {
    "media_url_ok.json": "/{Version}/{Media-ID}",
    "media_delete_ok.json": "/{Version}/{Media-ID}",
    "template_get_ok.json": "/{Version}/{TEMPLATE_ID}",
    "template_edit_ok.json": "/{Version}/{TEMPLATE_ID}",
    "phone_number_get_ok.json": "/{Version}/{Phone-Number-ID}",
}
EXCHANGES = [(about["file"], exchange(about["file"])) for about in MANIFEST]


def path_of(name: str, found: dict[str, Any]) -> str | None:
    """Return the path as the description writes it; None where it does not describe it."""
    return PATHS_BY_NAME.get(name) or PATHS.get(found["request"]["url"].split("?")[0].rsplit("/", 1)[-1])


# Texts to the Marketing Messages API, which takes templates only: the file is right to reject what Meta refuses here.
TEXTS_AS_MARKETING = {"error_131055.json", "error_134101.json"}
WITH_A_BODY = [
    (name, found) for name, found in EXCHANGES if "body" in found["request"] and name not in TEXTS_AS_MARKETING
]


@pytest.mark.parametrize(("name", "found"), WITH_A_BODY, ids=[name for name, _ in WITH_A_BODY])
def test_every_request_of_the_fixtures_is_valid(name: str, found: dict[str, Any]) -> None:
    assert why_not_request(contract(), name, found) is None


@pytest.mark.parametrize("name", sorted(TEXTS_AS_MARKETING))
def test_a_text_as_marketing_is_rejected(name: str) -> None:
    assert why_not_request(contract(), name, exchange(name)) is not None


def why_not_request(against: Contract, name: str, found: dict[str, Any]) -> str | None:
    path = path_of(name, found)
    assert path is not None, f"{name}: Meta's file describes no such path"
    body = found["request"]["body"]
    if "_multipart" in body:
        return against.request(path, body["_multipart"], media="multipart/form-data")
    return against.request(path, body)


def described(name: str, found: dict[str, Any]) -> bool:
    path = path_of(name, found)
    body = found["response"]["body"]
    if path is None or not isinstance(body, dict) or {"_text", "_binary"} & body.keys():
        return False
    return found["response"]["status"] == 200


ANSWERED = [(name, found) for name, found in EXCHANGES if described(name, found)]
REFUSED = [(name, found) for name, found in EXCHANGES if "error" in found["response"]["body"]]


@pytest.mark.parametrize(("name", "found"), ANSWERED, ids=[name for name, _ in ANSWERED])
def test_every_answer_the_file_describes_is_valid(name: str, found: dict[str, Any]) -> None:
    path = path_of(name, found)
    assert path is not None
    answer, method = found["response"], found["request"]["method"].lower()

    assert contract().response(path, answer["body"], method=method, status=answer["status"]) is None


@pytest.mark.parametrize(("name", "found"), REFUSED, ids=[name for name, _ in REFUSED])
def test_every_refusal_is_an_error_of_graph(name: str, found: dict[str, Any]) -> None:
    assert contract().schema("GraphAPIError", found["response"]["body"]) is None


# --- what we build ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", EVERY_CONTENT, ids=named)
@pytest.mark.parametrize("to", [PHONE, BSUID], ids=["phone", "bsuid"])
def test_every_body_we_build_is_valid(content: Content, to: Any) -> None:
    body = to_graph(content, to=to, callback_data="0198f3c2", identity_hash="DF2lS5v2W6x=")

    assert contract().request(MESSAGES, body) is None


def test_small_requests_are_valid() -> None:
    template_message = template("autumn_sale")
    marketing = to_marketing_graph(template_message, to=PHONE, product_policy="STRICT", callback_data="x")

    assert contract().request(MESSAGES, read_receipt(WAMID)) is None
    assert contract().request(MESSAGES, read_receipt(WAMID, is_typing=True)) is None
    assert contract().request(MESSAGES, to_graph(Text(body="b"), to=Group(group_id="Y2Fw"))) is None
    assert contract().request(MESSAGES, to_graph(Text(body="b"), to=PHONE, reply_to=WAMID)) is None
    assert contract().request(BLOCKS, block_users([PHONE, BSUID])) is None
    assert contract().request(BLOCKS, block_users([PHONE]), method="delete") is None
    assert contract().request(MARKETING, marketing) is None


@pytest.mark.parametrize("definition", [FILLED, CAROUSEL, RICH, verify()], ids=lambda definition: definition.name)
def test_every_template_we_create_is_valid(definition: Any) -> None:
    body = creation(definition)

    assert contract().request(TEMPLATES, body) is None
    assert contract().request("/{Version}/{TEMPLATE_ID}", {"components": body["components"]}) is None


# Mostly sound, now and then not: about half of what is made passes our check.
_WORDS = st.text(alphabet="ab é👍\n", min_size=1, max_size=61)
_TITLES = st.text(alphabet="ab é👍", min_size=1, max_size=21)
_OPTIONAL = st.none() | st.just("") | _WORDS
_IDS = st.text(alphabet="ab:1", min_size=1, max_size=30) | st.sampled_from([" a", "x" * 256, "x" * 257])
_URLS = st.sampled_from(["https://a.example/b", "http://a.example", "https://a.example/b?c=1", "ftp://a.example"])
_SOURCES = st.sampled_from(["meta_id", "link"]).flatmap(
    lambda name: st.fixed_dictionaries({name: _IDS if name == "meta_id" else _URLS})
)
_HEADERS = st.one_of(
    st.none(),
    st.builds(Header, type=st.just("text"), text=_WORDS),
    st.builds(
        lambda kind, source: Header(type=kind, **source), st.sampled_from(["image", "video", "document"]), _SOURCES
    ),
)
_BUTTONS = st.lists(
    st.builds(ReplyButton, id=_IDS, title=_TITLES),
    min_size=1,
    max_size=4,
    unique_by=(lambda b: b.id, lambda b: b.title),
).map(tuple)
_ROWS = st.lists(st.builds(Row, id=_IDS, title=_TITLES, description=_OPTIONAL), min_size=1, max_size=3).map(tuple)
_SECTIONS = st.lists(st.builds(Section, rows=_ROWS, title=_TITLES), min_size=1, max_size=2).map(tuple)
_NAMED = st.lists(
    st.builds(TextValue, text=_WORDS, name=st.sampled_from(["a", "b", "c", "C"])),
    max_size=3,
    unique_by=lambda v: v.name,
)
_POSITIONAL = st.lists(st.builds(TextValue, text=_WORDS), max_size=3)
_QUICK = st.builds(QuickReplyValue, index=st.integers(0, 10), payload=_WORDS)
_LINKS = st.builds(UrlValue, index=st.integers(0, 10), text=_WORDS)
CONTENTS = st.one_of(
    st.builds(Text, body=_WORDS, preview_url=st.booleans()),
    st.builds(lambda source, caption: Image(**source, caption=caption), _SOURCES, _OPTIONAL),
    st.builds(lambda source, name: Document(**source, filename=name), _SOURCES, _OPTIONAL),
    st.builds(Location, latitude=st.floats(-91, 91), longitude=st.floats(-181, 181), name=_OPTIONAL),
    st.builds(Buttons, body=_WORDS, buttons=_BUTTONS, header=_HEADERS, footer=_OPTIONAL),
    st.builds(List, body=_WORDS, button=_TITLES, sections=_SECTIONS, footer=_OPTIONAL),
    st.builds(
        Template,
        name=st.sampled_from(["trip", "trip_2", "Trip"]),
        language=st.sampled_from(["en", "pt_BR", "fil", "english"]),
        header=st.none() | st.builds(lambda source: FileValue(type="image", **source), _SOURCES),
        body=(_NAMED | _POSITIONAL).map(tuple),
        buttons=st.lists(_QUICK | _LINKS, max_size=2, unique_by=lambda b: b.index).map(tuple),
    ),
)


@given(CONTENTS)
def test_whatever_passes_our_check_passes_metas(content: Content) -> None:
    body = to_graph(content, to=PHONE)

    if check(content) == []:
        assert contract().request(MESSAGES, body) is None


# --- what must be rejected --------------------------------------------------------------------------------------------


def changed(fixture: str, *way: Any, to: Any = None, absent: bool = False) -> Any:
    """Return a fixture's request body with one thing changed."""
    body = copy.deepcopy(exchange(f"{fixture}.json")["request"]["body"])
    inner = body
    for step in way[:-1]:
        inner = inner[step]
    if absent:
        del inner[way[-1]]
    else:
        inner[way[-1]] = to
    return body


SECTION = {"title": "t", "rows": [{"id": "1", "title": "t"}]}
COMPONENTS = ("template", "components")
BAD: dict[str, tuple[str, Any]] = {
    "another product": (MESSAGES, changed("send_text_ok", "messaging_product", to="banana")),
    "no product": (MESSAGES, changed("send_text_ok", "messaging_product", absent=True)),
    "to nobody": (MESSAGES, changed("send_text_ok", "to", absent=True)),
    "to an empty number": (MESSAGES, changed("send_text_ok", "to", to="")),
    "to a number as a number": (MESSAGES, changed("send_text_ok", "to", to=12025550117)),
    "to something that is no user id": (MESSAGES, changed("send_bsuid_ok", "recipient", to="12025550117")),
    "an unknown kind of recipient": (MESSAGES, changed("send_text_ok", "recipient_type", to="crowd")),
    "an unknown type": (MESSAGES, changed("send_text_ok", "type", to="hologram")),
    "a type that is not the one brought": (MESSAGES, changed("send_text_ok", "type", to="image")),
    "an unknown key": (MESSAGES, changed("send_text_ok", "priority", to="high")),
    "an unknown key of a template message": (MESSAGES, changed("send_template_positional_ok", "priority", to="high")),
    "callback data too long": (MESSAGES, changed("send_text_ok", "biz_opaque_callback_data", to="x" * 513)),
    "callback data too long for marketing": (
        MARKETING,
        changed("send_marketing_messages_ok", "biz_opaque_callback_data", to="x" * 513),
    ),
    "an identity hash that is no text": (MESSAGES, changed("send_text_ok", "recipient_identity_key_hash", to=7)),
    "a reply to nothing": (MESSAGES, changed("send_text_reply_ok", "context", to={})),
    "a text without a body": (MESSAGES, changed("send_text_ok", "text", "body", absent=True)),
    "an empty text": (MESSAGES, changed("send_text_ok", "text", "body", to="")),
    "a text too long": (MESSAGES, changed("send_text_ok", "text", "body", to="x" * 4097)),
    "a preview that is no yes or no": (MESSAGES, changed("send_text_ok", "text", "preview_url", to="yes")),
    "a direct send of marketing": (MESSAGES, changed("send_direct_send_ok", "category", to="marketing")),
    "a direct send for a second": (MESSAGES, changed("send_direct_send_ok", "ttl_seconds", to=1)),
    "a file without a source": (MESSAGES, changed("send_image_id_ok", "image", "id", absent=True)),
    "a file with two sources": (MESSAGES, changed("send_image_id_ok", "image", "link", to="https://a.example")),
    "a file at no address": (MESSAGES, changed("send_image_link_ok", "image", "link", to="ftp://a.example")),
    "a misspelt caption": (MESSAGES, changed("send_image_id_ok", "image", "captoin", to="c")),
    "a caption too long": (MESSAGES, changed("send_video_ok", "video", "caption", to="x" * 1025)),
    "a picture with a file name": (MESSAGES, changed("send_image_id_ok", "image", "filename", to="f")),
    "an audio with a caption": (MESSAGES, changed("send_audio_voice_ok", "audio", "caption", to="c")),
    "a document that is a voice note": (MESSAGES, changed("send_document_ok", "document", "voice", to=True)),
    "a sticker with a caption": (MESSAGES, changed("send_sticker_ok", "sticker", "caption", to="c")),
    "a location nowhere": (MESSAGES, changed("send_location_ok", "location", "latitude", absent=True)),
    "a location in words": (MESSAGES, changed("send_location_ok", "location", "latitude", to="north")),
    "a reaction to nothing": (MESSAGES, changed("send_reaction_ok", "reaction", "message_id", absent=True)),
    "a reaction as a reply": (MESSAGES, changed("send_reaction_ok", "context", to={"message_id": WAMID})),
    "a card without a name": (MESSAGES, changed("send_contacts_ok", "contacts", 0, "name", absent=True)),
    "a card with half a name": (
        MESSAGES,
        changed("send_contacts_ok", "contacts", 0, "name", to={"formatted_name": "Repair desk"}),
    ),
    "258 cards": (
        MESSAGES,
        changed("send_contacts_ok", "contacts", to=[{"name": {"formatted_name": "A", "first_name": "A"}}] * 258),
    ),
    "four buttons": (
        MESSAGES,
        changed(
            "send_buttons_ok",
            *("interactive", "action", "buttons"),
            to=[{"type": "reply", "reply": {"id": str(n), "title": "t"}} for n in range(4)],
        ),
    ),
    "an empty button": (
        MESSAGES,
        changed("send_buttons_ok", "interactive", "action", "buttons", 0, "reply", "title", to=""),
    ),
    "buttons with a list's action": (
        MESSAGES,
        changed("send_buttons_ok", "interactive", "action", to={"button": "b", "sections": [SECTION]}),
    ),
    "buttons without a body": (MESSAGES, changed("send_buttons_ok", "interactive", "body", absent=True)),
    "buttons with a body too long": (
        MESSAGES,
        changed("send_buttons_ok", "interactive", "body", "text", to="x" * 1025),
    ),
    "a header that brings nothing": (
        MESSAGES,
        changed("send_buttons_ok", "interactive", "header", to={"type": "image"}),
    ),
    "an empty header": (
        MESSAGES,
        changed("send_list_ok", "interactive", "header", to={"type": "text", "text": ""}),
    ),
    "a header with an unknown key": (
        MESSAGES,
        changed("send_list_ok", "interactive", "header", to={"type": "text", "text": "h", "colour": "red"}),
    ),
    "an empty footer": (MESSAGES, changed("send_buttons_ok", "interactive", "footer", to={"text": ""})),
    "an unknown key of an interactive": (MESSAGES, changed("send_buttons_ok", "interactive", "priority", to=1)),
    "a list with a picture": (
        MESSAGES,
        changed("send_list_ok", "interactive", "header", to={"type": "image", "image": {"id": "1"}}),
    ),
    "a list with a body too long": (MESSAGES, changed("send_list_ok", "interactive", "body", "text", to="x" * 4097)),
    "a section without rows": (
        MESSAGES,
        changed("send_list_ok", "interactive", "action", "sections", 0, "rows", to=[]),
    ),
    "an unknown key of a section": (
        MESSAGES,
        changed("send_list_ok", "interactive", "action", "sections", 0, "colour", to="red"),
    ),
    "two sections without titles": (
        MESSAGES,
        changed("send_list_ok", "interactive", "action", "sections", 0, "title", absent=True),
    ),
    "a link of no address": (
        MESSAGES,
        changed("send_cta_url_ok", "interactive", "action", "parameters", "url", to="example.com"),
    ),
    "a carousel of one": (
        MESSAGES,
        changed(
            "send_carousel_ok",
            *("interactive", "action", "cards"),
            to=exchange("send_carousel_ok.json")["request"]["body"]["interactive"]["action"]["cards"][:1],
        ),
    ),
    "a product with a header": (
        MESSAGES,
        changed("send_product_ok", "interactive", "header", to={"type": "text", "text": "h"}),
    ),
    "products without a header": (MESSAGES, changed("send_product_list_ok", "interactive", "header", absent=True)),
    "a template's unknown key": (MESSAGES, changed("send_template_positional_ok", "template", "colour", to="red")),
    "a template's name in capitals": (MESSAGES, changed("send_template_positional_ok", "template", "name", to="Trip")),
    "a template in no language": (MESSAGES, changed("send_template_positional_ok", "template", "language", to={})),
    "a language in words": (
        MESSAGES,
        changed("send_template_positional_ok", "template", "language", "code", to="English"),
    ),
    "an unknown component": (MESSAGES, changed("send_template_positional_ok", *COMPONENTS, 0, "type", to="title")),
    "an unknown parameter": (
        MESSAGES,
        changed("send_template_positional_ok", *COMPONENTS, 0, "parameters", 0, "type", to="number"),
    ),
    "a value with a line break": (
        MESSAGES,
        changed("send_template_positional_ok", *COMPONENTS, 0, "parameters", 0, "text", to="a\nb"),
    ),
    "a button at no position": (
        MESSAGES,
        changed("send_template_auth_otp_ok", *COMPONENTS, 1, "index", absent=True),
    ),
    "a button at position 10": (MESSAGES, changed("send_template_auth_otp_ok", *COMPONENTS, 1, "index", to="10")),
    "an offer that ends in seconds": (
        MESSAGES,
        changed(
            "send_template_limited_time_offer_ok",
            *(*COMPONENTS, 0, "parameters", 0, "limited_time_offer", "expiration_time_ms"),
            to=1795269600,
        ),
    ),
    "a read mark of nothing": (MESSAGES, changed("mark_read_ok", "message_id", absent=True)),
    "a message marked delivered": (MESSAGES, changed("mark_read_ok", "status", to="delivered")),
    "blocking for another product": (BLOCKS, changed("block_users_ok", "messaging_product", to="banana")),
    "blocking nobody": (BLOCKS, changed("block_users_ok", "block_users", to=[])),
    "an upload without a file": (UPLOAD, {"messaging_product": "whatsapp"}),
    "a template without components": (TEMPLATES, changed("template_create_ok", "components", absent=True)),
    "a template of an unknown key": (TEMPLATES, changed("template_create_ok", "colour", to="red")),
    "a template named in capitals": (TEMPLATES, changed("template_create_ok", "name", to="Trip")),
    "a template of no category": (TEMPLATES, changed("template_create_ok", "category", to="SERVICE")),
    "a template of an unknown format": (TEMPLATES, changed("template_create_ok", "parameter_format", to="LETTERED")),
    "a template that lives for ever": (
        TEMPLATES,
        changed("template_create_auth_ok", "message_send_ttl_seconds", to=10**9),
    ),
    "a template that may be anything": (TEMPLATES, changed("template_create_ok", "allow_category_change", to="yes")),
    "a template of an unknown component": (
        TEMPLATES,
        changed("template_create_ok", "components", 0, "type", to="HOLOGRAM"),
    ),
    "a template of a component of no kind": (
        TEMPLATES,
        changed("template_create_ok", "components", 0, "type", absent=True),
    ),
}
BAD_ANSWERS: dict[str, Any] = {
    "no message": {"messaging_product": "whatsapp", "contacts": [{"input": "1"}], "messages": []},
    "no success": {},
    "no id": {"messaging_product": "whatsapp", "contacts": [{"input": "1"}], "messages": [{}]},
}


def why_bad(against: Contract, path: str, body: Any) -> str | None:
    return against.request(path, body, media="multipart/form-data" if path == UPLOAD else "application/json")


@pytest.mark.parametrize("what", BAD)
def test_a_bad_body_is_rejected(what: str) -> None:
    path, body = BAD[what]

    assert why_bad(contract(), path, body) is not None


@pytest.mark.parametrize("what", BAD_ANSWERS)
def test_a_bad_answer_is_rejected(what: str) -> None:
    assert contract().response(MESSAGES, BAD_ANSWERS[what], method="post", status=200) is not None


# --- the patches ------------------------------------------------------------------------------------------------------

GOOD_BESIDES: list[tuple[str, Any]] = [
    *((MESSAGES, to_graph(content, to=PHONE, callback_data="x", identity_hash="y")) for content in EVERY_CONTENT),
    (MESSAGES, exchange("error_131062.json")["request"]["body"]),
    (MESSAGES, changed("send_location_ok", "location", "latitude", to=38.97121)),
    (
        MESSAGES,
        changed("send_contacts_ok", "contacts", to=[{"name": {"formatted_name": "A", "first_name": "A"}}] * 257),
    ),
    (MESSAGES, changed("send_list_ok", "interactive", "body", "text", to="x" * 4096)),
    (MARKETING, changed("send_marketing_messages_ok", "biz_opaque_callback_data", to="x")),
    (TEMPLATES, changed("template_create_ok", "allow_category_change", to=True)),
]


def misjudged(against: Contract) -> Iterator[str]:
    """Name what is judged wrongly: a good body rejected, a bad one accepted. Lazily: the first is mostly enough."""
    for what, (path, body) in BAD.items():
        if why_bad(against, path, body) is None:
            yield what
    for what, body in BAD_ANSWERS.items():
        if against.response(MESSAGES, body, method="post", status=200) is None:
            yield what
    for name, found in WITH_A_BODY:
        if not name.startswith("error_") and why_not_request(against, name, found):
            yield name
    for path, body in GOOD_BESIDES:
        if against.request(path, body):
            yield str(body)
    for name, found in ANSWERED:
        answer, method = found["response"], found["request"]["method"].lower()
        if against.response(path_of(name, found) or "", answer["body"], method=method, status=200):
            yield f"answer {name}"


def test_as_published_the_file_rejects_every_message() -> None:
    raw = Contract(as_published())
    bodies = [found["request"]["body"] for name, found in WITH_A_BODY if path_of(name, found) == MESSAGES]

    accepted = [body for body in bodies if raw.request(MESSAGES, body) is None]

    assert (len(bodies), accepted) == (101, [])


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_every_patch_is_needed(patch: Any) -> None:
    without = [other for other in PATCHES if other is not patch]

    assert next(misjudged(Contract(patched(as_published(), without))), None) is not None


def test_patches_have_evidence_and_names_of_their_own() -> None:
    assert len({patch.name for patch in PATCHES}) == len(PATCHES)
    assert all(patch.because.rstrip().endswith((".", ")")) and len(patch.because) > 20 for patch in PATCHES)


def test_a_patch_that_finds_nothing_to_change_is_an_error() -> None:
    lost = dataclasses.replace(PATCHES[0], at=("/components/schemas/Nothing/x",))

    with pytest.raises(KeyError):
        patched(as_published(), [lost])


def test_nothing_is_misjudged() -> None:
    assert list(misjudged(contract())) == []
