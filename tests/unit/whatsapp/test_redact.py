"""An erased person's items go out of a body; everything else in it stays as it was."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.whatsapp.parse import parse_webhook
from shared.whatsapp.redact import Erased, redact_body, redact_change
from tests import meta_events as meta
from tests.meta_events import NUMBER_A, NUMBER_B, Item, Who
from tests.world import PHONE_A, WABA_A

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ANA = Who("US.1001", "12025550117")
BOB = Who("US.1002", "12025550118")
SCOPE: dict[str, Any] = {"numbers": frozenset({PHONE_A}), "accounts": frozenset({WABA_A})}
WORDS = {"name": "Ana Souza"}
OTHERS = {"name": "Bob"}


def ana(*wamids: str, until: datetime = NOW, **more: Any) -> Erased:
    ids = {"US.1001": until, "12025550117": until, "US.ENT.77": until}
    return Erased(ids=ids, wamids=frozenset(wamids), **more)


def without(raw: bytes, erased: Erased | None = None) -> Any:
    """What is left of a body, decoded; '' for nothing, None when nothing was of theirs."""
    redacted = redact_body(raw, erased or ana(), received_at=NOW, **SCOPE)
    return None if redacted is None else json.loads(redacted.raw) if redacted.raw else ""


def about_ana(at: datetime = NOW) -> dict[str, Item]:
    """One item of every kind that is hers."""
    return {
        "text": meta.text("a1", ANA, at, "hello", profile=WORDS),
        "text by phone": meta.text("a2", Who(None, "12025550117"), at, "hello", profile=WORDS),
        "text by user id": meta.text("a3", Who("US.1001", None), at, "hello", profile=WORDS),
        "in a group": meta.text("a4", ANA, at, "hello", profile=WORDS, group_id="G1"),
        "reaction": meta.reaction("a5", ANA, at, "ours", "👍", profile=WORDS),
        "edit": meta.edit("a6", ANA, at, "x", {"type": "text", "text": {"body": "hi"}}),
        "revoke": meta.revoke("a7", ANA, at, "x"),
        "status": meta.status("ours", ANA, at, "read", profile=WORDS),
        "echo": meta.echo("a8", ANA, at, {"type": "text", "text": {"body": "hi"}}),
        "history": meta.history("a9", ANA, at, {"type": "text", "text": {"body": "hi"}}),
        "history of ours": meta.history("a10", ANA, at, {"type": "text", "text": {"body": "hi"}}, outbound=True),
        "media of history": meta.history_media("a11", at, "m1", sender="12025550117"),
        "call": meta.call("a12", ANA, at),
        "call of ours": meta.call("a13", ANA, at, by_customer=False),
        "preference": meta.preference(ANA, at, "stop"),
        "new number": meta.user_changed_number(
            "a14", at, old_wa_id="12025550117", wa_id="12025550999", user_id="US.2001", previous_user_id="US.1001"
        ),
        "new user id": meta.user_changed_user_id("a15", at, user_id="US.2001", previous_user_id="US.1001"),
    }


def about_bob() -> list[Item]:
    return [
        meta.text("b1", BOB, NOW, "12025550117 is Ana Souza's number", profile=OTHERS),
        meta.reaction("b2", BOB, NOW, "ours", "👍", profile=OTHERS),
        meta.status("b3", BOB, NOW, "delivered", profile=OTHERS),
        meta.echo("b4", BOB, NOW, {"type": "text", "text": {"body": "\x00 \ud800 é"}}),
        meta.history("b5", BOB, NOW, {"type": "text", "text": {"body": "hi"}}),
        meta.call("b6", BOB, NOW),
        meta.preference(BOB, NOW, "resume"),
    ]


def events(raw: bytes) -> list[Any]:
    """What a recorder makes of a body, wherever in it an item stands."""
    parsed = parse_webhook(raw, now=NOW)
    assert not parsed.quarantined
    return sorted(repr(e).replace(f"change={e.change}, item={e.item}, ", "") for e in parsed.events)


@pytest.mark.parametrize("kind", about_ana())
def test_an_item_of_theirs_goes_with_its_body_if_it_was_alone(kind: str) -> None:
    assert without(meta.body(about_ana()[kind])) == ""


@pytest.mark.parametrize("kind", about_ana())
def test_what_stands_beside_others_goes_and_they_stay_as_they_were(kind: str) -> None:
    bobs = about_bob()
    raw = meta.body(*bobs[:3], about_ana()[kind], *bobs[3:])

    redacted = redact_body(raw, ana(), received_at=NOW, **SCOPE)

    assert redacted is not None
    assert events(redacted.raw) == events(meta.body(*bobs))
    text = redacted.raw.decode("ascii")
    assert "US.1001" not in text
    assert text.count("12025550117") == 1  # in Bob's own words
    assert "Ana Souza" not in text.replace("Ana Souza's number", "")


@pytest.mark.parametrize("kind", about_ana())
def test_what_they_send_after_the_erasure_stays(kind: str) -> None:
    assert without(meta.body(about_ana(NOW + timedelta(seconds=1))[kind])) is None


@pytest.mark.parametrize("item", about_bob())
def test_a_body_of_others_is_not_touched(item: Item) -> None:
    assert without(meta.body(item)) is None


@given(seed=st.integers(0, 10_000))
def test_however_items_are_packed_the_same_is_left(seed: int) -> None:
    random = Random(seed)
    items = [*about_ana().values(), *about_bob()]
    random.shuffle(items)
    raw = meta.body(*items, spread=random)

    redacted = redact_body(raw, ana(), received_at=NOW, **SCOPE)

    assert redacted is not None
    assert events(redacted.raw) == events(meta.body(*about_bob()))
    before, after = parse_webhook(raw, now=NOW), parse_webhook(redacted.raw, now=NOW)
    left = [event for event in before.events if event.item not in redacted.dropped]
    assert [type(e) for e in left] == [type(e) for e in after.events]  # places are counted as the parser counts them
    assert redact_body(redacted.raw, ana(), received_at=NOW, **SCOPE) is None


def test_an_answer_to_their_message_stays_without_what_it_quotes() -> None:
    answer = meta.text("b1", BOB, NOW, "I agree", profile=OTHERS, group_id="G1", reply_to="a1")
    answer.element["context"]["from"] = "12025550117"

    (message,) = without(meta.body(answer), ana("a1"))["entry"][0]["changes"][0]["value"]["messages"]

    assert message == {key: part for key, part in answer.element.items() if key != "context"}


def test_what_others_did_to_their_message_goes_whenever_it_was() -> None:
    late = NOW + timedelta(days=1)
    raw = meta.body(
        meta.reaction("b1", BOB, late, "a1", "👍", profile=OTHERS), meta.status("a1", Who(None, None), late, "read")
    )

    assert without(raw, ana("a1")) == ""


def test_their_phone_number_beside_somebody_elses_user_id_is_somebody_elses() -> None:
    successor = Who("US.3003", "12025550117")
    raw = meta.body(meta.text("b1", successor, NOW, "new owner", profile=OTHERS))

    assert without(raw, ana(others=frozenset({"US.3003"}))) is None
    assert without(raw, ana()) == ""  # whose user id nobody knows: the number is all there is to go by


def test_the_person_may_be_another_workspaces_customer_too() -> None:
    theirs, ours = (meta.text(f"a{n.waba_id}", ANA, NOW, "hi", number=n, profile=WORDS) for n in (NUMBER_B, NUMBER_A))

    assert without(meta.body(theirs)) is None
    assert without(meta.body(theirs, ours)) == json.loads(meta.body(theirs))


def test_an_item_that_names_nobody_is_the_only_contacts() -> None:
    item = meta.text("a1", ANA, NOW, "hi", profile=WORDS)
    del item.element["from"], item.element["from_user_id"]
    other = meta.text("b1", BOB, NOW, "hi", profile=OTHERS)
    nameless = meta.text("c1", BOB, NOW, "whose?", profile=WORDS)
    del nameless.element["from"], nameless.element["from_user_id"]
    nameless.contact.update(wa_id=ANA.wa_id, user_id=ANA.user_id)  # type: ignore[union-attr]

    left = without(meta.body(other, nameless))

    assert without(meta.body(item)) == ""
    value = left["entry"][0]["changes"][0]["value"]
    assert [m["id"] for m in value["messages"]] == ["b1", "c1"]  # between two contacts it is nobody's
    assert value["contacts"] == [other.contact, {}]  # so it must not become the other's
    assert [q.reason for q in parse_webhook(json.dumps(left).encode(), now=NOW).quarantined] == [
        "message_without_sender"
    ]


@pytest.mark.parametrize(
    "raw", [b'{"broken": "12025550117', b"\xff\xfe US.1001", b'{"object":"page","entry":[{"from":"12025550117"}]}']
)
def test_what_cannot_be_read_goes_whole(raw: bytes) -> None:
    redacted = redact_body(raw, ana(), received_at=NOW, **SCOPE)

    assert redacted is not None
    assert (redacted.raw, redacted.dropped) == (b"", (0,))


@pytest.mark.parametrize("raw", [b"", b"not json", b'{"object":"page"}', b"[" * 100_000])
def test_what_cannot_be_read_and_does_not_name_them_stays(raw: bytes) -> None:
    assert redact_body(raw, ana(), received_at=NOW, **SCOPE) is None


def test_members_of_a_group_are_taken_off_its_lists() -> None:
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"phone_number_id": PHONE_A},
        "groups": [
            {
                "group_id": "G1",
                "type": "group_participants_add",
                "added_participants": [{"wa_id": "12025550117", "user_id": "US.1001"}, {"wa_id": "12025550118"}],
            }
        ],
    }

    left = redact_change("group_participants_update", value, ana(), received_at=NOW)

    assert left is not None
    assert left["groups"][0]["added_participants"] == [{"wa_id": "12025550118"}]
    assert value["groups"][0]["added_participants"][0]["wa_id"] == "12025550117"  # type: ignore[index]  not in place


def test_a_status_of_a_message_nobody_had_says_its_id() -> None:
    raw = meta.body(meta.status("m1", ANA, NOW, "read"), meta.status("m2", BOB, NOW, "read"))

    redacted = redact_body(raw, ana(), received_at=NOW, **SCOPE)

    assert redacted is not None
    assert redacted.wamids == {(PHONE_A, "m1")}


def test_every_fixture_comes_through_unchanged_when_nobody_of_it_is_meant(fixtures_dir: Any) -> None:
    nobody = Erased(ids={"ZZ.9": NOW, "99999000000000": NOW}, wamids=frozenset({"wamid.none"}))
    for path in sorted((fixtures_dir / "webhooks").rglob("*.json")):
        raw = path.read_bytes()
        assert redact_body(raw, nobody, received_at=NOW, **SCOPE) is None, path.name


def test_of_no_fixture_is_anything_left_that_a_recorder_would_take_for_theirs(fixtures_dir: Any) -> None:
    tried = 0
    for path in sorted((fixtures_dir / "webhooks").rglob("*.json")):
        raw = path.read_bytes()
        parsed = parse_webhook(raw, now=NOW)
        numbers = frozenset(c.phone_number_id for c in parsed.changes if c.phone_number_id)
        accounts = frozenset(c.waba_id for c in parsed.changes if c.waba_id)
        people = {event.person for event in parsed.events if getattr(event, "person", None)}
        for person in people:
            ids = {i for i in (person.user_id, person.wa_id) if i}
            erased = Erased(ids=dict.fromkeys(ids, datetime.max.replace(tzinfo=UTC)), wamids=frozenset())
            redacted = redact_body(raw, erased, received_at=NOW, numbers=numbers, accounts=accounts)
            assert redacted is not None, path.name
            left = parse_webhook(redacted.raw, now=NOW) if redacted.raw else None
            for event in left.events if left else ():
                who = getattr(event, "person", None)
                assert who is None or ids.isdisjoint({who.user_id, who.wa_id}), (path.name, event)
            tried += 1

    assert tried > 100
