"""A run, or two, as one HTML page: no scripts, nothing loaded from anywhere, light and dark. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from services.ai_worker.examples import Example
from tests.evals import charts, figures
from tests.evals.compare import Change, Gate, chance
from tests.evals.judge import NO_ANSWER
from tests.evals.results import Judged, Results
from tests.evals.sets import LabelledSet
from tests.evals.tables import SANDBOX_WARNING

_STYLE = Path(__file__).with_name("page.css")
_CONFUSED = ("sentiment", "intent", "priority", "language")
_MOST_FAILURES = 400


def page(runs: Sequence[Results], changes: Sequence[Change], gate: Gate | None, labelled: LabelledSet) -> str:
    """Return the page about the last of these runs, compared with the first if there are two.

    Texts of examples are shown where the set at hand is the one the run was about.
    """
    run = runs[-1]
    texts = {example.id: example for example in labelled.examples} if labelled.sha256 == run.set_sha256 else {}
    sections = [
        _warning(run),
        _gate(gate) if gate else "",
        _tiles(run),
        _comparison(runs[0], run, changes) if changes else "",
        _section(
            "Accuracy",
            charts.accuracy_bars(_accuracies(run.messages)),
            "Bars: right of those judged. Whiskers: 95 % (Wilson).",
        ),
        _calibrations(run.messages),
        _section("By language", _heat(figures.by_language(run.messages))),
        _section("By hard case", _heat(figures.by_tag(run.messages))),
        _confusions(run.messages),
        _section("Time of a call", charts.latencies([call.latency_ms for call in run.calls])),
        _failures(run.messages, texts),
    ]
    title = f"Evaluation of {run.prompt_version}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        # Texts of strangers are in here: even one that is not escaped could load and run nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE.read_text('utf-8')}</style></head>"
        f"<body><header><h1>{escape(title)}</h1><p>{_about(run)}</p></header><main>{''.join(sections)}</main></body></html>\n"
    )


def _about(run: Results) -> str:
    return escape(
        f"Prompt {run.prompt}, model {run.model}, {run.started_at:%Y-%m-%d %H:%M} UTC, "
        f"{len(run.calls)} conversations with {len(run.messages)} messages, set {run.set_sha256}"
    )


def _warning(run: Results) -> str:
    return f'<p class="warning"><strong>Sandbox.</strong> {escape(SANDBOX_WARNING)}</p>' if run.api == "sandbox" else ""


def _gate(gate: Gate) -> str:
    if gate.is_open:
        return '<p class="gate open"><strong>The gate is open.</strong> Nothing got worse.</p>'
    items = "".join(f"<li>{escape(complaint)}</li>" for complaint in gate.complaints)
    return f'<div class="gate closed"><strong>The gate is closed.</strong><ul>{items}</ul></div>'


def _tiles(run: Results) -> str:
    latencies = [call.latency_ms for call in run.calls]
    per_thousand = run.cost_usd / max(1, len(run.messages)) * 1000
    tiles = [
        ("cost", f"${run.cost_usd:.4f}", f"${per_thousand:.3f} per 1,000 messages"),
        (
            "input tokens",
            f"{run.input_tokens:,}",
            f"{figures.cache_read_share(run):.0%} read from the cache",
        ),
        ("output tokens", f"{run.output_tokens:,}", f"{run.took_s:.1f} s in all"),
        (
            "latency, median",
            f"{figures.percentile(latencies, 0.5):,.0f} ms",
            f"p90 {figures.percentile(latencies, 0.9):,.0f} · p99 {figures.percentile(latencies, 0.99):,.0f}",
        ),
        ("calls", f"{len(run.calls)}", f"{sum(call.outcome != 'ok' for call in run.calls)} without a full answer"),
    ]
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(more)}</small></div>'
            for name, value, more in tiles
        )
        + "</div>"
    )


def _comparison(before: Results, after: Results, changes: Sequence[Change]) -> str:
    names = f"{before.prompt_version} ({before.prompt}) → {after.prompt_version} ({after.prompt})"
    rows = "".join(
        f"<tr><th>{escape(change.field)}</th><td>{change.before.share:.1%}</td><td>{change.after.share:.1%}</td>"
        f"<td>{change.difference * 100:+.1f}</td>"
        f"<td>{change.interval[0] * 100:+.1f} to {change.interval[1] * 100:+.1f}</td>"
        f"<td>{change.mended}</td><td>{change.broken}</td><td>{chance(change.p)}</td>"
        f"<td>{'significant' if change.is_significant else 'may be chance'}</td></tr>"
        for change in changes
    )
    head = "".join(
        f"<th>{name}</th>" for name in ("", "before", "after", "points", "95 %", "mended", "broken", "p", "")
    )
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    note = "p: McNemar's exact test over the messages that changed sides. Intervals: bootstrap over conversations."
    return _section("Side by side", f"<p>{escape(names)}</p>{charts.differences(changes)}{table}", note)


def _calibrations(messages: Sequence[Judged]) -> str:
    drawn = [
        charts.reliability(field, calibration)
        for field in figures.fields(messages)
        if (calibration := figures.calibration(messages, field))
    ]
    note = "Dots: answers of like confidence, larger for more. Below the diagonal Claude was surer than it should be."
    return _section("Calibration", f'<div class="row">{"".join(drawn)}</div>', note) if drawn else ""


def _heat(groups: dict[str, list[Judged]]) -> str:
    """Lay accuracies out as a table whose cells are as deep as the share is high."""
    every = figures.fields([message for group in groups.values() for message in group])
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", "messages", *every))
    rows = ""
    for name, messages in sorted(groups.items()):
        cells = ""
        for field in every:
            one = figures.accuracy(messages, field)
            cells += (
                f'<td class="heat" style="--share:{one.share:.2f}" title="{one.right} of {one.judged}">'
                f"{one.share:.0%}</td>"
                if one.judged
                else "<td>·</td>"
            )
        rows += f"<tr><th>{escape(name)}</th><td>{len(messages)}</td>{cells}</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _confusions(messages: Sequence[Judged]) -> str:
    tables = "".join(_confusion(messages, field) for field in _CONFUSED if field in figures.fields(messages))
    return _section("Confusion", tables, "Rows: what was expected. Columns: what Claude said.")


def _confusion(messages: Sequence[Judged], field: str) -> str:
    counts = figures.confusion(messages, field)
    expected = sorted({one for one, _ in counts})
    said = sorted({one for _, one in counts}, key=lambda one: (one not in expected, one == NO_ANSWER, one))
    totals = {row: sum(counts[row, column] for column in said) for row in expected}
    head = "".join(f'<th class="turned"><span>{escape(name)}</span></th>' for name in said)
    rows = "".join(
        f"<tr><th>{escape(row)}</th>"
        + "".join(
            f'<td class="heat{"" if row == column else " wrong"}"'
            f' style="--share:{counts[row, column] / totals[row]:.2f}">{counts[row, column] or ""}</td>'
            for column in said
        )
        + "</tr>"
        for row in expected
    )
    return (
        f'<h3>{escape(field)}</h3><div class="scroll"><table class="confusion"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _failures(messages: Sequence[Judged], texts: dict[str, Example]) -> str:
    wrong = [message for message in messages if any(not verdict.is_right for verdict in message.verdicts.values())]
    items = "".join(_failure(message, texts.get(message.example)) for message in wrong[:_MOST_FAILURES])
    return _section(f"What went wrong ({len(wrong)} of {len(messages)} messages)", items)


def _failure(message: Judged, example: Example | None) -> str:
    wrong = {field: verdict for field, verdict in message.verdicts.items() if not verdict.is_right}
    rows = "".join(
        f"<tr><th>{escape(field)}</th><td>{escape(verdict.expected)}</td><td>{escape(verdict.said)}</td>"
        f"<td>{'' if verdict.confidence is None else f'{verdict.confidence:.2f}'}</td>"
        f"<td>{escape(verdict.note)}</td></tr>"
        for field, verdict in wrong.items()
    )
    tags = "".join(f'<span class="tag">{escape(tag)}</span>' for tag in message.tags)
    said = "".join(_paragraphs(message, example))
    return (
        f"<details><summary><code>{escape(message.example)}</code> {tags} {escape(', '.join(wrong))}</summary>{said}"
        f"<table><thead><tr><th></th><th>expected</th><th>said</th><th>confidence</th><th></th></tr></thead>"
        f"<tbody>{rows}</tbody></table></details>"
    )


def _paragraphs(message: Judged, example: Example | None) -> Iterable[str]:
    if example is not None:
        for said in example.history:
            yield f'<p class="said"><b>{escape(said.who)}, before</b> {escape(said.text)}</p>'
        yield f'<p class="said new"><b>customer</b> {escape(example.new_messages[message.number].text)}</p>'
    if message.summary:
        yield f'<p class="said"><b>summary</b> {escape(message.summary)}</p>'
        yield f'<p class="said"><b>suggestion</b> {escape(message.suggested_response)}</p>'


def _accuracies(messages: Sequence[Judged]) -> list[tuple[str, figures.Accuracy]]:
    return [(field, figures.accuracy(messages, field)) for field in figures.fields(messages)]


def _section(title: str, body: str, note: str = "") -> str:
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{body}{below}</section>"
