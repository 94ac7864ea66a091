"""What became of messages and calls of ours: each fixture's whole event, then what Meta may do differently."""

from __future__ import annotations

from typing import Any

import pytest

from shared.whatsapp.events import Call, Direction, Event, Kept, Person, Status
from tests.unit.whatsapp.bodies import COLE, MAREN, TOMAS, at, only, parsed, read, reasons, value_of

PMP = {"billable": True, "pricing_model": "PMP", "type": "regular", "category": "utility"}
JUNO = Person("US.6038851290047713", None, "US.ENT.30118846209571", "Juno Vance", "juno_v")
GROUP = "Y2FwZS1tYXktcGFkZGxlLTIwMjY"


def status(name: str, place: int = 0, **differs: Any) -> tuple[str, int, Event]:
    sent = value_of(name)["statuses"][place]
    usual: dict[str, Any] = {
        "change": 0,
        "item": place,
        "wamid": sent["id"],
        "status": sent["status"],
        "sent_at": at(int(sent["timestamp"])),
        "participant": "",
        "person": MAREN,
        "callback_data": None,
        "error_code": None,
        "error_title": None,
        "payload": {},
    }
    return name, place, Status(**(usual | differs))


def in_group(place: int, person: Person) -> tuple[str, int, Event]:
    payload = {"recipient_id": GROUP, "recipient_type": "group", "pricing": PMP | {"category": "group_service"}}
    return status("status_group_aggregated.json", place, participant=person.user_id, person=person, payload=payload)


def failed(name: str, code: int, title: str, person: Person, payload: dict[str, Any] | None = None) -> Any:
    errors = {"errors": value_of(name)["statuses"][0]["errors"]}
    return status(name, person=person, error_code=code, error_title=title, payload=payload or errors)


def call(name: str, listed: str, event: str, direction: str, person: Person) -> tuple[str, int, Event]:
    sent = value_of(name)[listed][0]
    made = {"change": 0, "item": 0, "call_id": sent["id"], "event": event, "direction": direction, "payload": sent}
    return name, 0, Call(**made, sent_at=at(int(sent["timestamp"])), person=person)


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [
        status("status_sent.json", callback_data="0198f3c2-7a51-7c44-9d0e-3b6f1a2c4d55", payload={"pricing": PMP}),
        status("status_read.json", callback_data="0198f3c2-7a51-7c44-9d0e-3b6f1a2c4d55"),
        status("status_sent_bsuid_only.json", person=Person("US.9120047736618250", None, name="Kestrel"),
               payload={"pricing": PMP | {"billable": False, "type": "free_customer_service", "category": "service"}}),
        status("status_delivered_parent_user_id.json", person=JUNO, payload={"pricing": PMP}),
        status("status_delivered_parent_user_id_old_name.json",
               person=Person("US.6038851290047713", None, "US.ENT.30118846209571", "Juno Vance"),
               payload={"pricing": PMP}),
        status("status_identity_key_hash.json",
               person=Person("FR.2096631178450219", "33639980142", name="Leïla Benhaddou"),
               payload={"recipient_identity_key_hash": "TmV3S2V5SGFzaA"}),
        status("status_edge_for_reaction.json"),
        status("status_failed_no_errors_array.json", person=Person(None, "12025550117")),
        failed("status_failed_undeliverable_131026.json", 131026, "Message undeliverable", Person(None, "12025550117")),
        failed("status_failed_with_contacts.json", 131026, "Message undeliverable", MAREN),
        failed("status_failed_bsuid.json", 131062, "BSUID recipient not supported",
               Person("US.9120047736618250", None)),
        failed("status_failed_two_errors.json", 131053, "Media upload error", Person(None, "12025550117")),
        in_group(0, MAREN),
        in_group(1, TOMAS),
        in_group(2, Person(COLE.user_id, COLE.wa_id, name="Cole Whitaker")),
        status("status_group_read_old_key.json", participant=MAREN.user_id, person=Person(MAREN.user_id, MAREN.wa_id),
               payload={"recipient_id": GROUP, "recipient_type": "group"}),
        call("calls_connect_user_initiated.json", "calls", "connect", "inbound", MAREN),
        call("calls_terminate_completed.json", "calls", "terminate", "inbound", MAREN),
        call("calls_terminate_failed.json", "calls", "terminate", "outbound", Person(TOMAS.user_id, TOMAS.wa_id)),
        call("calls_status_ringing.json", "statuses", "ringing", "outbound", TOMAS),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_a_fixture_is_exactly_this_event(name: str, place: int, expected: Event) -> None:
    body = parsed(name)

    assert body.events[place] == expected
    assert body.quarantined == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status_delivered.json", "delivered"),
        ("status_played.json", "played"),
        ("status_deleted_legacy.json", "deleted"),
        ("status_warning_legacy.json", "warning"),
        ("status_unknown_future.json", "teleported"),
    ],
)
def test_every_status_is_told_as_it_came(name: str, value: str) -> None:
    event = only(parsed(name))

    assert isinstance(event, Status)
    assert event.status == value


def test_statuses_of_calls_are_not_those_of_messages() -> None:
    assert not [event for event in parsed("calls_status_ringing.json").events if isinstance(event, Status)]


def test_errors_beside_a_call_are_kept() -> None:
    assert parsed("calls_terminate_failed.json").events[1:] == (Kept(0, 1, "errors", None),)


# --- what a status may lack, or hold otherwise ------------------------------------------------------------------------

SENT = {"id": "wamid.1", "status": "SENT", "timestamp": 1763802000, "recipient_id": "12025550117"}


def one(**differs: Any) -> Status:
    event = only(read({"statuses": [SENT | differs]}))
    assert isinstance(event, Status)
    return event


def test_a_status_is_lower_case_and_its_payload_is_the_rest() -> None:
    assert one(future={"a": 1}) == Status(
        0, 0, "wamid.1", "sent", at(1763802000), "", Person(None, "12025550117"), None, None, None, {"future": {"a": 1}}
    )


@pytest.mark.parametrize(
    ("differs", "reason"),
    [
        ({"id": None}, "status_without_id"),
        ({"id": ""}, "status_without_id"),
        ({"id": "x" * 600}, "status_without_id"),
        ({"status": None}, "status_without_status"),
        ({"status": {}}, "status_without_status"),
        ({"timestamp": 4_000_000_000}, "time_a_day_ahead"),
    ],
)
def test_a_status_of_nothing_is_set_aside(differs: dict[str, Any], reason: str) -> None:
    assert reasons(read({"statuses": [SENT | differs]})) == [reason]


@pytest.mark.parametrize(
    ("code", "number"),
    [
        *((131026, 131026), ("131026", 131026), (131026.5, None), (True, None), (-1, None), ("x", None), (None, None)),
        *((2**31, None), ("9" * 10, None), ("9" * 400, None), ({}, None), ("１３", None)),
    ],
)
def test_a_code_is_a_number_however_it_was_written(code: object, number: int | None) -> None:
    assert one(errors=[{"code": code, "title": "T"}]).error_code == number


@pytest.mark.parametrize(
    ("errors", "title"),
    [([{"title": "T"}, {"title": "U"}], "T"), ([{"message": "M"}], "M"), ([], None), ({}, None), (["x"], None)],
)
def test_the_first_error_is_the_one_named(errors: object, title: str | None) -> None:
    assert one(errors=errors).error_title == title


@pytest.mark.parametrize(("sent", "kept"), [("x" * 512, "x" * 512), ("x" * 513, None), (7, "7"), ("", None)])
def test_callback_data_is_what_we_may_have_sent(sent: object, kept: str | None) -> None:
    assert one(biz_opaque_callback_data=sent).callback_data == kept


def test_a_group_is_no_person() -> None:
    event = one(recipient_id="12025550117", recipient_type="group")

    assert (event.person, event.participant) == (None, "")


@pytest.mark.parametrize("said", [{"recipient_type": "group"}, {}])
def test_a_participant_without_a_user_id_is_known_by_phone(said: dict[str, Any]) -> None:
    event = one(recipient_id=GROUP, recipient_participant_id="+12025550118", **said)

    assert (event.person, event.participant) == (Person(None, "12025550118"), "12025550118")


def test_a_status_to_nobody_we_can_name_still_moves_its_message() -> None:
    assert one(recipient_id="nobody").person is None


# --- calls ------------------------------------------------------------------------------------------------------------

CALL = {"id": "wacid.1", "event": "connect", "timestamp": "1763802000", "from": "12025550117", "to": "12025550143"}


@pytest.mark.parametrize(
    ("differs", "direction", "person"),
    [
        ({"direction": "USER_INITIATED"}, "inbound", Person(None, "12025550117")),
        ({"direction": "BUSINESS_INITIATED"}, "outbound", Person(None, "12025550143")),
        ({}, "inbound", Person(None, "12025550117")),
        ({"from": "12025550143", "to": "12025550117"}, "outbound", Person(None, "12025550117")),
        ({"direction": "USER_INITIATED", "from": "nobody"}, "inbound", None),
        ({"direction": "USER_INITIATED", "from_user_id": "US.1"}, "inbound", Person("US.1", "12025550117")),
    ],
)
def test_a_call_is_with_the_customer_whoever_began_it(
    differs: dict[str, Any], direction: Direction, person: Person | None
) -> None:
    sent = CALL | differs

    assert only(read({"calls": [sent]}, field="calls")) == Call(
        0,
        0,
        "wacid.1",
        "connect",
        direction,
        at(1763802000),
        person,
        sent,
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"calls": [CALL | {"id": None}]}, "call_without_id"),
        ({"calls": [CALL | {"event": None}]}, "call_without_event"),
        ({"calls": [7]}, "call_not_an_object"),
        ({"statuses": [{"id": "wacid.1"}]}, "call_without_event"),
        ({"calls": [CALL | {"timestamp": "4000000000"}]}, "time_a_day_ahead"),
    ],
)
def test_a_call_of_nothing_is_set_aside(value: dict[str, Any], reason: str) -> None:
    assert reasons(read(value, field="calls")) == [reason]
