"""Every line is one JSON object that says who wrote it; no line says what a foreign error quoted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry.trace import trace_id, traceparent

ROOT = Path(__file__).resolve().parents[2]
PHONE = "12025550117"


def lines_of(program: str, *, level: str = "info", exit_code: int = 0) -> list[dict[str, Any]]:
    """Run a program with our logs set up, in a process of its own: logging is set up once a process."""
    prelude = f"""
        import asyncio, logging, threading
        import structlog
        from shared.telemetry.logs import configure_logs
        configure_logs(service="ai_worker", process="ai_worker", level="{level}")
        log = structlog.get_logger()
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == exit_code, run.stderr
    assert run.stderr == ""
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_a_line_is_one_json_object_with_service_and_process() -> None:
    lines = lines_of("""
        log.info("message.recorded", wamid="wamid.1", text_with="two\\nlines and \\u2028 \\ud83d")
        threading.Thread(target=lambda: log.warning("from.a_thread", count=1)).start()
        logging.getLogger("some.library").warning("a library's %s", "line")
        threading.Thread(target=lambda: logging.getLogger("other").error("a library's thread")).start()
        asyncio.run(asyncio.to_thread(log.info, "from.a_pool"))
    """)

    assert [(line["event"], line["level"]) for line in lines] == [
        ("message.recorded", "info"),
        ("from.a_thread", "warning"),
        ("a library's line", "warning"),
        ("a library's thread", "error"),
        ("from.a_pool", "info"),
    ]
    for line in lines:
        assert (line["service"], line["process"]) == ("ai_worker", "ai_worker")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
    assert lines[0] | {"timestamp": ""} == {
        "event": "message.recorded",
        "level": "info",
        "service": "ai_worker",
        "process": "ai_worker",
        "timestamp": "",
        "wamid": "wamid.1",
        "text_with": "two\nlines and \u2028 \ud83d",
    }


def test_what_is_bound_once_is_on_every_line() -> None:
    lines = lines_of("""
        structlog.contextvars.bind_contextvars(trace_id="abc")
        log.info("one")
        logging.getLogger("some.library").warning("two")
    """)

    assert [line["trace_id"] for line in lines] == ["abc", "abc"]


@pytest.mark.parametrize(
    ("level", "told"),
    [("debug", ["d", "i", "w", "e"]), ("info", ["i", "w", "e"]), ("warning", ["w", "e"]), ("error", ["e"])],
)
def test_the_level_holds_for_us_and_for_libraries(level: str, told: list[str]) -> None:
    lines = lines_of(
        """
        for write in (log, logging.getLogger("some.library")):
            write.debug("d"), write.info("i"), write.warning("w"), write.error("e")
        """,
        level=level,
    )

    assert [line["event"] for line in lines] == told * 2


def test_chatty_libraries_say_no_more_than_warnings() -> None:
    lines = lines_of(
        """
        for name in ("httpx", "httpx2", "anthropic", "anthropic._base_client", "rq.worker", "uvicorn.error"):
            logging.getLogger(name).info("HTTP Request: POST https://api.example/12025550117")
        """,
        level="info",
    )

    assert lines == []


def test_an_error_is_told_by_class_and_place_never_by_its_words() -> None:
    lines = lines_of(f"""
        class OurError(Exception): pass

        def inner():
            raise ValueError("customer +{PHONE} wrote: please call me")

        def outer():
            try:
                inner()
            except ValueError as error:
                raise OurError("{PHONE}") from error

        for write in (log, logging.getLogger("some.library")):
            try:
                outer()
            except OurError as error:
                write.exception("analysis.failed")
                write.error("given.as_exc_info", exc_info=error)
                write.error("given.as_tuple", exc_info=(type(error), error, error.__traceback__))
        log.info("without.one", exc_info=False)
        log.info("outside.of_one", exc_info=True)
    """)

    assert PHONE not in json.dumps(lines)
    assert "call me" not in json.dumps(lines)
    assert len(lines) == 8
    for line in lines[:6]:
        ours, cause = line["errors"]
        assert (ours["error"], cause["error"]) == ("OurError", "ValueError")
        assert [place.split()[-1] for place in cause["at"]] == ["outer", "inner"]
        assert all(re.fullmatch(r"<string>:\d+ \S+", place) for place in cause["at"])
        assert "exc_info" not in line
        assert "exception" not in line
    assert all("errors" not in line for line in lines[6:])


def test_an_endless_chain_of_errors_is_cut() -> None:
    [line] = lines_of("""
        def fall(depth):
            try:
                fall(depth - 1) if depth else int("x")
            except Exception as error:
                raise RuntimeError("again") from error
        try:
            fall(50)
        except RuntimeError:
            log.exception("deep")
    """)

    assert len(line["errors"]) == 5
    assert all(len(error["at"]) <= 12 for error in line["errors"])


def test_an_exception_group_names_its_members() -> None:
    [line] = lines_of(f"""
        try:
            raise ExceptionGroup("several", [ValueError("{PHONE}"), ExceptionGroup("more", [KeyError("{PHONE}")])])
        except ExceptionGroup:
            log.exception("x")
    """)

    assert [error["error"] for error in line["errors"]] == [
        "ExceptionGroup",
        "ValueError",
        "ExceptionGroup",
        "KeyError",
    ]
    assert PHONE not in json.dumps(line)


@pytest.mark.parametrize(
    ("program", "event", "exit_code"),
    [
        ('raise ValueError("{PHONE}")', "process.crashed", 1),
        (
            'thread = threading.Thread(target=int, args=["{PHONE}x"])\nthread.start()\nthread.join()',
            "thread.crashed",
            0,
        ),
    ],
)
def test_an_error_nobody_caught_is_a_log_line_without_its_words(program: str, event: str, exit_code: int) -> None:
    [line] = lines_of(program.replace("{PHONE}", PHONE), exit_code=exit_code)

    assert (line["event"], line["level"]) == (event, "critical")
    assert [error["error"] for error in line["errors"]] == ["ValueError"]
    assert PHONE not in json.dumps(line)


def test_a_task_nobody_awaited_is_told_without_its_words() -> None:
    [line] = lines_of(f"""
        import gc

        async def main():
            async def fails():
                raise ValueError("{PHONE}")
            task = asyncio.create_task(fails())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            del task
            gc.collect()

        asyncio.run(main())
    """)

    assert (line["event"], line["level"]) == ("Task exception was never retrieved", "error")
    assert [error["error"] for error in line["errors"]] == ["ValueError"]
    assert PHONE not in json.dumps(line)


# --- traces -----------------------------------------------------------------------------------------------------------

GOOD = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_callers_trace_is_continued() -> None:
    assert traceparent(GOOD) == GOOD.decode()
    assert trace_id(traceparent(GOOD)) == "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    "received",
    [
        None,
        b"",
        b"garbage",
        GOOD.upper(),
        GOOD.replace(b"4bf92f3577b34da6a3ce929d0e0e4736", b"0" * 32),
        GOOD.replace(b"00f067aa0ba902b7", b"0" * 16),
        b"ff" + GOOD[2:],
        GOOD + b"-00",
        GOOD + b"\n",
        b" " + GOOD,
        b"\xff" * 55,
    ],
)
def test_what_is_no_trace_begins_a_new_one(received: bytes | None) -> None:
    begun = traceparent(received)

    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", begun)
    assert begun != traceparent(received)


@given(received=st.binary(max_size=80))
def test_whatever_a_caller_sends_a_traceparent_fits_a_header(received: bytes) -> None:
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", traceparent(received))


@given(parent=st.text(max_size=60))
def test_a_trace_id_of_anything_is_a_string(parent: str) -> None:
    assert isinstance(trace_id(parent), str)
