"""The command line: what it understands, what it refuses, and that it teaches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from services.ingest.command_line import parse, time_of
from shared.store.replay import Cursor, Wanted

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
BODY = "019ab5d2-7c11-7a30-8f04-5a1c6be0d001"


def test_without_arguments_it_is_the_webhook_endpoint() -> None:
    assert parse([]).command == "web"
    assert parse(["web"]).command == "web"
    assert parse(["recorder"]).command == "recorder"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("now", NOW),
        ("90m", NOW - timedelta(minutes=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24T01:30", datetime(2026, 11, 24, 1, 30, tzinfo=UTC)),
        ("2026-11-24T01:30Z", datetime(2026, 11, 24, 1, 30, tzinfo=UTC)),
        ("2026-11-24T01:30+02:00", datetime(2026, 11, 24, 1, 30, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_times(text: str, at: datetime) -> None:
    assert time_of(text, now=NOW) == at


@pytest.mark.parametrize("text", ["", "yesterday", "2w", "-2h", "25:00", "2026-13-01"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        time_of(text, now=NOW)


def test_replay_takes_its_range_and_a_cursor() -> None:
    cursor = Cursor(NOW, UUID(BODY))

    options = parse(
        [
            "replay",
            "--from",
            "2026-11-23",
            "--to",
            "2026-11-24",
            "--after",
            str(cursor),
            "--only",
            "unrouted",
            "--dry-run",
        ]
    )

    assert options.since == datetime(2026, 11, 23, tzinfo=UTC)
    assert options.until == datetime(2026, 11, 24, tzinfo=UTC)
    assert options.after == cursor
    assert (options.only, options.dry_run, options.as_json, options.batch) == ("unrouted", True, False, 200)


def test_a_cursor_before_the_range_begins_at_the_range() -> None:
    since = NOW - timedelta(hours=1)

    assert Wanted(since=since, after=Cursor(NOW, UUID(BODY))).start == Cursor(NOW, UUID(BODY))
    assert Wanted(since=since, after=Cursor(NOW - timedelta(days=1), UUID(BODY))).start == Cursor(since)
    assert Wanted(since=since).start == Cursor(since)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["replay"], "--from"),
        (["replay", "--from", "yesterday"], "try 2026-11-24T01:00, 2h or now"),
        (["replay", "--from", "2h", "--after", "2026-11-24"], "copy it whole"),
        (["replay", "--from", "2h", "--batch", "0"], "not between 1 and 2000"),
        (["replay", "--from", "2h", "--phone-number-id", "+4930"], "those are digits"),
        (["quarantine"], "ACTION"),
        (["quarantine", "show", "17"], "BODY_ID"),
        (["quarantine", "retry"], "--all"),
        (["quarantine", "retry", "--all", BODY], "not allowed with"),
        (["quarantine", "drop", BODY, "first"], "numbered from 0"),
        (["quarantine", "list", "--state", "lost"], "invalid choice"),
        (["recoder"], "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_said_with_status_two(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(arguments)

    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["quarantine"], ["replay"]])
def test_help_shows_examples_that_can_be_parsed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse([*arguments, "--help"])

    shown = capsys.readouterr().out
    lines = [line.strip().partition("  ")[0] for line in shown.splitlines() if line.startswith("  python -m")]
    examples = [line.removeprefix("python -m services.ingest ") for line in lines]
    assert stopped.value.code == 0
    assert len(examples) >= 4
    assert "Exit status: 0" in shown
    for example in examples:
        text = example.replace("2026-11-24T…/…", f"2026-11-24T00:00:00+00:00/{BODY}").replace("0199f2c4-…", BODY)
        assert parse(text.split()).command == arguments[0]


def test_retry_takes_bodies_or_a_reason_or_all() -> None:
    assert parse(["quarantine", "retry", BODY, BODY]).body_ids == [UUID(BODY), UUID(BODY)]
    assert parse(["quarantine", "retry", "--reason", "no_value"]).reason == "no_value"
    assert parse(["quarantine", "retry", "--all"]).everything
