"""Secrets from files: each NAME also as NAME_FILE, never both, and nothing secret is told when it goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from services.ai_worker.settings import Settings as AiWorkerSettings
from services.api.settings import Settings as ApiSettings
from services.ingest.settings import IngestSettings, RecorderSettings
from shared.settings.load import load
from shared.settings.secret_files import secret_names

RECORDER = {"DATABASE_URL": "postgresql://u:p@host/d", "REDIS_URL": "redis://host"}


def given(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_a_secret_comes_from_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://u:from-a-file@host/d\n")
    given(monkeypatch, {"DATABASE_URL_FILE": str(file), "REDIS_URL": "redis://host"})

    assert load(RecorderSettings).database.url.get_secret_value() == "postgresql://u:from-a-file@host/d"


def test_several_app_secrets_come_from_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text("new, old\n")
    given(monkeypatch, RECORDER | {"WHATSAPP_APP_SECRETS_FILE": str(file), "WHATSAPP_VERIFY_TOKEN": "t"})

    assert [one.get_secret_value() for one in load(IngestSettings).whatsapp.app_secrets] == ["new", "old"]


def test_an_empty_variable_beside_the_file_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("redis://from-a-file")
    given(monkeypatch, RECORDER | {"REDIS_URL": "", "REDIS_URL_FILE": str(file)})

    assert load(RecorderSettings).redis.url.get_secret_value() == "redis://from-a-file"


def test_every_unusable_file_is_named_on_one_screen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").write_text("\n")
    given(
        monkeypatch,
        RECORDER
        | {
            "REDIS_URL_FILE": str(tmp_path / "other"),
            "ANTHROPIC_API_KEY_FILE": "sk-ant-put-into-the-wrong-variable",
            "SUPABASE_SERVICE_ROLE_KEY_FILE": str(tmp_path / "empty"),
        },
    )

    with pytest.raises(SystemExit) as stopped:
        load(AiWorkerSettings)

    screen = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "REDIS_URL_FILE           and REDIS_URL are both set" in screen
    assert "ANTHROPIC_API_KEY_FILE   names a file that cannot be used: No such file" in screen
    assert "SUPABASE_SERVICE_ROLE_KEY_FILE names a file that cannot be used: it is empty" in screen
    assert "wrong-variable" not in screen
    assert str(tmp_path) not in screen
    assert "Traceback" not in screen


@pytest.mark.parametrize(
    ("content", "reason"), [(b"x" * 70_000, "too large"), (b"\xff\xfe", "not text")], ids=["large", "binary"]
)
def test_a_file_that_is_no_secret_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    given(monkeypatch, {"DATABASE_URL_FILE": str(tmp_path / "file"), "REDIS_URL": "redis://host"})

    with pytest.raises(SystemExit):
        load(RecorderSettings)

    assert reason in capsys.readouterr().err


def test_a_directory_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given(monkeypatch, {"DATABASE_URL_FILE": str(tmp_path), "REDIS_URL": "redis://host"})

    with pytest.raises(SystemExit):
        load(RecorderSettings)

    assert "Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize("settings", [IngestSettings, RecorderSettings, AiWorkerSettings, ApiSettings])
def test_the_secrets_of_every_process_are_known(settings: type) -> None:
    names = set(secret_names(settings))

    assert "database_url" in names
    assert not {name for name in names if name.endswith(("port", "model", "timeout_s"))}


def test_a_file_is_not_read_for_what_is_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "level").write_text("debug")
    given(monkeypatch, RECORDER | {"LOG_LEVEL_FILE": str(tmp_path / "level")})

    assert load(RecorderSettings).log_level == "info"
