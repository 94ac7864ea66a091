"""A run and a comparison as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tests.evals import figures
from tests.evals.compare import Change, Gate, chance
from tests.evals.judge import NO_ANSWER
from tests.evals.results import Judged, Results
from tests.evals.sets import LabelledSet, language_of

SANDBOX_WARNING = (
    "This was the sandbox, which knows a few hundred words and no prompt. It is not expected to score well: the run "
    "shows that the machinery works. Set ANTHROPIC_API_KEY to measure a prompt."
)
_MOST_MISTAKES = 10  # per field; the report shows them all
_WEAK, _FAIR = 0.6, 0.85  # where a share is shown in red, and where no longer in yellow


def run_tables(results: Results) -> RenderableType:
    """Show one run."""
    return Group(*_run_parts(results))


def _run_parts(results: Results) -> Iterator[RenderableType]:
    if results.api == "sandbox":
        yield Panel(SANDBOX_WARNING, border_style="yellow", width=120)
    yield Text(
        f"{results.prompt_version} ({results.prompt}) on {results.model}, {results.started_at:%Y-%m-%d %H:%M} UTC: "
        f"{len(results.calls)} conversations, {len(results.messages)} messages in {results.took_s:.1f} s",
        style="bold",
    )
    yield _field_table(results.messages)
    for field in ("sentiment", "priority"):
        yield _confusion_table(results.messages, field)
    yield _mistakes_table(results.messages)
    yield _group_table("Accuracy by language", figures.by_language(results.messages))
    yield _group_table("Accuracy by hard case", figures.by_tag(results.messages))
    yield _cost_table(results)


def _field_table(messages: Sequence[Judged]) -> Table:
    table = Table("field", title="Accuracy and calibration", title_justify="left")
    for name in ("right", "judged", "accuracy", "95 %", "ECE", "Brier"):
        table.add_column(name, justify="right")
    for field in figures.fields(messages):
        accuracy, calibration = figures.accuracy(messages, field), figures.calibration(messages, field)
        low, high = accuracy.interval
        table.add_row(
            field,
            str(accuracy.right),
            str(accuracy.judged),
            _share(accuracy.share),
            f"{low:.0%} to {high:.0%}",
            f"{calibration.ece:.3f}" if calibration else "",
            f"{calibration.brier:.3f}" if calibration else "",
        )
    return table


def _confusion_table(messages: Sequence[Judged], field: str) -> Table:
    counts = figures.confusion(messages, field)
    expected = sorted({one for one, _ in counts})
    said = sorted({one for _, one in counts}, key=lambda one: (one == NO_ANSWER, one))
    table = Table("expected \\ said", title=f"Confusion: {field}", title_justify="left")
    for name in said:
        table.add_column(name, justify="right")
    for wanted in expected:
        cells = [
            Text(
                str(counts[wanted, name] or "·"),
                style="green" if wanted == name else "red" if counts[wanted, name] else "dim",
            )
            for name in said
        ]
        table.add_row(wanted, *cells)
    return table


def _mistakes_table(messages: Sequence[Judged]) -> Table:
    """Show the most frequent mistakes of the fields with many values."""
    table = Table("field", "expected", "said", title="Most frequent mistakes", title_justify="left")
    table.add_column("times", justify="right")
    for field in ("intent", "language"):
        wrong = Counter({pair: n for pair, n in figures.confusion(messages, field).items() if pair[0] != pair[1]})
        for (expected, said), count in wrong.most_common(_MOST_MISTAKES):
            table.add_row(field, expected, said, str(count))
    return table


def _group_table(title: str, groups: dict[str, list[Judged]]) -> Table:
    every = figures.fields([message for group in groups.values() for message in group])
    table = Table("", title=title, title_justify="left")
    for name in ("messages", *every):
        table.add_column(name, justify="right")
    for name, messages in sorted(groups.items()):
        shares = [figures.accuracy(messages, field) for field in every]
        table.add_row(name, str(len(messages)), *(_share(one.share) if one.judged else Text("·") for one in shares))
    return table


def _cost_table(results: Results) -> Table:
    table = Table(title="Cost and time", title_justify="left", show_header=False)
    latencies = [call.latency_ms for call in results.calls]
    per_thousand = results.cost_usd / max(1, len(results.messages)) * 1000
    outcomes = Counter(call.outcome for call in results.calls)
    unpaid = " (by the sandbox's count of tokens; nothing was paid)" if results.api == "sandbox" else ""
    rows = {
        "cost": f"${results.cost_usd:.4f} in all, ${per_thousand:.4f} per 1,000 messages{unpaid}",
        "tokens": f"{results.input_tokens:,} in ({figures.cache_read_share(results):.0%} of them read from the cache),"
        f" {results.output_tokens:,} out",
        "latency": ", ".join(f"p{p} {figures.percentile(latencies, p / 100):,.0f} ms" for p in (50, 90, 99)),
        "calls": ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def comparison_table(before: Results, after: Results, changes: Sequence[Change]) -> Table:
    """Show two runs side by side."""
    table = Table(
        "field",
        title=f"{before.prompt_version} ({before.prompt}) → {after.prompt_version} ({after.prompt})",
        title_justify="left",
        caption="mended, broken: messages that changed sides. p: McNemar, exact. 95 %: bootstrap over conversations.",
        caption_justify="left",
    )
    for name in ("before", "after", "difference", "95 %", "mended", "broken", "p", ""):
        table.add_column(name, justify="right")
    for change in changes:
        low, high = change.interval
        colour = ("green" if change.difference > 0 else "red") if change.is_significant else "dim"
        table.add_row(
            change.field,
            _share(change.before.share),
            _share(change.after.share),
            Text(f"{change.difference * 100:+.1f}", style=colour),
            f"{low * 100:+.1f} to {high * 100:+.1f}",
            str(change.mended),
            str(change.broken),
            chance(change.p),
            Text("significant" if change.is_significant else "may be chance", style=colour),
        )
    cost = [float(run.cost_usd) / max(1, len(run.messages)) * 1000 for run in (before, after)]
    slow = [figures.percentile([call.latency_ms for call in run.calls], 0.5) for run in (before, after)]
    table.add_section()
    table.add_row("$ per 1,000", f"{cost[0]:.4f}", f"{cost[1]:.4f}", f"{cost[1] - cost[0]:+.4f}", *[""] * 5)
    table.add_row("p50 in ms", f"{slow[0]:,.0f}", f"{slow[1]:,.0f}", f"{slow[1] - slow[0]:+,.0f}", *[""] * 5)
    return table


def gate_panel(gate: Gate) -> Panel:
    """Show whether a change may pass."""
    if gate.is_open:
        return Panel(
            "The gate is open: nothing got worse by more than chance, or by more than is allowed.", style="green"
        )
    return Panel("\n".join(["The gate is closed:", *(f"· {one}" for one in gate.complaints)]), style="red")


def set_table(labelled: LabelledSet) -> Table:
    """Show how a set is made up."""
    table = Table(
        "", title=f"{len(labelled.examples)} conversations, {labelled.messages} messages", title_justify="left"
    )
    languages = sorted({language_of(example) for example in labelled.examples})
    for language in (*languages, "all"):
        table.add_column(language, justify="right")
    for kind, counted in _counted(labelled).items():
        table.add_section()
        for name in sorted({name for _, name in counted}):
            counts = [counted[language, name] for language in languages]
            table.add_row(f"{kind} {name}", *(str(count or "·") for count in counts), str(sum(counts)))
    return table


def _counted(labelled: LabelledSet) -> dict[str, Counter[tuple[str, str]]]:
    counted: dict[str, Counter[tuple[str, str]]] = {
        "": Counter((language_of(example), "conversations") for example in labelled.examples),
        "case": Counter((language_of(example), tag) for example in labelled.examples for tag in example.tags),
    }
    messages = [(language_of(e), message.labels) for e in labelled.examples for message in e.new_messages]
    counted["sentiment"] = Counter((language, labels.sentiment) for language, labels in messages if labels.sentiment)
    counted["intent"] = Counter((language, labels.intents[0]) for language, labels in messages if labels.intents)
    counted["priority"] = Counter(
        (language, str(labels.priorities[0])) for language, labels in messages if labels.priorities
    )
    return counted


def _share(share: float) -> Text:
    style = "red" if share < _WEAK else "yellow" if share < _FAIR else "green"
    return Text(f"{share:.1%}", style=style)
