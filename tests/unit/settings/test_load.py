"""A half-configured process says all that is missing on one screen, and never what it was given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.ai_worker.settings import Settings as AiWorkerSettings
from services.api.settings import Settings as ApiSettings
from services.ingest.settings import IngestSettings, RecorderSettings
from shared.settings.groups import ProcessSettings
from shared.settings.load import load

SECRET = "hunter2-never-printed"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing but what the test sets."""
    for group in ("ANTHROPIC", "DATABASE", "REDIS", "HTTP", "SUPABASE", "WHATSAPP", "LOG", "SLOTS"):
        for name in [group, *(f"{group}_{rest}" for rest in ("URL", "LEVEL", "PORT", "INTERNAL_PORT", "PROXY"))]:
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.chdir(tmp_path)


def refusal(settings: type[ProcessSettings], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The screen a process leaves behind when it refuses to start."""
    with pytest.raises(SystemExit) as caught:
        load(settings)
    assert caught.value.code == 2
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    printed = capsys.readouterr()
    assert printed.out == ""
    assert SECRET not in printed.err
    return [line for line in printed.err.splitlines() if not line.startswith("Each with an example")]


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (AiWorkerSettings, ["ANTHROPIC_API_KEY", "DATABASE_URL", "REDIS_URL"]),
        (IngestSettings, ["DATABASE_URL", "REDIS_URL", "WHATSAPP_APP_SECRETS", "WHATSAPP_VERIFY_TOKEN"]),
        (RecorderSettings, ["DATABASE_URL", "REDIS_URL"]),
        (ApiSettings, ["DATABASE_URL", "SUPABASE_URL"]),
    ],
)
def test_all_that_is_missing_stands_on_one_screen(
    settings: type[ProcessSettings], missing: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = refusal(settings, capsys)

    told = [line.split()[0] for line in lines[1:]]
    assert set(missing) <= set(told)
    assert len(told) == len(set(told))
    assert all("is missing. " in line for line in lines[1:] if line.split()[0] in missing)


def test_what_is_there_is_not_told_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://parley:{SECRET}@db/parley")
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)

    lines = refusal(AiWorkerSettings, capsys)

    assert lines == [
        "Cannot start: services.ai_worker lacks settings.",
        "  REDIS_URL                is missing. e.g. redis://:password@host:6379/0",
    ]


def test_an_empty_variable_is_a_missing_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@redis/0")
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)

    assert [line.split()[0] for line in refusal(AiWorkerSettings, capsys)[1:]] == ["DATABASE_URL"]


@pytest.mark.parametrize(
    "name",
    ["DATABASE_MAX_CONNECTIONS", "DATABASE_TIMEOUT_S", "HTTP_INTERNAL_PORT", "SLOTS", "LOG_LEVEL", "ANTHROPIC_MODEL"],
)
def test_a_wrong_value_is_named_but_never_printed(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://parley:{SECRET}@db/parley")
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@redis/0")
    monkeypatch.setenv(name, SECRET)

    assert [line.split()[0] for line in refusal(AiWorkerSettings, capsys)[1:]] == [name]


def test_a_variable_named_like_a_group_is_told_not_thrown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE", SECRET)

    [line] = refusal(AiWorkerSettings, capsys)

    assert line.startswith("Cannot start: services.ai_worker: ")
    assert '"database"' in line


def test_settings_once_built_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, SECRET)

    settings = load(AiWorkerSettings)

    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert settings.anthropic.api_key.get_secret_value() == SECRET


def test_the_screen_ends_with_where_each_setting_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(RecorderSettings)

    place = capsys.readouterr().err.splitlines()[-1]
    root = Path(__file__).parents[3]
    named = re.findall(r"[\w./]+\.(?:example|md)", place)
    assert named == [".env.example", "services/ingest/README.md"]
    assert all((root / name).is_file() for name in named)
