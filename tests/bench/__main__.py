"""Run the benchmarks, print a table, write bench.json."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from tests.bench import size
from tests.bench.figure import Figure
from tests.bench.progress import listener

BENCHMARKS = {
    "idle": "resting memory of each process; seconds from `make run` to ready",
    "intake_accept": "webhooks accepted per second, each on disk before its 200, beside a bare server",
    "record": "messages recorded per second",
    "intake_end_to_end": "events per second from accept to committed rows, one item a body",
    "intake_batched": "the same, a hundred items a body",
    "intake_vs_rq": "the same beside one RQ job per webhook",
    "intake_growth": "time for twice the events over time for once",
    "intake_at_a_million": "time per event with a million messages there over with none",
    "intake_scale": "what a second recorder adds to the first",
    "sender_rate": "messages one dispatcher sends and records, beside a bare loop over its client",
    "sender_end_to_end": "messages per second with status webhooks coming back and recorded",
    "sender_pacing": "messages per second of one number through two dispatchers, and what Meta refused",
    "sender_latency": "from POST /send to Meta's acceptance, step by step",
    "ai_rate": "analyses one worker stores per second, its memory and CPU, beside an RQ job per call",
    "ai_calls": "Claude calls per 100 customer messages in bursts of five; input tokens with and without caching",
    "ai_latency": "from webhook to stored analysis under light load, less Claude's own time",
    "soak_memory": "memory of ingest and recorder after ten minutes at full load over after two",
}
SAME_RUN = {"ai_memory": "ai_rate", "ai_cpu": "ai_rate"}  # figures that another benchmark has with its own
_WIDTH = 130  # characters, into a file or a pipe
ON_DEMAND = ("soak_memory",)  # minutes each: only when named


def main() -> int:
    """Run all, or the named ones."""
    arguments = _arguments()
    os.environ[size.VARIABLE] = str(arguments.size)
    console = Console(stderr=True)
    figures: list[Figure] = []
    try:
        for name in arguments.only:
            with console.status(f"{name}: {BENCHMARKS[name]}") as status:
                listener.set(status.update)
                figures += asyncio.run(importlib.import_module(f"tests.bench.{name}").measure())
    finally:  # one that fails must not cost the minutes before it
        _report(figures, as_json=arguments.json)
    return 0


def _report(figures: list[Figure], *, as_json: bool) -> None:
    text = json.dumps({figure.name: _written(figure) for figure in figures}, indent=2) + "\n"
    (Path(__file__).parents[2] / "bench.json").write_text(text)
    if as_json:
        sys.stdout.write(text)
    else:
        Console(width=None if sys.stdout.isatty() else _WIDTH).print(_table(figures))
    for figure in figures:
        if figure.note:
            Console(stderr=True).print(f"[dim]{figure.name}:[/] {figure.note}", highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench",
        description="Figures beside this machine's limit. Ratios compare across machines; absolute figures do not.",
        epilog="\n".join(f"  {name:<20} {what}" for name, what in BENCHMARKS.items())
        + f"\n\nThe first word of several is enough (intake). Only when named: {', '.join(ON_DEMAND)}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("only", nargs="*", help="names of benchmarks (default: all)")
    parser.add_argument("--json", action="store_true", help="print bench.json instead of the table")
    parser.add_argument(
        "--size", type=float, default=size.size(), metavar="FACTOR",
        help="scale the seconds and counts of intake_* and soak_*, for a quick look (default: $BENCH_SIZE, else 1)",
    )  # fmt: skip
    arguments = parser.parse_args()
    wanted = arguments.only or [name for name in BENCHMARKS if name not in ON_DEMAND]
    unknown = [word for word in wanted if not _named(word)]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    arguments.only = list(dict.fromkeys(name for word in wanted for name in _named(word)))
    return arguments


def _named(word: str) -> list[str]:
    """Return the benchmarks of that name, or with that first word: `intake` is all of them, `intake.scale` one."""
    name = word.replace(".", "_")
    name = SAME_RUN.get(name, name)
    return [name] if name in BENCHMARKS else [known for known in BENCHMARKS if known.startswith(f"{name}_")]


def _written(figure: Figure) -> dict[str, object]:
    written: dict[str, object] = {
        "value": figure.value, "unit": figure.unit, "limit": figure.limit, "ratio": figure.ratio,
    }  # fmt: skip
    if figure.wish:
        written |= {"wish": figure.wish, "is_met": figure.is_met}
    return written | ({"note": figure.note} if figure.note else {})


def _table(figures: list[Figure]) -> Table:
    table = Table()
    columns: tuple[tuple[str, Literal["left", "right"]], ...] = (
        ("figure", "left"),
        ("value", "right"),
        ("unit", "left"),
        ("wish", "left"),
        ("limit", "right"),
        ("ratio", "right"),
        ("the limit is", "left"),
    )
    for header, justify in columns:
        table.add_column(header, justify=justify, no_wrap=header == "figure")
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.value:,.{_digits(figure.value)}f}",
            figure.unit,
            figure.wish and f"{figure.wish} {'✓' if figure.is_met else '✗'}",
            f"{figure.limit:,.{_digits(figure.limit)}f}" if figure.limit else "",
            f"{figure.ratio:.2f}" if figure.limit else "",
            figure.limit_is,
        )
    return table


def _digits(value: float) -> int:
    return 1 if abs(value) >= 10 else 2


if __name__ == "__main__":
    sys.exit(main())
