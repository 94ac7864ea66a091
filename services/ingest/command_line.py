"""What `python -m services.ingest` understands, and how it explains itself."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from shared.store.replay import Cursor

_EXITS = """
Exit status: 0 done, 1 something failed or is left, 2 the command cannot be understood or settings are missing.
"""

_QUARANTINE = """
What could not be recorded waits in quarantine, item by item. Nothing is lost: the bytes are in app.webhook_bodies.

  python -m services.ingest quarantine list                      what waits, and why
  python -m services.ingest quarantine show 0199f2c4-…           one body: its account, and what its items look like
  python -m services.ingest quarantine retry --all --dry-run     what would come of trying again
  python -m services.ingest quarantine retry --reason sqlstate_23514
  python -m services.ingest quarantine drop 0199f2c4-… 3 --yes   give up item 3

Prints ids, reasons and counts, never what people wrote, their names or numbers (but for show --reveal).
"""

_REPLAY = """
Reads stored webhooks with the parser of this version and records them again. Whatever is known already stays as it
is, so it can be repeated, interrupted, and run beside the recorders. Try it dry first (each batch by itself, so what
several would make, a new contact say, is counted several times):

  python -m services.ingest replay --from 2h --dry-run
  python -m services.ingest replay --from 2026-11-24T01:00 --to 2026-11-24T03:00
  python -m services.ingest replay --from 3d --only unrouted         what came before its number was connected
  python -m services.ingest replay --from 3d --after 2026-11-24T…/…  go on where another stopped

Times: 2026-11-24, 2026-11-24T01:00 (UTC unless they say), 90m, 2h or 3d ago, now. A body is replayed whole, so with
--phone-number-id too every number in it is. Bodies older than the retention of raw webhooks are gone.
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options; `command` names the process or the operator's command.

    Exits: with status 2 and a sentence if they make no sense, with 0 for --help.
    """
    parser = argparse.ArgumentParser(
        prog="python -m services.ingest",
        description="Meta's webhooks: accept them (web, the default), record them (recorder), look after them.",
        epilog="Each has a --help with examples.",
        formatter_class=_formatter,
    )
    parser.set_defaults(command="web", action=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _leaf(commands, "web", "the webhook endpoint").set_defaults(command="web")
    _leaf(commands, "recorder", "writes what web accepted to the tables").set_defaults(command="recorder")
    _add_quarantine(commands)
    _add_replay(commands)
    return parser.parse_args(arguments)


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # argparse has no public name for it


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=110)


def _leaf(commands: _Commands, name: str, does: str, epilog: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog=epilog,
        formatter_class=_formatter,
    )
    return parser


def _add_quarantine(commands: _Commands) -> None:
    parser = _leaf(commands, "quarantine", "list, show, retry or drop what could not be recorded", _QUARANTINE + _EXITS)
    parser.set_defaults(command="quarantine")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    found = _leaf(actions, "list", "what is set aside, newest first, with totals by reason", _EXITS)
    found.set_defaults(action="list")
    found.add_argument("--state", choices=("open", "retried", "dropped", "all"), default="open", help="default: open")
    found.add_argument("--reason", metavar="CODE", help="only these: a reason, or its code before the colon")
    found.add_argument("--limit", type=_count, default=50, metavar="N", help="most rows shown (default: 50)")
    _json(found)

    shown = _leaf(actions, "show", "all that is known of a body, its values masked", _EXITS)
    shown.set_defaults(action="show")
    shown.add_argument("body_id", type=UUID, metavar="BODY_ID")
    shown.add_argument("item", type=_place, nargs="?", metavar="ITEM", help="one item; without it: those set aside")
    shown.add_argument(
        "--reveal", action="store_true", help="print what Meta sent, personal data included; it is logged"
    )
    _json(shown)

    tried = _leaf(actions, "retry", "record bodies again with this version's parser", _EXITS)
    tried.set_defaults(action="retry")
    which = tried.add_mutually_exclusive_group(required=True)
    # A list of its own default, or argparse takes an empty one for a choice made beside --all.
    which.add_argument("body_ids", type=UUID, nargs="*", default=[], metavar="BODY_ID")
    which.add_argument("--reason", metavar="CODE", help="all that are open for this reason, or its code")
    which.add_argument("--all", action="store_true", dest="everything", help="all that are open")
    tried.add_argument("--dry-run", action="store_true", help="say what would come of it, and change nothing")
    _json(tried)

    dropped = _leaf(actions, "drop", "give items up: their bytes stay until raw webhooks are deleted", _EXITS)
    dropped.set_defaults(action="drop")
    dropped.add_argument("body_id", type=UUID, metavar="BODY_ID")
    dropped.add_argument("items", type=_place, nargs="*", metavar="ITEM", help="these; without any: all open ones")
    dropped.add_argument("--yes", action="store_true", help="needed: nobody looks at a dropped item again")
    _json(dropped)


def _add_replay(commands: _Commands) -> None:
    parser = _leaf(
        commands, "replay", "read stored webhooks with this version's parser and record them again", _REPLAY + _EXITS
    )
    parser.set_defaults(command="replay")
    parser.add_argument(
        "--from", type=_time, required=True, dest="since", metavar="TIME", help="received then or later"
    )
    parser.add_argument(
        "--to", type=_time, dest="until", default="now", metavar="TIME", help="received before (default: now)"
    )
    parser.add_argument(
        "--after", type=_cursor, metavar="CURSOR", help="go on behind this body, as a replay printed it"
    )
    parser.add_argument("--only", choices=("unrouted", "quarantined"), help="only bodies with such items")
    parser.add_argument(
        "--phone-number-id", type=_digits, metavar="ID", help="only bodies that name this business number"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    parser.add_argument(
        "--batch", type=_count, default=200, metavar="N", help="most bodies a transaction (default: 200)"
    )
    _json(parser)


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", dest="as_json", help="one JSON object on standard output, for scripts"
    )


def time_of(text: str, *, now: datetime) -> datetime:
    """Return an aware time: ISO 8601 (UTC unless it says), "now", or so long ago: 90m, 2h, 3d. Raises: ValueError."""
    if text == "now":
        return now
    ago = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if ago is not None:
        return now - timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[ago[2]]: int(ago[1])})
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _time(text: str) -> datetime:
    try:
        return time_of(text, now=datetime.now(UTC))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: try 2026-11-24T01:00, 2h or now") from None


def _cursor(text: str) -> Cursor:
    try:
        return Cursor.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no cursor: copy it whole, TIME/ID, from what a replay printed"
        ) from None


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 2000:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1 and 2000")
    return int(text)


def _place(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no item: they are numbered from 0")
    return int(text)


def _digits(text: str) -> str:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no id of a business number: those are digits")
    return text
