"""What the terminal shows of a process's output."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.local.logs import Entry, LogView, format_entry, read_line
from deploy.local.state import StateDir

NOW = datetime(2026, 11, 22, 9, 30, 5, tzinfo=UTC)
NOW_SHOWN = NOW.astimezone().strftime("%H:%M:%S")


def line(**fields: object) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def test_event_comes_first_and_what_the_prefix_says_is_left_out() -> None:
    found = read_line(
        line(
            event="webhooks.recorded",
            level="info",
            timestamp="2026-11-22T09:30:05.123456Z",
            service="ingest",
            process="recorder",
            bodies=3,
            note="two words",
        ),
        now=datetime(2000, 1, 1, tzinfo=UTC),
    )

    assert found == Entry(NOW_SHOWN, "info", "webhooks.recorded", 'bodies=3 note="two words"')


@pytest.mark.parametrize(
    ("output", "level"),
    [
        (b"Traceback (most recent call last):", None),
        (b'{"no": "event"}', None),
        (b"{broken", None),
        (b"LOG:  database system is ready to accept connections", "info"),
        (b"FATAL:  role does not exist", "error"),
    ],
)
def test_a_line_that_is_no_event_passes_through(output: bytes, level: str | None) -> None:
    assert read_line(output, now=NOW) == Entry(NOW_SHOWN, level, output.decode(), is_foreign=True)


def test_a_customer_cannot_steer_the_terminal() -> None:
    found = read_line(line(event="contact.named", name="\x1b[2JMallory\x07\u202e"), now=NOW)

    assert not any(ord(char) < 32 or char == "\u202e" for char in found.fields)


def test_traceback_follows_on_lines_of_its_own() -> None:
    entry = read_line(line(event="job.failed", level="error", exception="Traceback\n  boom"), now=NOW)

    shown = format_entry("api", entry, width=8, colour=None)

    assert (
        shown
        == f"{NOW_SHOWN} api      │ job.failed\n{NOW_SHOWN} api      │   Traceback\n{NOW_SHOWN} api      │     boom"
    )


def test_error_is_red_warning_is_yellow_and_no_colour_means_none() -> None:
    shown = {
        level: format_entry("api", Entry("09:30:05", level, "it.happened", "a=1"), width=3, colour=39)
        for level in ("info", "warning", "error")
    }

    assert "\033[31mit.happened" in shown["error"]
    assert "\033[33mit.happened" in shown["warning"]
    assert "\033[31m" not in shown["info"]
    assert format_entry("api", Entry("09:30:05", "error", "it.happened", "a=1"), width=3, colour=None) == (
        "09:30:05 api │ it.happened a=1"
    )


def test_long_fields_are_cut_at_the_edge_unless_something_is_wrong() -> None:
    def shown(level: str) -> str:
        return format_entry("api", Entry("09:30:05", level, "e", "x" * 200), width=3, colour=None, columns=60)

    assert len(shown("info")) == 60
    assert shown("info").endswith("…")
    assert shown("error").endswith("x" * 200)


def test_quiet_hides_info_but_the_file_keeps_it(tmp_path: Path) -> None:
    written: list[str] = []
    state = StateDir.open(tmp_path)
    view = LogView(state, names=("api",), quiet=True, write=written.append, coloured=False)
    output = [line(event="a", level="info"), line(event="b", level="error"), b"LOG:  checkpoint"]

    for one in output:
        view.line("api", one)
    view.close()

    assert [text.split("│ ")[1] for text in written] == ["b"]
    assert state.log_file("api").read_bytes() == b"".join(one + b"\n" for one in output)


def test_log_file_starts_empty(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path)
    state.log_file("api").write_text("of yesterday\n")

    LogView(state, names=("api",), quiet=False, write=lambda _text: None, coloured=False).close()

    assert state.log_file("api").read_bytes() == b""


def test_ids_come_last_because_they_are_cut_first() -> None:
    found = read_line(line(event="a", wamid="wamid.x", workspace_id="w", status=200), now=NOW)

    assert found.fields == "status=200 wamid=wamid.x workspace_id=w"
