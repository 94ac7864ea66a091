"""JSON lines on stdout. Never given message text, names or phone numbers: ids, counts and times only."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


def utc_text(at: datetime) -> str:
    """Write a time as ISO 8601 in UTC with milliseconds and a Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log(event: str, level: str = "info", **fields: object) -> None:
    """Write one line: `{"event": "webhook.delivered", "level": "info", "at": …, …}`."""
    line = {"event": event, "level": level, "at": utc_text(datetime.now(UTC)), "service": "sandbox", **fields}
    sys.stdout.write(json.dumps(line, default=str) + "\n")
    sys.stdout.flush()


class _JsonLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        log("library.logged", record.levelname.lower(), **fields)


def quiet_libraries() -> None:
    """Let uvicorn and httpx speak only when something is wrong, and then in JSON too.

    httpx logs each URL at info and uvicorn each request: both would drown what matters.
    """
    logging.basicConfig(level=logging.WARNING, handlers=[_JsonLines()], force=True)
