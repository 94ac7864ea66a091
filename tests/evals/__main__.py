"""`make eval`: measure how well Claude understands; compare two prompts; refuse one that does worse."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from services.ai_worker.claude import Claude, connect
from services.ai_worker.pricing import PRICES
from services.ai_worker.settings import AnthropicSettings
from shared.telemetry.logs import configure_logs
from tests.evals import tables
from tests.evals.ask import Candidate, NotAuthorised, evaluate, patient
from tests.evals.command_line import parse
from tests.evals.compare import Change, Gate, compare, gate
from tests.evals.figures_json import changes_json, figures_json, gate_json
from tests.evals.page import page
from tests.evals.price import estimate
from tests.evals.results import Api, Results, UnusableResults, read_results
from tests.evals.sets import LabelledSet, UnusableSet, choose, read_sets
from tests.evals.stand_in import SandboxDidNotStart, sandbox

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".local" / "evals"
_WIDTH = 130  # characters, into a file or a pipe


class CannotRun(Exception):
    """The run makes no sense as asked; the sentence says what would."""


@dataclass(slots=True)
class Outcome:
    """What a command came to; the last run is what it was about. `fresh`: those not kept in a file yet."""

    runs: list[Results]
    fresh: list[Results] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    gate: Gate | None = None

    @property
    def status(self) -> int:
        return 1 if self.gate is not None and not self.gate.is_open else 0


@dataclass(frozen=True, slots=True)
class Target:
    """Whom we ask."""

    api: Api
    model: str
    key: str
    base_url: str | None  # None: a sandbox of our own


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    options = parse(arguments)
    configure_logs(service="evals", process="evals", level="error", to=sys.stderr)
    try:
        labelled = choose(read_sets(options.sets), languages=options.language, tags=options.tag, most=options.limit)
        if options.check:
            _show(tables.set_table(labelled))
            return 0
        outcome = _kept(options) or asyncio.run(_asked(options, labelled))
        _decide(options, outcome)
    except (CannotRun, UnusableSet, UnusableResults, NotAuthorised, SandboxDidNotStart) as problem:
        sys.stderr.write(f"Cannot evaluate: {problem}.\n")
        return 2
    _report(options, outcome, labelled)
    return outcome.status


def _kept(options: Namespace) -> Outcome | None:
    """Read the runs that are to be shown or compared; None when somebody has to be asked."""
    if options.kept:
        return Outcome([read_results(options.kept)])
    if options.compare and options.compare[0].endswith(".json"):
        return Outcome([read_results(Path(name)) for name in options.compare])
    return None


async def _asked(options: Namespace, labelled: LabelledSet) -> Outcome:
    """Ask Claude about the set, with each prompt in turn."""
    candidates = [_candidate(name) for name in options.compare or [options.prompt or "packaged"]]
    target = _target(options)
    if target.api != "sandbox":
        _agree_on_price(options, labelled, candidates, target)
    runs = []
    async with _address(target) as base_url:
        for candidate in candidates:
            runs.append(await _run(options, labelled, candidate, target, base_url))
    return Outcome(list(runs), fresh=runs)


async def _run(
    options: Namespace, labelled: LabelledSet, candidate: Candidate, target: Target, base_url: str
) -> Results:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(candidate.name, total=len(labelled.examples))
        async with connect(api_key=target.key, base_url=base_url, timeout_s=options.timeout) as client:
            return await evaluate(
                labelled,
                Claude(client, model=target.model, timeout_s=options.timeout, prompt=candidate.text, breaker=patient()),
                candidate=candidate,
                model=target.model,
                api=target.api,
                at_once=options.concurrency,
                on_done=lambda: progress.advance(bar),
            )


def _candidate(name: str) -> Candidate:
    if name == "packaged":
        return Candidate(name, None)
    try:
        return Candidate(Path(name).name, Path(name).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CannotRun(f"the prompt {name} cannot be read ({type(error).__name__})") from error


def _target(options: Namespace) -> Target:
    """Decide whom to ask: the sandbox without a key, else what the environment says."""
    key = os.environ.get("ANTHROPIC_API_KEY", "")
    default = AnthropicSettings.model_fields
    model = options.model or os.environ.get("ANTHROPIC_MODEL") or str(default["model"].default)
    if model not in PRICES:
        raise CannotRun(f"no price is known for {model}; known: {', '.join(PRICES)}")
    if options.sandbox or not key:
        return Target("sandbox", model, "sandbox", None)
    base_url = os.environ.get("ANTHROPIC_BASE_URL") or str(default["base_url"].default)
    is_real = (urlsplit(base_url).hostname or "").endswith("anthropic.com")
    return Target("anthropic" if is_real else "other", model, key, base_url)


@asynccontextmanager
async def _address(target: Target) -> AsyncIterator[str]:
    if target.base_url is not None:
        yield target.base_url
        return
    async with sandbox() as base_url:
        yield base_url


def _agree_on_price(options: Namespace, labelled: LabelledSet, candidates: Sequence[Candidate], target: Target) -> None:
    """Show what it will cost and get a yes. Raises: CannotRun without one."""
    cost = estimate(labelled, candidates=candidates, model=target.model)
    sys.stderr.write(
        f"{cost.calls} calls to {target.model} at {target.base_url}: about ${cost.expected:.3f},"
        f" at most ${cost.at_most:.2f} but for second tries.\n"
    )
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise CannotRun("nobody is there to agree to the price; add --yes")
    sys.stderr.write("Spend it? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
        raise CannotRun("nothing was asked, nothing was spent")


def _decide(options: Namespace, outcome: Outcome) -> None:
    """Compare what there is to compare. Raises: UnusableResults."""
    if options.gate:
        baseline = read_results(options.gate)
        outcome.gate = gate(baseline, outcome.runs[-1], most_drop=options.most_drop / 100)
        outcome.runs.insert(0, baseline)
    if len(outcome.runs) > 1:
        outcome.changes = compare(outcome.runs[0], outcome.runs[-1])


def _report(options: Namespace, outcome: Outcome, labelled: LabelledSet) -> None:
    """Write files and show tables, or JSON."""
    run = outcome.runs[-1]
    for fresh in outcome.fresh:
        file = (options.out if fresh is run else None) or _kept_as(fresh, "json")
        fresh.write(file)
        sys.stderr.write(f"Results: {file}\n")
    html = options.html or _kept_as(run, "html")
    html.parent.mkdir(parents=True, exist_ok=True)
    html.write_text(page(outcome.runs, outcome.changes, outcome.gate, labelled), "utf-8")
    sys.stderr.write(f"Report:  {html}\n")
    if options.json:
        sys.stdout.write(json.dumps(_as_json(outcome), indent=2, ensure_ascii=False) + "\n")
    else:
        _show(tables.run_tables(run))
        if outcome.changes:
            _show(tables.comparison_table(outcome.runs[0], run, outcome.changes))
        if outcome.gate:
            _show(tables.gate_panel(outcome.gate))


def _kept_as(run: Results, suffix: str) -> Path:
    return KEPT / f"{run.started_at:%Y%m%d-%H%M%S}-{run.prompt_version}-{run.model}.{suffix}"


def _as_json(outcome: Outcome) -> dict[str, Any]:
    shown: dict[str, Any] = figures_json(outcome.runs[-1])
    if outcome.changes:
        shown["compared_with"] = {"prompt": outcome.runs[0].prompt, "prompt_version": outcome.runs[0].prompt_version}
        shown["changes"] = changes_json(outcome.changes)
    if outcome.gate:
        shown["gate"] = gate_json(outcome.gate)
    return shown


def _show(what: RenderableType) -> None:
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(what)


if __name__ == "__main__":
    raise SystemExit(main())
