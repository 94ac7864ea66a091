"""`python -m services.ai_worker`: let Claude read what customers wrote; with a command, do what an operator asks."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from services.ai_worker import worker
from services.ai_worker.settings import Settings
from shared.settings.load import load
from shared.telemetry.logs import configure_logs

_BACKFILL = """
Analyses what was passed over: history, what came while AI was off, small talk and what the budget did not reach.
Says the price first, and starts when you agree. It can be stopped and run again: it goes on where it ended.

  python -m services.ai_worker backfill --workspace 0199f2c4-… --since 30d --dry-run     only the price
  python -m services.ai_worker backfill --workspace 0199f2c4-… --since 2026-11-01        through the workers
  python -m services.ai_worker backfill --workspace 0199f2c4-… --since 30d --batch       at half the price, within a day
  python -m services.ai_worker backfill --workspace 0199f2c4-… --since 7d --again        also what another prompt read
"""


def main() -> None:
    """Start the worker, or do what an operator asks."""
    options = _parser().parse_args()
    if options.command == "export-corrections":
        from services.ai_worker.export_corrections import ExportSettings, export

        exported = asyncio.run(export(load(ExportSettings), workspace_id=options.workspace, out=options.out))
        sys.stderr.write(f"{exported.examples} examples written, {exported.left_out} corrections left out\n")
        return
    settings = load(Settings)
    if options.command == "backfill":
        from services.ai_worker.backfill import main as backfill

        configure_logs(service="ai_worker", process="backfill", level="warning", to=sys.stderr)
        raise SystemExit(backfill(options, settings))
    configure_logs(service="ai_worker", process="ai_worker", level=settings.log_level)
    worker.run(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.ai_worker", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    corrections = commands.add_parser(
        "export-corrections", help="write what agents corrected as labelled examples for the evaluation"
    )
    corrections.add_argument("--workspace", type=UUID, required=True, help="its id")
    corrections.add_argument("--out", type=Path, required=True, help="file of JSON lines; it is replaced")
    backfill = commands.add_parser(
        "backfill",
        help="analyse what was passed over, for a price that is said first",
        description=_BACKFILL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    backfill.add_argument("--workspace", type=UUID, required=True, help="its id")
    backfill.add_argument(
        "--since", type=since, required=True, help="2026-11-01, 2026-11-01T08:00 (UTC), 12h or 30d ago"
    )
    backfill.add_argument("--batch", action="store_true", help="by message batches: half the price, within a day")
    backfill.add_argument("--again", action="store_true", help="also what another version of the prompt analysed")
    backfill.add_argument("--dry-run", action="store_true", help="say the price and stop")
    backfill.add_argument("--yes", action="store_true", help="do not ask before starting")
    return parser


def since(text: str) -> datetime:
    """Read a time, or how long ago. Raises: ValueError."""
    if ago := re.fullmatch(r"(\d{1,5})([hd])", text):
        return datetime.now(UTC) - timedelta(**{"hours" if ago[2] == "h" else "days": int(ago[1])})
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


if __name__ == "__main__":
    main()
