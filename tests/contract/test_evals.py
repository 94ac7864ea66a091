"""`make eval` as a person runs it: without a key, with one, with a baseline; and what it does when Claude balks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.ai_worker.claude import Claude, connect
from tests.evals.ask import Candidate, NotAuthorised, evaluate, patient
from tests.evals.results import Results, read_results
from tests.evals.sets import FOLDER, LabelledSet, choose, read_sets

from .conftest import ROOT, Sandbox

MODEL = "claude-haiku-5-5"


async def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command where nobody sits at the terminal: (exit status, stdout, stderr)."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.evals", *arguments),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")} | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture(scope="module")
async def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A run without a key over two examples of each language: its folder, its figures, what it said on the side."""
    folder = tmp_path_factory.mktemp("evals")
    out, html = folder / "results.json", folder / "report.html"
    status, shown, said = await run("--limit", "12", "--json", "--out", str(out), "--html", str(html))
    assert status == 0, said
    return folder, json.loads(shown), said


async def test_without_a_key_it_starts_a_sandbox_and_says_what_that_is_worth(
    first_run: tuple[Path, dict[str, Any], str],
) -> None:
    folder, figures, _ = first_run

    assert (figures["api"], figures["model"], figures["examples"]) == ("sandbox", MODEL, 12)
    assert set(figures["by_language"]) == {"en", "pt-BR", "es", "de", "fr", "sv"}
    assert figures["outcomes"] == {"ok": 12}
    assert figures["fields"]["sentiment"]["judged"] == figures["messages"] >= 12
    assert "not expected to score well" in (folder / "report.html").read_text("utf-8")


async def test_the_report_stands_alone(first_run: tuple[Path, dict[str, Any], str]) -> None:
    page = (first_run[0] / "report.html").read_text("utf-8")

    assert page.count("<svg") >= 4
    assert not re.search(r"<script|<link|<img|<iframe|https?://|@import|url\(", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


async def test_a_run_that_does_worse_than_its_baseline_is_refused(
    first_run: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    kept, better, html = first_run[0] / "results.json", tmp_path / "better.json", tmp_path / "report.html"
    better.write_text(re.sub(r'"is_right":\s*false', '"is_right": true', kept.read_text("utf-8")), "utf-8")

    status, shown, _ = await run(
        *("--from", str(kept), "--gate", str(better), "--html", str(html), "--limit", "12", "--json")
    )

    figures = json.loads(shown)
    assert status == 1
    assert not figures["gate"]["is_open"]
    assert {change["field"] for change in figures["changes"]} == set(figures["fields"])
    assert "The gate is closed" in html.read_text("utf-8")


async def test_with_a_key_nothing_is_spent_before_a_yes(calm: Sandbox) -> None:
    status, shown, said = await run("--limit", "6", ANTHROPIC_API_KEY="key", ANTHROPIC_BASE_URL=calm.url)

    assert (status, shown) == (2, "")
    assert re.search(r"6 calls to claude-haiku-5-5 at http.*: about \$\d+\.\d+, at most \$\d+\.\d+", said)
    assert "add --yes" in said
    assert calm.calls()["count"] == 0


# --- asking -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def claude(calm: Sandbox) -> AsyncIterator[Claude]:
    async with connect(api_key="sandbox", base_url=calm.url, timeout_s=5) as client:
        yield Claude(client, model=MODEL, timeout_s=5, prompt="Analyse the messages.", breaker=patient())


SOME: LabelledSet = choose(read_sets([FOLDER]), languages=["en"], tags=[], most=6)


async def ask(claude: Claude) -> Results:
    candidate = Candidate("draft.md", "Analyse the messages.")
    return await evaluate(SOME, claude, candidate=candidate, model=MODEL, api="sandbox", at_once=3, pauses_s=(0.0, 0.0))


async def test_no_more_calls_are_in_flight_than_allowed_and_the_prompt_is_the_one_given(
    claude: Claude, calm: Sandbox
) -> None:
    calm.faults(claude={"latency_ms": 30}, record_prompts=True)

    await ask(claude)

    shown = calm.calls()
    assert (shown["count"], shown["most_in_flight"]) == (6, 3)
    assert {call["prompt"]["system"][0]["text"] for call in shown["calls"]} == {"Analyse the messages."}


async def test_an_overload_is_waited_out_and_counted(claude: Claude, calm: Sandbox) -> None:
    calm.faults(claude={"mode": "overloaded", "times": 2})

    results = await ask(claude)

    assert sum(call.tries for call in results.calls) == 8
    assert {call.outcome for call in results.calls} == {"ok"}
    assert results.unanswered == 0


async def test_what_is_never_answered_is_wrong_and_said_to_be_unanswered(claude: Claude, calm: Sandbox) -> None:
    calm.faults(claude={"mode": "server_error"})

    results = await ask(claude)

    assert results.unanswered == 6
    assert not any(verdict.is_right for message in results.messages for verdict in message.verdicts.values())


async def test_a_key_nobody_takes_ends_the_run_at_once(calm: Sandbox) -> None:
    # A 404 stands for the 401 here, as the worker takes them for the same: the sandbox accepts every key.
    async with connect(api_key="key", base_url=f"{calm.url}/nowhere", timeout_s=5) as client:
        with pytest.raises(NotAuthorised, match="does not accept the key"):
            await ask(Claude(client, model=MODEL, timeout_s=5))


async def test_results_come_back_from_their_file_as_they_were(claude: Claude, tmp_path: Path) -> None:
    results = await ask(claude)

    results.write(tmp_path / "new" / "results.json")

    assert read_results(tmp_path / "new" / "results.json") == results
