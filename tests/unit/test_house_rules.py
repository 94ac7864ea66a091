"""The conventions a machine can check, read off the repository itself."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from services.api.web import make_app as make_api
from services.sender.web import make_app as make_sender
from shared.auth.person import signed_in_person
from shared.queue import jobs
from shared.queue.streams import STREAM

ROOT = Path(__file__).parents[2]

# Where everything unexpected may be caught: the runner, the edges of a process, and where a failure must be told to
# whoever waits.
BROAD_EXCEPTS = {
    "shared/queue/runner.py",  # the runner
    "services/ai_worker/analyst.py",  # the runner of an analysis: its lease expires, the row is tried again
    "services/ai_worker/worker.py",  # the process's edge: the loop's thread
    "services/sender/chores.py",  # the runner of a chore: it is tried again, and the others go on
    "services/ingest/make_durable.py",  # callers wait for an answer
    "services/ingest/record_isolated.py",  # what was recorded before: one we stumble over must not stop the others
    "services/sender/picture.py",  # a picture somebody made to break its decoder must stop nothing else
    "services/ingest/recorder.py",  # an entry that fails for ever is quarantined
}
# Who may read the environment: settings, and what starts processes.
READS_ENVIRONMENT = {"shared/store/migrate.py"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "service"}


def tracked(*suffixes: str) -> list[Path]:
    """Files git knows or would add, so that the rule meets a file before it is committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = (
        listed.stdout.splitlines() if listed.returncode == 0 else [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
    )
    return [ROOT / name for name in names if name.endswith(suffixes) and (ROOT / name).is_file()]


def product_modules() -> Iterator[tuple[str, ast.Module]]:
    for path in tracked(".py"):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("shared/", "services/")):
            yield name, ast.parse(path.read_text())


def test_every_job_names_a_handler_that_exists() -> None:
    declared = jobs.Job.__subclasses__()

    for job in declared:
        module, _, function = job.handler.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function)), job.handler

    assert declared


def test_every_queue_and_stream_has_a_consumer() -> None:
    sources = {name: ast.unparse(tree) for name, tree in product_modules()}

    for job in jobs.Job.__subclasses__():
        consumers = [
            name for name, text in sources.items() if f"{job.__name__}.queue" in text and "SimpleWorker" in text
        ]
        assert consumers, f"nobody works on queue {job.queue}"
    assert any("WebhookStream(" in text for name, text in sources.items() if name.startswith("services/")), STREAM


API = make_api(
    inbox=None,
    conversations=None,
    account_events=None,
    channels=None,
    token_public_key=None,
    templates=None,
    bulk_sends=None,
    corrections=None,
    contacts=None,
    verifier=None,
)  # type: ignore[arg-type]  routes only
SENDER = make_sender(sending=None, bell=None, verifier=None)  # type: ignore[arg-type]  routes only


@pytest.mark.parametrize(
    ("app", "some"),
    [(API, {"/api/me", "/api/whatsapp/conversations"}), (SENDER, {"/api/whatsapp/send", "/api/whatsapp/typing"})],
    ids=["api", "sender"],
)
def test_every_route_needs_a_signed_in_person(app: FastAPI, some: set[str]) -> None:
    routes = [
        route
        for route in _routes(app.routes)
        if isinstance(route, APIRoute) and not route.path.startswith(app.state.docs_url)  # open: nothing of anyone's
    ]

    assert some <= {route.path for route in routes}
    for route in routes:
        calls = {dependency.call for dependency in route.dependant.dependencies}
        assert signed_in_person in calls, f"{route.path} is open"


@pytest.mark.parametrize("app", [API, SENDER], ids=["api", "sender"])
def test_openapi_tells_problems_by_their_media_type(app: FastAPI) -> None:
    document = app.openapi()

    answers = [
        answer
        for operations in document["paths"].values()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
        if status.startswith(("4", "5"))
    ]
    assert len(answers) > 10
    assert all(set(answer["content"]) == {"application/problem+json"} for answer in answers)


def _routes(routes: object) -> Iterator[object]:
    for route in routes:  # type: ignore[attr-defined]
        inner = getattr(getattr(route, "original_router", None), "routes", None)
        if inner is None:
            yield route
        else:
            yield from _routes(inner)


@pytest.mark.parametrize("path", sorted((ROOT / "supabase" / "migrations").glob("*")), ids=lambda p: p.name)
def test_migration_follows_the_form(path: Path) -> None:
    text = path.read_text()
    statements = re.sub(r"--[^\n]*", "", text)

    assert re.fullmatch(r"\d{14}_[a-z0-9_]+\.sql", path.name)
    assert text.index("set lock_timeout") < text.index("create")
    assert text.rstrip().endswith("notify pgrst, 'reload schema';")
    for table in re.findall(r"create table ([\w.]+\w) ", statements):
        assert f"alter table {table} enable row level security" in statements, table
        assert f"comment on table {table} is" in statements, table
        if table.startswith("public."):
            assert re.search(rf"revoke all on [^;]*{re.escape(table)}[,\s][^;]*from anon", statements), table
    functions = re.split(r"(?=create function )", statements)[1:]
    for function in functions:
        name = re.match(r"create function ([\w.]+)", function)
        assert name is not None
        assert "set search_path = ''" in function.split("as $$")[0], name[1]
        assert re.search(rf"revoke execute on function {re.escape(name[1])} from public", statements), name[1]


def test_no_module_has_a_name_that_says_nothing() -> None:
    for path in tracked(".py"):
        assert path.stem not in VAGUE_NAMES, path
        assert path.parent.name not in VAGUE_NAMES, path


def test_unexpected_errors_are_caught_only_where_listed() -> None:
    found = {
        name
        for name, tree in product_modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
    }

    assert found == BROAD_EXCEPTS


def test_nobody_reads_the_environment_but_settings() -> None:
    found = {name for name, tree in product_modules() if re.search(r"os\.(environ|getenv)", ast.unparse(tree))}

    assert found == READS_ENVIRONMENT


def test_log_events_are_a_noun_and_a_past_verb() -> None:
    for name, tree in product_modules():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
            ):
                event = node.args[1 if node.func.attr == "log" else 0]
                if isinstance(event, ast.Constant):
                    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", str(event.value)), f"{name}: {event.value}"


def test_metric_labels_have_few_values() -> None:
    from shared.telemetry import metrics

    allowed = {
        "answer",
        "where",
        "index",
        "outcome",
        "queue",
        "model",
        "kind",
        "route",
        "status",
        "type",
        "cause",
        "task",
    }
    for name in dir(metrics):
        assert set(getattr(getattr(metrics, name), "_labelnames", ())) <= allowed, name


def test_no_file_names_a_download_host_or_a_path_of_a_machine() -> None:
    # Spelled in parts, so that this file does not name them either.
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("registry", "npmjs", "org"), ("pythonhosted", "org"))]
    here = str(ROOT.parent) + "/"
    for path in tracked(".py", ".md", ".txt", ".toml", ".json", ".sql", ".yml", ".yaml", "Makefile", ".npmrc", "run"):
        if "fixtures" in path.parts:
            continue
        text = path.read_text()
        for forbidden in (*hosts, here) if len(here) > 4 else hosts:
            assert forbidden not in text, f"{path.name} names {forbidden}"


@pytest.mark.parametrize("name", ["runtime", "local", "dev"])
def test_locks_pin_every_package_with_hashes_and_without_addresses(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    pinned = re.findall(r"^([a-z0-9-]+(?:\[[a-z,]+\])?)==", text, re.MULTILINE)

    assert len(pinned) > 20
    assert text.count("--hash=sha256:") >= len(pinned)
    assert "://" not in text


def test_the_larger_lock_holds_the_smaller_one() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        return set(re.findall(r"^([a-z0-9-]+(?:\[[a-z,]+\])?==\S+)", text, re.MULTILINE))

    assert pins("runtime") < pins("local") < pins("dev")


def test_fixtures_have_a_row_each_in_their_manifest() -> None:
    folder = ROOT / "tests" / "fixtures" / "webhooks"
    manifest = json.loads((folder / "MANIFEST.json").read_text())

    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"MANIFEST.json"}

    assert files == {fixture["file"] for fixture in manifest["fixtures"]}
