"""Parsing is total: whatever bytes arrive, every item comes out as something, and nothing is raised."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.whatsapp.events import InboundMessage, ParsedBody, Quarantined
from shared.whatsapp.parse import parse_webhook

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
WEBHOOKS = Path(__file__).parents[2] / "fixtures" / "webhooks"
MANIFEST = json.loads((WEBHOOKS / "MANIFEST.json").read_text("utf-8"))


def fixture(name: str) -> bytes:
    return (WEBHOOKS / name).read_bytes()


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield key
            yield from strings(child)
    elif isinstance(value, list):
        for child in value:
            yield from strings(child)


def assert_accounted_for(parsed: ParsedBody) -> None:
    """Every item once, everything storable, every index inside."""
    assert len(parsed.messages) + len(parsed.quarantined) + sum(c.kept for c in parsed.changes) == parsed.items >= 1
    places = [m.item for m in parsed.messages] + [q.item for q in parsed.quarantined]
    assert len(set(places)) == len(places)
    assert all(0 <= place < parsed.items for place in places)
    assert all(0 <= m.change < len(parsed.changes) for m in parsed.messages)
    assert all(c.kept >= 0 for c in parsed.changes)
    for message in parsed.messages:
        assert message.wamid
        assert message.sender_user_id or message.sender_wa_id
        texts = (message.wamid, message.content, message.reply_to_wamid, message.name, message.username)
        for text in (*filter(None, texts), message.group_id or "", *strings(message.payload)):
            assert "\x00" not in text
            text.encode("utf-8")
    for change in parsed.changes:
        assert "\x00" not in "".join(strings(change.payload))
        "".join(strings(change.payload)).encode("utf-8")
        json.dumps(change.payload, allow_nan=False)


# --- any bytes, any JSON ----------------------------------------------------------------------------------------------

KEYS = [
    *("object", "entry", "id", "changes", "field", "value", "metadata", "phone_number_id", "contacts", "messages"),
    *("statuses", "message_echoes", "errors", "history", "threads", "calls", "user_preferences", "state_sync"),
    *("from", "from_user_id", "wa_id", "user_id", "profile", "name", "username", "timestamp", "type", "text", "body"),
    *("context", "group_id", "user_actions"),
]
TEXTS = [
    *("whatsapp_business_account", "messages", "standby", "history", "text", "reaction", "image", "wamid.1", ""),
    *("US.1001", "12025550117", "+12025550117", "402776318915527", "1763802000", "1763802000000", "-1", "NaN", "inf"),
    *("9" * 400, "\x00", "\ud83d", "a\x00b\udc00", "@ana", "٣٣٣٣٣٣", "1_000"),
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([10**12, 10**300, -1, 0, 1763802000, 1763802000000])
    | st.sampled_from(TEXTS)
    | st.text(st.characters(), max_size=5)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=15,
)


def shaped(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[Any]:
    """Meta's object, each part now and then something else."""
    parts = {name: strategy | anything for name, strategy in optional.items()}
    return st.fixed_dictionaries(required, optional=parts)


messages = shaped(
    {},
    id=st.sampled_from(["wamid.1", "wamid.2", "", "x" * 600]),
    type=st.sampled_from(["text", "image", "reaction", "system", "future"]),
    text=shaped({}, body=st.sampled_from(TEXTS)),
    timestamp=st.sampled_from(TEXTS),
    context=shaped({}, id=st.sampled_from(TEXTS)),
    group_id=st.sampled_from(TEXTS),
    **{"from": st.sampled_from(TEXTS), "from_user_id": st.sampled_from(TEXTS)},
)
contacts = shaped(
    {},
    wa_id=st.sampled_from(TEXTS),
    user_id=st.sampled_from(TEXTS),
    profile=shaped({}, name=st.sampled_from(TEXTS), username=st.sampled_from(TEXTS)),
)
values = shaped(
    {"metadata": st.just({"phone_number_id": "402776318915527"}) | anything},
    messages=st.lists(messages | anything, max_size=3),
    contacts=st.lists(contacts | anything, max_size=2),
    statuses=st.lists(shaped({}, id=st.sampled_from(TEXTS)), max_size=2),
    errors=st.lists(anything, max_size=2),
    history=st.lists(shaped({}, threads=st.lists(shaped({}, messages=st.lists(anything, max_size=2)), max_size=2))),
)
changes = shaped({"field": st.just("messages") | st.sampled_from(TEXTS)}, value=values)
entries = shaped({"changes": st.lists(changes | anything, max_size=2) | anything}, id=st.sampled_from(TEXTS))
bodies = st.fixed_dictionaries(
    {"object": st.just("whatsapp_business_account"), "entry": st.lists(entries | anything, max_size=2) | anything}
)


@given(raw=st.binary(max_size=200))
@example(raw=b"")
@example(raw=b"\xff\xfe")
@example(raw=b"\xef\xbb\xbf{}")
@example(raw=b"null")
@example(raw=b'{"object": "whatsapp_business_account", "entry": NaN}')
@example(raw=b'{"object": "whatsapp_business_account", "entry": [1e999]}')
def test_any_bytes_are_one_item_at_least(raw: bytes) -> None:
    assert_accounted_for(parse_webhook(raw, now=NOW))


@given(body=anything)
def test_any_json_is_accounted_for(body: Any) -> None:
    assert_accounted_for(parse_webhook(json.dumps(body).encode(), now=NOW))


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies)
def test_anything_in_metas_shape_is_accounted_for(body: Any) -> None:
    assert_accounted_for(parse_webhook(json.dumps(body).encode(), now=NOW))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies)
def test_the_same_bytes_always_mean_the_same(body: Any) -> None:
    raw = json.dumps(body).encode()

    assert parse_webhook(raw, now=NOW) == parse_webhook(raw, now=NOW)


# --- the fixtures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("about", MANIFEST["fixtures"], ids=lambda about: about["file"])
def test_every_fixture_holds_the_items_its_manifest_says(about: dict[str, Any]) -> None:
    parsed = parse_webhook(fixture(about["file"]), now=datetime(2027, 1, 1, tzinfo=UTC))

    assert_accounted_for(parsed)
    assert parsed.items == about["items"]
    if about["valid"]:
        assert {c.event_type for c in parsed.changes} == set(about["fields"])
        assert {c.phone_number_id for c in parsed.changes} - {None} == set(about["phone_number_ids"])
        # What is no turn in the chat (a reaction, an edit) is counted with its change.
        assert len(parsed.messages) <= about["expected_inbound_messages"]
    if not about["parses_as_json"]:
        assert parsed == ParsedBody(items=1, quarantined=parsed.quarantined)


def test_no_fixture_was_forgotten_by_the_manifest() -> None:
    on_disk = {p.relative_to(WEBHOOKS).as_posix() for p in WEBHOOKS.rglob("*") if p.is_file()} - {"MANIFEST.json"}

    assert {about["file"] for about in MANIFEST["fixtures"]} == on_disk


# --- one by one -------------------------------------------------------------------------------------------------------


def only_message(raw: bytes) -> InboundMessage:
    [message] = parse_webhook(raw, now=NOW).messages
    return message


def body_of(
    *sent: dict[str, Any], contacts: list[dict[str, Any]] | None = None, phone_number_id: object = "402776318915527"
) -> bytes:
    value: dict[str, Any] = {"metadata": {"phone_number_id": phone_number_id}, "messages": list(sent)}
    if contacts is not None:
        value["contacts"] = contacts
    change = {"field": "messages", "value": value}
    return json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}).encode()


def text(**changes: Any) -> dict[str, Any]:
    sent = {"id": "wamid.1", "from": "12025550117", "timestamp": "1763802000", "type": "text", "text": {"body": "Hi"}}
    return sent | changes


def test_a_null_character_is_replaced_and_the_message_kept() -> None:
    message = only_message(fixture("text_null_char.json"))

    assert message.content is not None
    assert "\ufffd" in message.content
    assert "\x00" not in message.content


def test_a_lone_surrogate_is_replaced_and_the_message_kept() -> None:
    message = only_message(fixture("text_lone_surrogate.json"))

    assert message.content is not None
    assert "\ufffd" in message.content
    message.content.encode("utf-8")


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert only_message(body_of(text(text={"body": "\U0001f600"}))).content == "😀"


@pytest.mark.parametrize(
    "timestamp",
    ["1763802000", 1763802000, 1763802000.0, "1763802000000", 1763802000000, "1763802000.0"],
)
def test_times_come_as_text_or_number_in_seconds_or_milliseconds(timestamp: object) -> None:
    assert only_message(body_of(text(timestamp=timestamp))).sent_at == datetime.fromtimestamp(1763802000, UTC)


@pytest.mark.parametrize("timestamp", [None, "", "yesterday", True, [], {}, 0, -1, "-5", "nan", 10**400])
def test_a_time_nobody_can_read_does_not_cost_the_message(timestamp: object) -> None:
    assert only_message(body_of(text(timestamp=timestamp))).sent_at is None


@pytest.mark.parametrize(
    ("ahead", "kept"),
    [(timedelta(hours=23), True), (timedelta(hours=24), True), (timedelta(hours=24, seconds=1), False)],
)
def test_a_message_from_more_than_a_day_ahead_is_set_aside(ahead: timedelta, kept: bool) -> None:
    parsed = parse_webhook(body_of(text(timestamp=str(int((NOW + ahead).timestamp())))), now=NOW)

    assert bool(parsed.messages) is kept
    assert [q.reason for q in parsed.quarantined] == ([] if kept else ["time_a_day_ahead"])


@pytest.mark.parametrize(
    "timestamp",
    ["253402300800", 253402300800, 300000000000, "999999999999", 999999999999, "999999999999999", "inf", "1e400"],
)
def test_a_time_past_every_calendar_is_more_than_a_day_ahead(timestamp: object) -> None:
    parsed = parse_webhook(body_of(text(timestamp=timestamp)), now=NOW)

    assert parsed.messages == ()
    assert [q.reason for q in parsed.quarantined] == ["time_a_day_ahead"]


@pytest.mark.parametrize("wa_id", ["12025550117\n", "١٢٠٢٥٥٥٠", "１２０２５５５", "+", "1202"])
def test_a_phone_id_is_ascii_digits_and_nothing_else(wa_id: str) -> None:
    assert parse_webhook(body_of(text(**{"from": wa_id})), now=NOW).messages == ()


def test_a_user_id_ends_where_it_ends() -> None:
    message = only_message(body_of(text(from_user_id="US.1\n")))

    assert (message.sender_user_id, message.sender_wa_id) == (None, "12025550117")


def test_a_user_id_of_another_shape_is_none_and_the_phone_identifies() -> None:
    message = only_message(fixture("malformed_user_id_not_bsuid.json"))

    assert message.sender_user_id is None
    assert message.sender_wa_id


@pytest.mark.parametrize("body", [None, {}, {"body": None}, {"body": ["x"]}, "x", ["x"], {"body": {"body": "x"}}])
def test_a_text_without_a_body_is_a_message_without_content(body: object) -> None:
    message = only_message(body_of(text(text=body)))

    assert (message.message_type, message.content) == ("text", None)


def test_a_sender_is_found_among_contacts_whatever_their_order() -> None:
    people = [
        {"wa_id": "12025550118", "user_id": "US.2", "profile": {"name": "Ben"}},
        {"wa_id": "12025550117", "user_id": "US.1", "profile": {"name": "Ana", "username": "@ana"}},
    ]
    raw = body_of(
        text(from_user_id="US.1"), text(id="wamid.2", **{"from": "12025550118"}), text(id="wamid.3"), contacts=people
    )

    found = parse_webhook(raw, now=NOW).messages

    assert [(m.name, m.sender_user_id) for m in found] == [("Ana", "US.1"), ("Ben", "US.2"), ("Ana", "US.1")]
    assert found[0].username == "ana"


def test_a_contact_that_is_not_the_sender_lends_no_name() -> None:
    people = [{"wa_id": "12025550118", "profile": {"name": "Ben"}}]

    message = only_message(body_of(text(), contacts=people))

    assert (message.name, message.sender_wa_id) == (None, "12025550117")


def test_contacts_in_another_order_than_messages_keep_their_names() -> None:
    parsed = parse_webhook(fixture("text_contacts_order_mismatch.json"), now=NOW)
    value = json.loads(fixture("text_contacts_order_mismatch.json"))["entry"][0]["changes"][0]["value"]
    names = {c["user_id"]: c["profile"]["name"] for c in value["contacts"]}

    assert [m.name for m in parsed.messages] == [names[m["from_user_id"]] for m in value["messages"]]


def test_one_that_cannot_be_placed_costs_its_neighbours_nothing() -> None:
    bad: list[Any] = [None, 7, {}, {"id": ""}, {"id": "wamid.x"}, {"id": "x" * 600, "from": "12025550117"}]
    raw = body_of(text(), *bad, text(id="wamid.2"))

    parsed = parse_webhook(raw, now=NOW)

    assert [(m.wamid, m.item) for m in parsed.messages] == [("wamid.1", 0), ("wamid.2", 7)]
    assert parsed.quarantined == (
        Quarantined(1, "message_not_an_object"),
        Quarantined(2, "message_not_an_object"),
        Quarantined(3, "message_without_id"),
        Quarantined(4, "message_without_id"),
        Quarantined(5, "message_without_sender"),
        Quarantined(6, "message_without_id"),
    )


@pytest.mark.parametrize("phone_number_id", [None, "", [], {}, True])
def test_messages_for_no_number_are_each_set_aside(phone_number_id: object) -> None:
    parsed = parse_webhook(body_of(text(), text(id="wamid.2"), phone_number_id=phone_number_id), now=NOW)

    assert parsed.changes == ()
    assert [q.reason for q in parsed.quarantined] == ["no_phone_number_id"] * 2


def test_a_number_that_came_as_a_number_is_the_same_number() -> None:
    [change] = parse_webhook(body_of(text(), phone_number_id=402776318915527), now=NOW).changes

    assert change.phone_number_id == "402776318915527"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"object": "whatsapp_business_account", "entry": ' + b"["])
def test_json_too_deep_to_read_is_set_aside_whole(opening: bytes) -> None:
    assert parse_webhook(opening * 100_000, now=NOW) == ParsedBody(
        items=1, quarantined=(Quarantined(0, "not_json: RecursionError"),)
    )


@pytest.mark.parametrize("depth", range(100, 1000, 50))
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
def test_json_shallow_enough_to_read_and_too_deep_to_clean_raises_nothing(
    depth: int, opening: bytes, closing: bytes
) -> None:
    raw = body_of(text(deep="DEEP")).replace(b'"DEEP"', opening * depth + b"1" + closing * depth)

    parsed = parse_webhook(raw, now=NOW)

    assert len(parsed.messages) + len(parsed.quarantined) == parsed.items == 1


def test_an_integer_too_long_to_read_sets_its_body_aside() -> None:
    raw = body_of(text()).replace(b'"1763802000"', b"9" * 5000)

    assert [q.reason for q in parse_webhook(raw, now=NOW).quarantined] == ["not_json: ValueError"]


def test_a_giant_integer_is_kept_as_it_came() -> None:
    message = only_message(body_of(text(timestamp=int("9" * 4000), future=10**4000)))

    assert message.sent_at is None
    assert message.payload["future"] == 10**4000


def test_parsing_leaves_nothing_shared_between_a_message_and_its_change() -> None:
    parsed = parse_webhook(body_of(text()), now=NOW)
    before = copy.deepcopy(parsed.changes[0].payload)

    parsed.messages[0].payload["text"]["body"] = "changed"

    assert parsed.changes[0].payload == before
