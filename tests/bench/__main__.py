"""Run the benchmarks, print a table, write bench.json."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from tests.bench.figure import Figure

BENCHMARKS = {
    "idle": "resting memory of each process; seconds from `make run` to ready",
    "ingest": "webhooks accepted per second, each on disk before its 200",
    "record": "messages recorded per second",
}


def main() -> int:
    """Run all, or the named ones."""
    parser = argparse.ArgumentParser(
        prog="make bench",
        description="Figures beside this machine's limit. Ratios compare across machines; absolute figures do not.",
        epilog="\n".join(f"  {name:<8} {what}" for name, what in BENCHMARKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("only", nargs="*", help="names of benchmarks (default: all)")
    parser.add_argument("--json", action="store_true", help="print bench.json instead of the table")
    arguments = parser.parse_args()
    unknown = set(arguments.only) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")

    console = Console(stderr=True)
    figures: list[Figure] = []
    for name in arguments.only or BENCHMARKS:
        with console.status(f"{name}: {BENCHMARKS[name]}"):
            figures += asyncio.run(importlib.import_module(f"tests.bench.{name}").measure())
    written = {f.name: {"value": f.value, "unit": f.unit, "limit": f.limit, "ratio": f.ratio} for f in figures}
    text = json.dumps(written, indent=2) + "\n"
    (Path(__file__).parents[2] / "bench.json").write_text(text)
    if arguments.json:
        sys.stdout.write(text)
    else:
        Console().print(_table(figures))
    return 0


def _table(figures: list[Figure]) -> Table:
    table = Table()
    columns: tuple[tuple[str, Literal["left", "right"]], ...] = (
        ("figure", "left"),
        ("value", "right"),
        ("unit", "left"),
        ("limit", "right"),
        ("ratio", "right"),
        ("the limit is", "left"),
    )
    for header, justify in columns:
        table.add_column(header, justify=justify)
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.value:,.1f}",
            figure.unit,
            f"{figure.limit:,.1f}",
            f"{figure.ratio:.2f}",
            figure.limit_is,
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
