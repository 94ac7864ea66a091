"""Parsing is total: whatever bytes arrive, every item comes out as exactly one thing, and nothing is raised."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.whatsapp.events import (
    MESSAGE_TYPES,
    AccountEvent,
    Call,
    ContactFact,
    Edit,
    Event,
    IdentityChange,
    Kept,
    Message,
    ParsedBody,
    Person,
    Quarantined,
    Reaction,
    Revoke,
    Status,
)
from shared.whatsapp.parse import parse_webhook
from tests.unit.whatsapp.bodies import LATER, MANIFEST, NOW, WEBHOOKS, body_of, fixture, only, read, reasons, text


def strings(value: Any) -> Iterator[str]:
    """Every string in a value, keys included, however the value is made."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield key
            yield from strings(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from strings(child)
    elif dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            yield from strings(getattr(value, part.name))


def assert_accounted_for(parsed: ParsedBody) -> None:
    """Every item once, everything storable, every index inside, every id of its shape."""
    places = [event.item for event in parsed.events] + [quarantined.item for quarantined in parsed.quarantined]
    assert sorted(places) == list(range(parsed.items))
    assert parsed.items >= 1
    everything = "".join(strings(parsed))
    assert "\x00" not in everything
    everything.encode("utf-8")
    for change in parsed.changes:
        assert change.event_type
        json.dumps(change.payload, allow_nan=False)
    for event in parsed.events:
        assert 0 <= event.change < len(parsed.changes)
        assert event.sent_at is None or event.sent_at.tzinfo is UTC
        assert_whole(event)


def assert_whole(event: Event) -> None:
    person = getattr(event, "person", None)
    if person is not None:
        assert person.user_id or person.wa_id
        assert re.fullmatch(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}", person.user_id or "US.1")
        assert re.fullmatch(r"[0-9]{5,20}", person.wa_id or "12345")
    assert 0 < len(getattr(event, "wamid", "x")) <= 512
    assert 0 < len(getattr(event, "target_wamid", "x")) <= 512
    if isinstance(event, Message):
        assert event.message_type in MESSAGE_TYPES
        assert event.content is None or 0 < len(event.content) <= 65_536
        assert event.person or event.direction == "outbound"
        assert event.status is None or (event.direction, event.origin) == ("outbound", "history")
    elif isinstance(event, Status):
        assert event.status == event.status.lower() != ""
    elif isinstance(event, Kept):
        assert event.kind


# --- any bytes, any JSON ----------------------------------------------------------------------------------------------

KEYS = [
    *("object", "entry", "id", "changes", "field", "value", "metadata", "phone_number_id", "contacts", "messages"),
    *("statuses", "message_echoes", "errors", "history", "threads", "calls", "user_preferences", "state_sync"),
    *("from", "from_user_id", "wa_id", "user_id", "profile", "name", "username", "timestamp", "type", "text", "body"),
    *("context", "group_id", "user_actions", "system", "edit", "message", "original_message_id", "a\x00", "a\ud800"),
]
TEXTS = [
    *("whatsapp_business_account", "messages", "standby", "history", "text", "reaction", "image", "wamid.1", ""),
    *("US.1001", "12025550117", "+12025550117", "402776318915527", "1763802000", "1763802000000", "-1", "NaN", "inf"),
    *("9" * 400, "\x00", "\ud83d", "a\x00b\udc00", "@ana", "٣٣٣٣٣٣", "1_000", "\\u0000", "\\\ud83d", "😀"),
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


@st.composite
def mostly(draw: st.DrawFn, usual: st.SearchStrategy[Any]) -> Any:
    """What Meta documents, and now and then something else in its place."""
    return draw(usual if draw(st.integers(0, 15)) else anything)


def shaped(usual: dict[str, Any], **optional: Any) -> st.SearchStrategy[Any]:
    """Meta's object: keys it mostly has, and keys it may have."""
    return st.fixed_dictionaries(
        {name: mostly(part) for name, part in usual.items()},
        optional={name: mostly(part) for name, part in optional.items() if name not in usual},
    )


def listed(item: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return mostly(st.lists(mostly(item), max_size=3))


texts = st.sampled_from(TEXTS)
ids = st.sampled_from(["wamid.1", "wamid.2", "wacid.1", "x" * 600, "\x00"])
phones = st.sampled_from(["12025550117", "12025550118", "+12025550143", "nobody"])
user_ids = st.sampled_from(["US.1", "US.2", "US.ENT.3", "nobody"])
times = st.sampled_from(["1763802000", 1763802000000, "4000000000", "yesterday"])
sentences = st.sampled_from(["User A changed from US.1 to US.2", "A changed from 12025550117 to 12025550118", ""])
errors = listed(shaped({"code": st.sampled_from([131026, "131026", 10**30]), "title": texts}))

person = {"user_id": user_ids, "wa_id": phones}
contacts = shaped({}, **person, parent_user_id=user_ids, profile=shaped({}, name=texts, username=texts))
contents: dict[str, Any] = {
    "text": shaped({"body": texts}),
    "image": shaped({"id": ids}, caption=texts, sha256=texts, mime_type=texts),
    "voice": shaped({"id": ids}),
    "location": shaped({}, name=texts, latitude=st.floats(-90, 90), longitude=st.floats(-180, 180)),
    "contacts": listed(shaped({}, name=shaped({"formatted_name": texts}), phones=listed(shaped({"phone": texts})))),
    "interactive": shaped({"type": st.just("list_reply"), "list_reply": shaped({"title": texts}, description=texts)}),
    "order": shaped({}, text=texts, product_items=listed(shaped({}))),
    "reaction": shaped({"message_id": ids}, emoji=texts),
    "revoke": shaped({"original_message_id": ids}),
    "edit": shaped({"original_message_id": ids, "message": shaped({"type": st.just("text")}, text=anything)}),
    "system": shaped(
        {"type": st.sampled_from(["user_changed_number", "user_changed_user_id", "customer_identity_changed"])},
        **person,
        body=sentences,
        previous_user_id=user_ids,
    ),
    "request_welcome": texts,
    "future": texts,
}


def message_of(kind: str) -> st.SearchStrategy[Any]:
    either = {f"{side}{key}": part for side in ("from", "to") for key, part in (("", phones), ("_user_id", user_ids))}
    usual = {"id": ids, "timestamp": times, "type": st.just(kind), kind: contents[kind]}
    context, status = shaped({}, id=ids), shaped({"status": st.sampled_from(["READ", "ERROR", "?"])})
    more = {"group_id": texts, "context": context, "history_context": status, "identity": shaped({"hash": texts})}
    return shaped(usual, **either, **more)


messages = st.sampled_from(sorted(contents)).flatmap(message_of)
statuses = shaped(
    {"id": ids, "status": st.sampled_from(["sent", "READ", "?"]), "timestamp": times, "recipient_id": phones},
    recipient_user_id=user_ids,
    recipient_type=st.just("group"),
    recipient_participant_id=phones,
    biz_opaque_callback_data=texts,
    errors=errors,
)
calls = shaped(
    {"id": ids, "event": texts, "direction": st.sampled_from(["USER_INITIATED", "BUSINESS_INITIATED"])},
    **{"from": phones, "to": phones, "timestamp": times},
)
preferences = shaped({"category": st.just("marketing_messages"), "value": texts}, **person, timestamp=times)
saved = {"phone_number": phones, "user_id": user_ids, "full_name": texts}
state_sync = shaped(
    {"type": st.just("contact"), "action": st.sampled_from(["add", "remove"]), "contact": shaped({}, **saved)}
)
threads = shaped({"messages": listed(messages)}, id=phones, context=contacts)
numbers = st.just({"phone_number_id": "402776318915527", "display_phone_number": "+1 202 555 0143"})

# What a field is about, beside whatever else may stand in a change.
OF_FIELD: dict[str, dict[str, Any]] = {
    "messages": {"messages": listed(messages), "statuses": listed(statuses)},
    "smb_message_echoes": {"message_echoes": listed(messages)},
    "history": {"history": listed(shaped({"threads": listed(threads)}, errors=errors))},
    "user_preferences": {"user_preferences": listed(preferences)},
    "smb_app_state_sync": {"state_sync": listed(state_sync)},
    "calls": {"calls": listed(calls), "statuses": listed(statuses)},
    "account_update": {"event": texts, "waba_info": shaped({"waba_id": texts})},
    "group_status_update": {"groups": listed(shaped({"type": texts, "timestamp": times}))},
    "standby": {"standby": anything},
    "future": {},
}


def change_of(field: str) -> st.SearchStrategy[Any]:
    more = {"messages": listed(messages), "errors": errors, "user_actions": anything}
    value = shaped({"metadata": numbers, "contacts": listed(contacts)} | OF_FIELD[field], **more)
    return shaped({"field": st.just(field), "value": value})


changes = st.sampled_from(sorted(OF_FIELD)).flatmap(change_of)
entries = shaped({"id": texts, "changes": listed(changes)}, time=times)
bodies = st.fixed_dictionaries({"object": st.just("whatsapp_business_account"), "entry": listed(entries)})


@given(raw=st.binary(max_size=200))
@example(raw=b"")
@example(raw=b"\xff\xfe")
@example(raw=b"\xef\xbb\xbf{}")
@example(raw=b"null")
@example(raw=b'{"object": "whatsapp_business_account", "entry": NaN}')
@example(raw=b'{"object": "whatsapp_business_account", "entry": [1e999]}')
def test_any_bytes_are_one_item_at_least(raw: bytes) -> None:
    assert_accounted_for(parse_webhook(raw, now=NOW))


@settings(max_examples=200)
@given(body=anything)
def test_any_json_is_accounted_for(body: Any) -> None:
    assert_accounted_for(parse_webhook(json.dumps(body).encode(), now=NOW))


@settings(max_examples=70, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies)
def test_anything_in_metas_shape_is_accounted_for_and_always_means_the_same(body: Any) -> None:
    raw = json.dumps(body).encode()

    parsed = parse_webhook(raw, now=NOW)

    assert_accounted_for(parsed)
    assert parse_webhook(raw, now=NOW) == parsed


# --- the fixtures -----------------------------------------------------------------------------------------------------

FIXTURES = [json.loads(fixture(about["file"])) for about in MANIFEST["fixtures"] if about["valid"]]
GOOD = [body for body in FIXTURES if "object" in body and len(str(body)) < 20_000]
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    10**300,
    1.5,
    "",
    "x",
    "US.1",
    "9" * 400,
    "\x00",
    "\ud800",
    [],
    [None],
    {},
    {"a": 1},
]


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place a value can be taken from: (what holds it, under which key or index)."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places_in(value[key])


def damage(body: Any, chance: random.Random) -> None:
    """Delete, replace or double something anywhere inside."""
    for _ in range(chance.randint(1, 4)):
        places = list(places_in(body))
        if not places:
            break
        holder, key = chance.choice(places)
        match chance.randrange(4):
            case 0:
                del holder[key]
            case 1:
                holder[key] = chance.choice(ODD)
            case 2:
                holder[key] = [holder[key], holder[key]]
            case _:
                twin, there = chance.choice(places)
                holder[key] = copy.deepcopy(twin[there])


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_fixture_is_accounted_for(seed: int) -> None:
    chance = random.Random(seed)

    for good in GOOD:
        body = copy.deepcopy(good)
        damage(body["entry"][0]["changes"][0]["value"] if seed % 3 else body, chance)
        assert_accounted_for(parse_webhook(json.dumps(body).encode(), now=LATER))


OUR_NAMES = {"voice": "audio", "spatial_note": "unknown", "mood_ring": "unknown"}


def meta_type(event: Event) -> str | None:
    """What an event of field `messages` was called, in the manifest's words; None: no message."""
    match event:
        case Message():
            return event.message_type
        case Reaction() | Edit() | Revoke():
            return type(event).__name__.lower()
        case IdentityChange() | ContactFact():
            return "system"
        case Kept(kind="request_welcome" | "system"):
            return event.kind
        case _:
            return None


@pytest.mark.parametrize("about", MANIFEST["fixtures"], ids=lambda about: about["file"])
def test_every_fixture_holds_what_its_manifest_says(about: dict[str, Any]) -> None:
    parsed = parse_webhook(fixture(about["file"]), now=LATER)

    assert_accounted_for(parsed)
    assert parsed.items == about["items"]
    live = [event for event in parsed.events if parsed.changes[event.change].event_type == "messages"]
    sent = [(meta_type(event), getattr(event, "wamid", None)) for event in live if meta_type(event)]
    statuses = [event for event in live if isinstance(event, Status)]
    assert len(sent) == about["expected_inbound_messages"]
    assert len(set(sent)) == about["distinct_inbound_messages"]
    assert {kind for kind, _ in sent} == {OUR_NAMES.get(kind, kind) for kind in about["message_types"]}
    assert len(statuses) == about["expected_statuses"]
    assert len({(s.wamid, s.status, s.participant) for s in statuses}) == about["distinct_statuses"]
    assert {s.status for s in statuses} == set(about["status_values"])
    if about["valid"]:
        assert parsed.quarantined == () or about["file"] == "account_update_misplaced_field_keys.json"
        assert {c.event_type for c in parsed.changes} == set(about["fields"])
        assert {c.phone_number_id for c in parsed.changes} - {None} == set(about["phone_number_ids"])
    if not about["parses_as_json"]:
        assert parsed == ParsedBody(items=1, quarantined=parsed.quarantined)


def test_the_fixtures_together_hold_every_kind_of_event() -> None:
    everything = [parse_webhook(fixture(about["file"]), now=LATER) for about in MANIFEST["fixtures"]]

    kinds = Counter(type(event) for parsed in everything for event in parsed.events)

    told = {Message, Status, Reaction, Edit, Revoke, IdentityChange, ContactFact, Call, AccountEvent, Kept}
    assert set(kinds) == told
    used = {event.message_type for parsed in everything for event in parsed.events if isinstance(event, Message)}
    assert used == MESSAGE_TYPES - {"template"}


def test_no_fixture_was_forgotten_by_the_manifest() -> None:
    on_disk = {p.relative_to(WEBHOOKS).as_posix() for p in WEBHOOKS.rglob("*") if p.is_file()} - {"MANIFEST.json"}

    assert {about["file"] for about in MANIFEST["fixtures"]} == on_disk


# --- what cannot be stored --------------------------------------------------------------------------------------------


def only_message(raw: bytes) -> Message:
    event = only(parse_webhook(raw, now=NOW if b"wamid.1" in raw else LATER))
    assert isinstance(event, Message)
    return event


@pytest.mark.parametrize("name", ["text_null_char.json", "text_lone_surrogate.json"])
def test_what_postgres_refuses_is_replaced_and_the_message_kept(name: str) -> None:
    message = only_message(fixture(name))

    assert message.content is not None
    assert "\ufffd" in message.content
    assert message.payload["text"]["body"] == message.content


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        (rb"a\u0000b", "a\ufffdb"),
        (rb"\ud83d", "\ufffd"),
        (rb"\uD83D", "\ufffd"),
        (rb"\uDe00\ud83d", "\ufffd\ufffd"),
        (rb"\ud83d\ude00", "😀"),
        (rb"\uD83D\uDE00", "😀"),
        ("😀".encode(), "😀"),
        (rb"\\u0000", "\\u0000"),
        (rb"\\ud83d", "\\ud83d"),
        (rb"\\\u0000", "\\\ufffd"),
        (rb"\\ud83d\ude00", "\\ud83d\ufffd"),
        (b"\xed\xa0\xbd", "\ufffd"),  # a surrogate as bytes: json.loads takes it
        (rb"\uac00\ud55c", "가한"),
    ],
)
def test_a_text_is_read_as_written_but_for_what_cannot_be_stored(written: bytes, read_as: str) -> None:
    message = only_message(
        body_of({"metadata": {"phone_number_id": "1"}, "messages": [text()]}).replace(b"Hi", written)
    )

    assert message.content == read_as
    assert message.payload["text"]["body"] == read_as


@settings(max_examples=200)
@given(body=st.text(st.characters() | st.sampled_from("\x00\ud83d\ude00\\u0d8é"), min_size=1, max_size=8))
def test_any_text_keeps_every_character_that_can_be_stored(body: str) -> None:
    pairs_joined = json.loads(json.dumps(body))
    expected = re.sub("[\x00\ud800-\udfff]", "\ufffd", pairs_joined)
    raw = body_of({"metadata": {"phone_number_id": "1"}, "messages": [text(text={"body": body})]})

    assert only_message(raw).content == expected
    assert (
        only_message(json.dumps(json.loads(raw), ensure_ascii=False).encode("utf-8", "surrogatepass")).content
        == expected
    )


def test_a_body_in_utf_16_is_read_like_any_other() -> None:
    raw = body_of({"metadata": {"phone_number_id": "1"}, "messages": [text(text={"body": "é"})]})

    event = only(parse_webhook(raw.decode().encode("utf-16"), now=NOW))

    assert isinstance(event, Message)
    assert event.content == "é"


def test_keys_are_cleaned_and_of_two_that_become_equal_the_last_wins() -> None:
    message = only_message(
        body_of({"metadata": {"phone_number_id": "1"}, "messages": [text(**{"a\x00": 1, "a\ud800": 2})]})
    )

    assert message.payload["a\ufffd"] == 2


# --- times ------------------------------------------------------------------------------------------------------------


def sent_at(timestamp: object) -> datetime | None:
    event = only(read({"messages": [text() | {"timestamp": timestamp}]}))
    assert isinstance(event, Message)
    return event.sent_at


@pytest.mark.parametrize(
    "timestamp",
    ["1763802000", 1763802000, 1763802000.0, "1763802000000", 1763802000000, "1763802000.0"],
)
def test_times_come_as_text_or_number_in_seconds_or_milliseconds(timestamp: object) -> None:
    assert sent_at(timestamp) == datetime.fromtimestamp(1763802000, UTC)


@pytest.mark.parametrize("timestamp", [None, "", "yesterday", True, [], {}, 0, -1, "-5", "nan", 10**400])
def test_a_time_nobody_can_read_does_not_cost_the_message(timestamp: object) -> None:
    assert sent_at(timestamp) is None


@pytest.mark.parametrize(
    ("ahead", "kept"),
    [(timedelta(hours=23), True), (timedelta(hours=24), True), (timedelta(hours=24, seconds=1), False)],
)
def test_a_message_from_more_than_a_day_ahead_is_set_aside(ahead: timedelta, kept: bool) -> None:
    parsed = read({"messages": [text(timestamp=str(int((NOW + ahead).timestamp())))]})

    assert bool(parsed.events) is kept
    assert reasons(parsed) == ([] if kept else ["time_a_day_ahead"])


@pytest.mark.parametrize(
    "timestamp",
    ["253402300800", 253402300800, 300000000000, "999999999999", 999999999999, "999999999999999", "inf", "1e400"],
)
def test_a_time_past_every_calendar_is_more_than_a_day_ahead(timestamp: object) -> None:
    assert reasons(read({"messages": [text(timestamp=timestamp)]})) == ["time_a_day_ahead"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("reaction", {"message_id": "wamid.0"}),
        ("revoke", {"original_message_id": "wamid.0"}),
        ("edit", {"original_message_id": "wamid.0", "message": {}}),
        ("system", {"type": "user_changed_number", "wa_id": "12025550199"}),
    ],
)
def test_whatever_has_an_effect_is_set_aside_when_a_day_ahead(kind: str, said: dict[str, Any]) -> None:
    sent = text(type=kind, **{kind: said})

    assert len(read({"messages": [sent]}).events) == 1
    assert reasons(read({"messages": [sent | {"timestamp": "4000000000"}]})) == ["time_a_day_ahead"]


def test_what_has_no_effect_may_be_of_any_time() -> None:
    assert isinstance(only(read({"messages": [text(type="request_welcome", timestamp="4000000000")]})), Kept)


# --- the envelope -----------------------------------------------------------------------------------------------------


def test_one_that_cannot_be_placed_costs_its_neighbours_nothing() -> None:
    bad: list[Any] = [None, 7, {}, {"id": ""}, {"id": "wamid.x"}, {"id": "x" * 600, "from": "12025550117"}]

    parsed = read({"messages": [text(), *bad, text(id="wamid.2")]})

    assert [(m.wamid, m.item) for m in parsed.events if isinstance(m, Message)] == [("wamid.1", 0), ("wamid.2", 7)]
    assert parsed.quarantined == (
        Quarantined(1, "message_not_an_object"),
        Quarantined(2, "message_not_an_object"),
        Quarantined(3, "message_without_id"),
        Quarantined(4, "message_without_id"),
        Quarantined(5, "message_without_sender"),
        Quarantined(6, "message_without_id"),
    )


@pytest.mark.parametrize("field", ["messages", "smb_message_echoes", "history", "calls", "user_preferences"])
@pytest.mark.parametrize("phone_number_id", [None, "", [], {}, True, "x" * 600])
def test_what_is_said_in_chats_of_no_number_is_each_set_aside(field: str, phone_number_id: object) -> None:
    value = {"metadata": {"phone_number_id": phone_number_id}, "messages": [text(), text(id="wamid.2")]}

    parsed = parse_webhook(body_of(value, field=field), now=NOW)

    assert parsed.changes == ()
    assert reasons(parsed) == ["no_phone_number_id"] * 2


def test_a_number_that_came_as_a_number_is_the_same_number() -> None:
    value = {"metadata": {"phone_number_id": 402776318915527}, "messages": [text()]}

    [change] = parse_webhook(body_of(value), now=NOW).changes

    assert (change.phone_number_id, change.waba_id) == ("402776318915527", "1")


@pytest.mark.parametrize("field", [None, "", [], True, "x" * 600])
def test_a_change_of_no_field_is_set_aside_item_by_item(field: object) -> None:
    parsed = parse_webhook(body_of({"messages": [1, 2], "statuses": {}}, field=field), now=NOW)

    assert reasons(parsed) == ["no_field"] * 3


def test_items_are_numbered_through_the_body_and_belong_to_their_change() -> None:
    held = {
        "metadata": {"phone_number_id": "1"},
        "messages": [text()],
        "statuses": [{"id": "wamid.2", "status": "read"}],
    }
    change = {"field": "messages", "value": held}
    entry = {"changes": [change, None, {"field": "future", "value": {}}]}
    raw = json.dumps({"object": "whatsapp_business_account", "entry": [entry, 7, {"changes": [change]}]}).encode()

    parsed = parse_webhook(raw, now=NOW)

    assert [(event.change, event.item, type(event)) for event in parsed.events] == [
        *((0, 0, Message), (0, 1, Status), (1, 3, Kept), (2, 5, Message), (2, 6, Status)),
    ]
    assert parsed.quarantined == (Quarantined(2, "change_not_an_object"), Quarantined(4, "no_changes"))


def test_lists_that_belong_to_another_field_are_kept() -> None:
    parsed = read({"messages": [text()], "calls": [{}], "state_sync": {}})

    assert [type(event) for event in parsed.events] == [Message, Kept]
    assert parsed.events[1] == Kept(0, 1, "calls", None)
    assert reasons(parsed) == ["state_sync_not_a_list"]


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"object": "whatsapp_business_account", "entry": ' + b"["])
def test_json_too_deep_to_read_is_set_aside_whole(opening: bytes) -> None:
    assert parse_webhook(opening * 100_000, now=NOW) == ParsedBody(
        items=1, quarantined=(Quarantined(0, "not_json: RecursionError"),)
    )


@pytest.mark.parametrize("depth", [*range(100, 900, 100), 192, 193])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"\\u0000":', b"}")], ids=["lists", "objects"])
def test_json_deeper_than_any_reader_of_ours_can_follow_is_set_aside(
    depth: int, opening: bytes, closing: bytes
) -> None:
    raw = body_of({"metadata": {"phone_number_id": "1"}, "messages": [text(deep="DEEP")]})
    raw = raw.replace(b'"DEEP"', opening * depth + b"1" + closing * depth)

    parsed = parse_webhook(raw, now=NOW)

    # object > entry > [] > changes > [] > value > messages > []: eight levels above.
    assert reasons(parsed) == ([] if depth <= 192 else ["nested_too_deep"])
    assert_accounted_for(parsed)


def test_an_integer_too_long_to_read_sets_its_body_aside() -> None:
    raw = body_of({"messages": [text()]}).replace(b'"1763802000"', b"9" * 5000)

    assert reasons(parse_webhook(raw, now=NOW)) == ["not_json: ValueError"]


def test_a_giant_integer_is_kept_as_it_came() -> None:
    event = only(read({"messages": [text(timestamp=int("9" * 4000), future=10**4000)]}))

    assert isinstance(event, Message)
    assert event.sent_at is None
    assert event.payload["future"] == 10**4000


def test_a_thousand_people_in_one_change_each_keep_their_name() -> None:
    people = [{"wa_id": f"1202555{n:04}", "user_id": f"US.{n}", "profile": {"name": f"N{n}"}} for n in range(1000)]
    sent = [text(id=f"wamid.{n}", **{"from": f"1202555{n:04}"}) for n in reversed(range(1000))]

    events = read({"contacts": people, "messages": sent}).events

    assert [event.person for event in events if isinstance(event, Message)] == [
        Person(f"US.{n}", f"1202555{n:04}", name=f"N{n}") for n in reversed(range(1000))
    ]
