"""What operators see: the answer on standard output, as tables or as one JSON object; all else on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from shared.store.replay import ACCOUNT, Difference

_PIPE_WIDTH = 200  # a file has no edge; ids must not be cut
_SAY_EVERY_S = 5.0


class Screen:
    """Prints for a person, or for a script if `as_json`."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._out = _console(stderr=False)
        self._err = _console(stderr=True)

    def answer(self, found: Mapping[str, Any]) -> None:
        """Print the one JSON object of a script's run."""
        print(json.dumps(found, indent=2, ensure_ascii=False, default=str))  # noqa: T201 - it is the answer

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line of the answer for a person."""
        self._out.print(Text(text, style))

    def note(self, text: str, style: str = "") -> None:
        """Print a line that is not the answer."""
        self._err.print(Text(text, style), soft_wrap=True)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
        """Print rows; nothing of them is cut."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        for heading in headings:
            table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text("–" if cell is None else str(cell)) for cell in row))
        self._out.print(table)

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
        """Yield a function that takes how many are done in all, and how one would go on: "" if there is no such way."""
        if self._err.is_terminal:
            with self._bar(what, total) as advance:
                yield advance
        else:
            yield self._lines(what, total)

    @contextlib.contextmanager
    def _bar(self, what: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}/s"),
            TimeRemainingColumn(),
            TextColumn("\n{task.fields[going_on]}"),  # stays on the screen if this is killed
            console=self._err,
        )
        with progress:
            task = progress.add_task(what, total=total, rate="–", going_on="")
            started = time.monotonic()

            def advance(done: int, going_on: str) -> None:
                rate = done / max(time.monotonic() - started, 0.001)
                progress.update(task, completed=done, rate=f"{rate:,.0f}", going_on=going_on)

            yield advance

    def _lines(self, what: str, total: int | None) -> Callable[[int, str], None]:
        started = said_at = time.monotonic()
        is_first = True

        def advance(done: int, going_on: str) -> None:
            nonlocal said_at, is_first
            now = time.monotonic()
            if not is_first and now - said_at < _SAY_EVERY_S and done != total:
                return
            said_at, is_first = now, False
            rate = done / max(now - started, 0.001)
            left = "" if total is None or not rate else f", {max(0, total - done) / rate:,.0f} s left"
            hint = f"; to go on from here: {going_on}" if going_on else ""
            of = "" if total is None else f" of {total:,}"
            self.note(f"{what}: {done:,}{of} bodies, {rate:,.0f}/s{left}{hint}")

        return advance

    def difference(self, difference: Difference, *, is_dry: bool) -> None:
        """Print accounts before and after, and what became of rows."""
        before, after = difference.before, difference.after
        self.table(
            ("", "before", "after", ""),
            [
                (
                    name,
                    before[name],
                    after[name],
                    f"{after[name] - before[name]:+,}" if after[name] != before[name] else "",
                )
                for name in ACCOUNT
            ],
            right=("before", "after", ""),
        )
        self.line()
        if difference.tables:
            self.table(
                ("rows", "new", "changed", "gone", "columns changed"),
                [
                    (name, rows.new, rows.changed, rows.gone, _columns(rows.columns))
                    for name, rows in sorted(difference.tables.items())
                ],
                right=("new", "changed", "gone"),
            )
        else:
            self.line("No row would change." if is_dry else "No row changed.", "green")
        if difference.read_otherwise:
            columns = {name: count for name, count in difference.read_otherwise.items() if name != "messages"}
            self.line(
                f"\nStored otherwise than this version reads these bodies: "
                f"{counted(difference.read_otherwise['messages'], 'message')} ({_columns(columns)}). "
                "That stays: a message is what its first copy said.",
                "yellow",
            )


def difference_json(difference: Difference) -> dict[str, Any]:
    """Return a difference as scripts get it."""
    return {
        "account": {
            "before": {name: difference.before[name] for name in ACCOUNT},
            "after": {name: difference.after[name] for name in ACCOUNT},
        },
        "rows": {
            table: {
                "new": rows.new,
                "changed": rows.changed,
                "gone": rows.gone,
                "columns": dict(sorted(rows.columns.items())),
            }
            for table, rows in sorted(difference.tables.items())
        },
        "read_otherwise": dict(difference.read_otherwise),
    }


def counted(number: int, noun: str) -> str:
    """Return "1 body" or "2 bodies"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def age(then: str | None, *, now: datetime) -> str:
    """Return how long ago a database's time was, in its largest unit; "–" if never."""
    if then is None:
        return "–"
    seconds = (now - datetime.fromisoformat(then)).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def second(then: str | None) -> str:
    """Return a database's time to the second, in UTC."""
    return "–" if then is None else f"{datetime.fromisoformat(then).astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _columns(columns: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(columns.items()))


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, highlight=False, markup=False, emoji=False, width=None if stream.isatty() else _PIPE_WIDTH
    )
