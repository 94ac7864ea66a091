"""What `make eval` understands, and how it explains itself."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.evals.sets import FOLDER

_EXAMPLES = """
Without ANTHROPIC_API_KEY a sandbox is started and asked instead. It understands a little, so the run shows that the
machinery works, not how good the prompt is. With a key the price comes first, and nothing is spent before a yes.

  make eval                                               the packaged prompt, the whole set
  make eval args="--language sv --tag sarcasm"            some of it
  make eval args="--limit 20 --yes"                       a quick look, spread over the languages
  make eval args="--prompt draft.md"                      another prompt's text
  make eval args="--compare packaged draft.md"            two prompts side by side: McNemar's test, bootstrap intervals
  make eval args="--compare old.json new.json"            the same for two runs that were kept; asks nobody
  make eval args="--out baseline.json"                    keep a baseline …
  make eval args="--prompt draft.md --gate baseline.json" … and refuse a prompt that does worse
  make eval args="--from results.json"                    tables and report of a run that was kept
  make eval args="--check"                                read the sets, count them, ask nobody

Environment: ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL, ANTHROPIC_MODEL, as for the AI worker.
Files: results and report go to .local/evals/, unless --out and --html say otherwise. Both hold what Claude wrote about
the set's texts, and the report the texts that went wrong: what came from a workspace stays where it may be read.
Exit status: 0 done, 1 the gate is closed, 2 it could not be run, or not be compared.
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options. Exits: with status 2 and a sentence if they make no sense, with 0 for --help."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.evals",
        description="Put a labelled set before Claude: accuracy, confusion, calibration, cost, latency; a gate.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_what(parser)
    _add_how(parser)
    _add_where(parser)
    options = parser.parse_args(arguments)
    options.sets = options.sets or [FOLDER]
    if options.compare and (options.prompt or options.kept):
        parser.error("--compare names both prompts; leave out --prompt and --from")
    if options.compare and len({name.endswith(".json") for name in options.compare}) == 2:
        parser.error("--compare takes two prompts or two results files, not one of each")
    if options.gate and options.compare:
        parser.error("--gate compares with its baseline already; leave out --compare")
    return options


def _add_what(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is asked")
    what.add_argument(
        "--set", dest="sets", metavar="PATH", type=Path, action="append", help="a .jsonl file or a folder"
    )
    what.add_argument("--language", metavar="TAG", action="append", default=[], help="only this one: en, pt-BR, …")
    what.add_argument("--tag", metavar="TAG", action="append", default=[], help="only this hard case: sarcasm, …")
    what.add_argument("--limit", metavar="N", type=_positive, help="at most so many examples")
    what.add_argument("--prompt", metavar="FILE", help="the prompt's text; default: the packaged one")
    what.add_argument("--compare", metavar=("OLD", "NEW"), nargs=2, help="two prompts, or two results files")
    what.add_argument("--from", dest="kept", metavar="RESULTS", type=Path, help="show a run that was kept; ask nobody")
    what.add_argument("--check", action="store_true", help="only read and count the sets")


def _add_how(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how")
    how.add_argument("--model", help="default: ANTHROPIC_MODEL, else the AI worker's")
    how.add_argument("--concurrency", metavar="N", type=_positive, default=8, help="calls in flight (8)")
    how.add_argument("--timeout", metavar="SECONDS", type=float, default=60.0, help="of one call (60)")
    how.add_argument("--sandbox", action="store_true", help="ask the sandbox though there is a key")
    how.add_argument("--yes", action="store_true", help="spend what the estimate says without asking")


def _add_where(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("what comes of it")
    where.add_argument("--gate", metavar="BASELINE", type=Path, help="results to do no worse than; exit status 1 if so")
    where.add_argument("--most-drop", metavar="POINTS", type=float, default=5.0, help="accuracy a field may lose (5.0)")
    where.add_argument("--json", action="store_true", help="figures as JSON on stdout instead of tables")
    where.add_argument("--out", metavar="FILE", type=Path, help="the results, for --gate, --compare and --from")
    where.add_argument("--html", metavar="FILE", type=Path, help="the report, one file that needs no network")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
