"""What a process says, made readable: `HH:MM:SS process │ event key=value`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any

from deploy.local.state import StateDir

# One per process; none of them red or yellow, which mean error and warning. 256-colour numbers.
COLOURS = (39, 78, 141, 44, 175, 108, 68, 180, 79, 147)
RED, YELLOW, DIM = "\033[31m", "\033[33m", "\033[2m"
RESET = "\033[0m"
LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 3, "exception": 3}
# Told by the prefix, or on every line.
HIDDEN = {"event", "level", "timestamp", "at", "service", "process", "exception", "errors"}
# How servers that do not speak JSON begin a line, and what that is worth.
FOREIGN = (
    ("LOG:", "info"), ("NOTICE:", "info"), ("HINT:", "info"), ("DETAIL:", "info"), ("STATEMENT:", "info"),
    ("WARNING:", "warning"), ("ERROR:", "error"), ("FATAL:", "error"), ("PANIC:", "error"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of output, understood as far as possible. `level` is None where the line does not tell."""

    at: str  # HH:MM:SS, local time
    level: str | None
    event: str
    fields: str = ""
    more: tuple[str, ...] = ()  # a traceback's lines
    is_foreign: bool = False  # not one of our processes' JSON lines


def read_line(line: bytes, *, now: datetime) -> Entry:
    """Understand one line of output: a JSON object with an `event`, or anything else as it is."""
    text = line.decode("utf-8", errors="replace")
    try:
        found = json.loads(text) if text.startswith("{") else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or "event" not in found:
        return Entry(_clock(now), _foreign_level(text), printable(text), is_foreign=True)
    shown = sorted((key for key in found if key not in HIDDEN), key=_is_id)  # ids last: they say least to a reader
    fields = " ".join(f"{key}={_value(found[key])}" for key in shown)
    level = str(found.get("level", "info")).lower()
    return Entry(_time_of(found, now), level, printable(str(found["event"])), fields, tuple(_more(found)))


def printable(text: str) -> str:
    """Return the text without what would steer the terminal: a customer's name may hold escape sequences."""
    return "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in text)


def _is_id(key: str) -> bool:
    return key.endswith("_id") or key == "wamid"


def _value(value: Any) -> str:
    if isinstance(value, str):
        plain = value and not any(char.isspace() or char in "\"'=" for char in value)
        return printable(value) if plain else printable(json.dumps(value, ensure_ascii=False))
    return printable(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def _more(found: Mapping[str, Any]) -> list[str]:
    lines = [printable(line) for line in str(found.get("exception", "")).splitlines()]
    errors = found.get("errors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            lines.append(printable(f"{error.get('error')}"))
            lines += [printable(f"  {place}") for place in error.get("at", [])[-4:]]
        else:
            lines.append(_value(error))
    return lines


def _foreign_level(text: str) -> str | None:
    return next((level for start, level in FOREIGN if text.startswith(start)), None)


def _time_of(found: Mapping[str, Any], now: datetime) -> str:
    try:
        return _clock(datetime.fromisoformat(str(found.get("timestamp") or found["at"])))
    except (KeyError, ValueError):
        return _clock(now)


def _clock(at: datetime) -> str:
    return at.astimezone().strftime("%H:%M:%S")


def format_entry(process: str, entry: Entry, *, width: int, colour: int | None, columns: int | None = None) -> str:
    """Return the line to show, prefix padded to `width`; plain when `colour` is None.

    `columns`: the terminal's; where nothing is wrong, fields past its edge are cut (the log file has them all).
    """
    if colour is None:
        head, tint, dim, reset = f"{entry.at} {process:<{width}} │ ", "", "", ""
    else:
        head = f"{DIM}{entry.at}{RESET} \033[38;5;{colour}m{process:<{width}} │{RESET} "
        tint = {3: RED, 2: YELLOW}.get(LEVELS.get(entry.level or "info", 1), "")
        dim, reset = DIM, RESET
    first = f"{head}{tint}{entry.event}{reset if tint else ''}"
    fields = entry.fields
    if columns is not None and LEVELS.get(entry.level or "info", 1) < LEVELS["warning"]:
        left = columns - len(f"{entry.at} {process:<{width}} │ {entry.event} ")
        fields = fields if len(fields) <= left else fields[: max(left - 1, 0)] + "…"
    if fields:
        first += f" {dim}{fields}{reset}"
    return "\n".join([first, *(f"{head}  {dim}{line}{reset}" for line in entry.more)])


def wants_colour(stream: IO[str], environment: Mapping[str, str] = os.environ) -> bool:
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


class LogView:
    """Show what processes say, and keep it raw in `.local/logs/<process>.log`."""

    def __init__(
        self,
        state: StateDir,
        *,
        names: tuple[str, ...],
        quiet: bool,
        write: Callable[[str], None],
        coloured: bool | None = None,
    ) -> None:
        self._files: dict[str, IO[bytes]] = {name: state.log_file(name).open("wb", buffering=0) for name in names}
        self._width = max(map(len, names), default=0)
        self._colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
        self._coloured = wants_colour(sys.stdout) if coloured is None else coloured
        self._write = write
        self.least = LEVELS["warning"] if quiet else LEVELS["debug"]  # shown from this level on
        self.hide_chatter = False  # while starting and stopping: what servers tell of it goes to the files only

    def line(self, process: str, line: bytes) -> None:
        """Take one line of output of one of `names`."""
        self._files[process].write(line + b"\n")
        entry = read_line(line, now=datetime.now().astimezone())
        chatter = entry.is_foreign and LEVELS.get(entry.level or "info", 1) < LEVELS["warning"]
        if chatter:
            shown = not self.hide_chatter and (entry.level is None or LEVELS[entry.level] >= self.least)
        else:
            shown = LEVELS.get(entry.level or "info", 1) >= self.least
        if shown:
            self.show(process, entry)

    def show(self, process: str, entry: Entry) -> None:
        colour = self._colours.get(process, 250) if self._coloured else None
        columns = shutil.get_terminal_size().columns if self._coloured else None
        self._write(format_entry(process, entry, width=self._width, colour=colour, columns=columns))

    def note(self, process: str, level: str, sentence: str) -> None:
        """Say something of our own about a process."""
        self.show(process, Entry(_clock(datetime.now().astimezone()), level, sentence))

    def close(self) -> None:
        for file in self._files.values():
            file.close()
