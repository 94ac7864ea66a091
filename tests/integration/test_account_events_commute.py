"""The rows are a function of the set of account events: not of order, number, batching, recorders or odd payloads."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Database
from tests.integration.account_event_rows import (
    AT,
    CHANNEL_AS_MADE,
    NAMES,
    RECEIVED,
    Event,
    Recorder,
    about_number,
    ban,
    event_of,
    fixture,
    group,
    recorder_on,
    restriction,
    template,
)
from tests.world import WABA_A, World

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
async def record(database: Database, world: World) -> AsyncIterator[Recorder]:
    async with recorder_on(database, world) as made:
        yield made


def conflicting() -> list[Event]:
    """Events that contradict each other, at different times and at the same."""
    later, last = AT + timedelta(seconds=1), AT + timedelta(seconds=2)
    words = ("APPROVED", "PAUSED", "REJECTED", "DISABLED", "FLAGGED", "HIBERNATED")
    return [
        *(template(word, at=at) for word in words for at in (AT, later)),
        template("REINSTATED", at=last),
        template("APPROVED", message_template_language="de", message_template_id=7),
        *(fixture(name) for name in NAMES),
        *(ban(state, at=at) for state in ("DISABLE", "REINSTATE", "SCHEDULE_FOR_DISABLE") for at in (AT, later)),
        restriction("BIZ_INITIATED_MESSAGING", at=later),
        restriction("BIZ_INITIATED_MESSAGING", at=later, until=last),
        restriction(at=later),
        *(about_number("security", event) for event in ("PIN_CHANGED", "PIN_RESET_REQUEST")),
        *(about_number("phone_number_quality_update", event, at=later) for event in ("FLAGGED", "UNFLAGGED")),
        *(group(kind) for kind in ("group_create", "group_delete", "group_suspend", "group_suspend_cleared")),
        *(group("group_create", subject=subject, at=at) for subject in "ab" for at in (AT, last)),
        *(
            group(f"group_participants_{verb}", **{key: [{"wa_id": "12025550117"}]}, at=at)
            for verb, key in (("add", "added_participants"), ("remove", "removed_participants"))
            for at in (AT, later)
        ),
        event_of("account_update", {"event": "ACCOUNT_DELETED"}, at=None),
        event_of("account_update", {"event": "ACCOUNT_DELETED"}, at=None, received_at=RECEIVED + timedelta(hours=1)),
    ]


async def test_every_order_of_template_events_ends_in_the_same_status(record: Recorder) -> None:
    words = ("APPROVED", "PAUSED", "REJECTED")
    for times in itertools.product(range(3), repeat=3):
        events = [template(word, at=AT + timedelta(seconds=s)) for word, s in zip(words, times, strict=True)]
        # Of one second the greater word holds, and approved is the least of all.
        winner = max(zip(times, words, strict=True))[1].lower()
        expected = await record.of_set(events)

        for ordered in itertools.permutations(range(3)):
            async with record.undone():
                for index in (*ordered, *ordered[:2]):
                    await record(events[index])

                assert await record.everything() == expected
                assert [row["status"] for row in await record.templates()] == [winner]


async def test_approved_holds_against_no_other_status_of_its_second(record: Recorder) -> None:
    words = ("PENDING", "REJECTED", "PAUSED", "DISABLED", "IN_APPEAL", "PENDING_DELETION", "DELETED", "LIMIT_EXCEEDED")

    for word in (*words, "ARCHIVED", "LOCKED", "FLAGGED"):
        async with record.undone():
            await record(template(word), template("APPROVED"))

            assert [row["status"] for row in await record.templates()] == [word.lower()]


@SETTINGS
@given(data=st.data())
async def test_rows_are_a_function_of_the_set_of_events(record: Recorder, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(EVENTS), min_size=1, max_size=25))
    repeats = data.draw(st.lists(st.sampled_from(chosen), max_size=10))
    dealt = data.draw(st.permutations(chosen + repeats))
    expected = await record.of_set(chosen)

    async with record.undone():
        new = 0
        while dealt:
            size = data.draw(st.integers(1, len(dealt)))
            new += len(await record(*dealt[:size]))
            dealt = dealt[size:]

        assert await record.everything() == expected
        assert new == len(expected[-1])


EVENTS = conflicting()


async def test_recorders_side_by_side_end_with_the_same_rows(
    database: Database, world: World, record: Recorder
) -> None:
    expected = await record.of_set(EVENTS)
    new: list[int] = []

    async def deal(seed: int, recorder: Recorder) -> None:
        mine = random.Random(seed)
        for _ in range(6):
            dealt = mine.sample(EVENTS, len(EVENTS))
            while dealt:
                size = mine.randint(1, 30)
                new.append(len(await recorder(*dealt[:size])))
                dealt = dealt[size:]

    async with asyncio.timeout(60):
        async with recorder_on(database, world) as second, recorder_on(database, world) as third:
            await asyncio.gather(*(deal(seed, recorder) for seed, recorder in enumerate((record, second, third))))

    assert await record.everything() == expected
    assert sum(new) == len(expected[-1])


async def test_batches_about_the_same_rows_wait_for_each_other_in_one_order(
    database: Database, world: World, record: Recorder
) -> None:
    # Nothing about a number, whose lock would come first and keep the two apart.
    templates = [template("APPROVED", message_template_name=f"t{n}") for n in range(40)]
    only_listed = [event_of("account_update", {"event": "PARTNER_ADDED", "n": n}) for n in range(40)]

    async with recorder_on(database, world) as other, asyncio.timeout(60):
        for events, round_ in itertools.product((templates, only_listed), range(12)):
            at = (AT + timedelta(minutes=round_)).isoformat()
            dealt = [event | {"sent_at": at, "received_at": at} for event in events]
            counts = await asyncio.gather(record(*dealt), other(*reversed(dealt)))

            assert sum(map(len, counts)) == len(events)


async def test_who_waits_for_a_row_keeps_what_the_other_wrote(
    database: Database, world: World, record: Recorder
) -> None:
    later = AT + timedelta(seconds=1)
    pairs = [
        (template("REJECTED"), fixture("template_quality_update")),
        (template("REJECTED", at=later), fixture("template_components_update")),
        (fixture("security_pin_changed"), fixture("phone_number_name_update_approved")),
        (ban("DISABLE", at=later), ban("REINSTATE")),
        (group("group_create", subject="a"), group("group_suspend")),
        (group("group_delete", at=later), group("group_create", subject="b", at=later)),
    ]

    async with recorder_on(database, world) as first, recorder_on(database, world) as second, asyncio.timeout(60):
        for one, two in pairs:
            expected = await record.of_set([one, two])
            async with first.undecided():
                await first(one)
                waiting = asyncio.create_task(second(two))
                while not await record.rows("select pid from pg_locks where not granted"):
                    await asyncio.sleep(0.01)
            await waiting

            assert await record.everything() == expected


async def test_a_body_of_a_thousand_is_recorded_in_good_time(record: Recorder) -> None:
    events = [template("PAUSED", at=AT + timedelta(seconds=n), message_template_name=f"t{n % 50}") for n in range(1000)]

    async with asyncio.timeout(5):  # the store's own limit for a call
        new = await record(*events)

    assert len(new) == 1000
    assert len(await record.templates()) == 50


WRONG: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    10**40,
    "",
    "x" * 100_000,
    "𐍈" * 600,
    [],
    [[]],
    {},
    {"text": {}},
    [None, 1, "x", {}],
]
KEYS = sorted({key for name in NAMES for key in fixture(name)["payload"] if isinstance(fixture(name)["payload"], dict)})


def spoilt(value: Any) -> list[Event]:
    """Every fixture with this in place of its payload, and of each part of it."""
    events = []
    for name in NAMES:
        good = fixture(name)
        parts = {key: old if key == "metadata" else value for key, old in good["payload"].items()}
        events += [good | {"payload": value, "event": ""}, good | {"payload": parts}]
    return events


async def test_a_payload_that_cannot_be_read_is_listed_and_changes_nothing(record: Recorder) -> None:
    # A deletion, a PIN's change, a raised throughput are told by the event's name alone; an empty list of restrictions
    # lifts them; a limit may be a number.
    told = {"account", "pin", "tier_mps", "quality", "restrictions_lifted", "messaging_limit"}

    for value in WRONG:
        async with record.undone():
            new = await record(*spoilt(value))
            again = await record(*spoilt(value))

            assert len(new) == len(await record.listed()) > len(NAMES)
            assert again == []
            assert set((await record.channel())["facts"]) <= told
            assert await record.templates() == []
            assert await record.groups() == []


async def test_one_wrong_attribute_does_not_spoil_the_others(record: Recorder) -> None:
    components = fixture("template_components_update")["payload"]
    attributes = [key for key in components if key not in ("message_template_name", "message_template_language")]
    beside = ("reason", "rejection_info", "other_info", "message_template_category")

    for value in WRONG:
        async with record.undone():
            await record(
                *(
                    event_of(
                        "message_template_components_update", components | {key: value}, at=AT + timedelta(seconds=n)
                    )
                    for n, key in enumerate(attributes)
                ),
                *(template("APPROVED", **{key: value}) for key in beside),
            )

            (row,) = await record.templates()
            assert (row["status"], row["meta_id"], row["body_content"]) == (
                "approved",
                "1180337429165502" if not isinstance(value, int) or value in (True, -1) else row["meta_id"],
                components["message_template_element"],
            )


INNER_KEYS = (
    *("added_participants", "errors", "expiration", "group_id", "input", "reason", "removed_participants"),
    *("restriction_type", "subject", "text", "timestamp", "title", "type", "update_successful", "user_id", "wa_id"),
    *("waba_ban_state", "message_template_button_type"),
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(
        ["PIN_CHANGED", "APPROVED", "12025550143", "1795183200", "group_create", "trip", "en", "TIER_2K"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*KEYS, *INNER_KEYS]),
            inner,
            max_size=8,
        )
    ),
    max_leaves=30,
)
FIELDS = sorted({fixture(name)["field"] for name in NAMES} | {"", "tide_table_update", "x" * 5000})


@SETTINGS
@given(
    events=st.lists(
        st.builds(
            event_of,
            st.sampled_from(FIELDS),
            json_values,
            at=st.none() | st.datetimes(timezones=st.just(UTC)),
            event=st.sampled_from(
                ["", "approved", "Pin_Changed", "account_restriction", "disabled_update", "é" * 3000]
            ),
            waba_id=st.none() | st.just(WABA_A) | st.just("9" * 5000),
        ),
        min_size=1,
        max_size=8,
    )
)
async def test_no_event_whatever_it_holds_fails_a_batch(record: Recorder, events: list[Event]) -> None:
    async with record.undone():
        new = await record(*events)
        rows = await record.everything()
        again = [n for event in reversed(events) for n in await record(event)]

        assert len(new) == len(rows[-1])
        assert again == []
        assert await record.everything() == rows


async def test_a_time_far_ahead_is_listed_when_it_came_and_changes_nothing(record: Recorder) -> None:
    for at in (AT + timedelta(days=2), datetime(9999, 12, 31, tzinfo=UTC), datetime(1969, 1, 1, tzinfo=UTC)):
        await record(template("APPROVED", at=at), about_number("security", "PIN_CHANGED", at=at))
    await record(template("APPROVED") | {"sent_at": "infinity"})

    assert await record.templates() == []
    assert await record.channel() == CHANNEL_AS_MADE
    assert {e["happened_at"] for e in await record.listed()} == {RECEIVED.isoformat()}


async def test_a_groups_time_far_ahead_changes_nothing(record: Recorder) -> None:
    far = group("group_create")
    far["payload"]["groups"][0]["timestamp"] = "99999999999"

    await record(far)

    assert await record.groups() == []


async def test_an_event_without_a_time_happened_when_it_first_came(record: Recorder) -> None:
    event = event_of("account_update", {"event": "ACCOUNT_DELETED"}, at=None)
    later = event | {"received_at": (RECEIVED + timedelta(hours=1)).isoformat()}

    new = [await record(later), await record(event), await record(later)]

    assert new == [[0], [], []]
    assert [e["happened_at"] for e in await record.listed()] == [RECEIVED.isoformat()]
