"""Two ways to the database: DATABASE_URL, or a Supabase project's address with the key each process may hold."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.ai_worker.settings import Settings as AiWorkerSettings
from services.api.settings import Settings as ApiSettings
from services.ingest.settings import IngestSettings, RecorderSettings
from shared.settings.groups import ProcessSettings, RestAccess
from shared.settings.load import problems

URL = "https://abc.supabase.co"
OTHERS = {
    "REDIS_URL": "redis://redis/0",
    "ANTHROPIC_API_KEY": "claude-key",
    "WHATSAPP_APP_SECRETS": "app-secret",
    "WHATSAPP_VERIFY_TOKEN": "verify",
}
PROCESSES = [
    (RecorderSettings, {"SUPABASE_SERVICE_ROLE_KEY": "sb_secret"}, RestAccess(URL, "sb_secret", "sb_secret")),
    (AiWorkerSettings, {"SUPABASE_SERVICE_ROLE_KEY": "sb_secret"}, RestAccess(URL, "sb_secret", "sb_secret")),
    (ApiSettings, {"SUPABASE_ANON_KEY": "sb_public"}, RestAccess(URL, "sb_public", None)),
    (
        IngestSettings,
        {"SUPABASE_ANON_KEY": "sb_public", "SUPABASE_INGEST_TOKEN": "a.b.c"},
        RestAccess(URL, "sb_public", "a.b.c"),
    ),
]


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but a way to the database."""
    names = ("URL", "ANON_KEY", "SERVICE_ROLE_KEY", "INGEST_TOKEN", "JWT_SECRET")
    for name in ("DATABASE_URL", "DATABASE_MAX_CONNECTIONS", *(f"SUPABASE_{name}" for name in names)):
        monkeypatch.delenv(name, raising=False)
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)


def told(settings: type[ProcessSettings]) -> list[str]:
    """Names of the settings that the refusal lists."""
    with pytest.raises(ValidationError) as caught:
        settings()
    screen = problems(settings, caught.value)
    assert "sb_" not in screen
    return [line.split()[0] for line in screen.splitlines()[1:-1]]


@pytest.mark.parametrize(("settings", "keys", "access"), PROCESSES)
def test_a_projects_address_and_key_are_enough(
    settings: type[RecorderSettings], keys: dict[str, str], access: RestAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SUPABASE_URL": URL, "DATABASE_MAX_CONNECTIONS": "3", **keys}.items():
        monkeypatch.setenv(name, value)

    built = settings()

    assert built.supabase.rest() == access
    assert built.database.url.get_secret_value() == ""
    assert built.database.max_connections == 3
    assert "sb_" not in f"{built!r} {built.supabase.rest()!r} {built.model_dump_json()}"


@pytest.mark.parametrize(("settings", "keys", "access"), PROCESSES)
def test_half_a_way_is_none_and_the_screen_names_both(
    settings: type[RecorderSettings], keys: dict[str, str], access: RestAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_URL", URL)
    assert told(settings) == ["DATABASE_URL"]

    for lacking in keys:
        for name in keys:
            monkeypatch.setenv(name, "sb_secret")
        monkeypatch.delenv(lacking)
        assert told(settings) == ["DATABASE_URL"]

    with pytest.raises(ValidationError) as caught:
        settings()
    assert all(name in problems(settings, caught.value) for name in ("SUPABASE_URL", *keys))


@pytest.mark.parametrize(("settings", "keys", "access"), PROCESSES)
def test_a_key_of_another_process_is_not_taken(
    settings: type[RecorderSettings], keys: dict[str, str], access: RestAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = {name for _, names, _ in PROCESSES for name in names}
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/parley")
    monkeypatch.setenv("SUPABASE_URL", URL)
    for name in every - set(keys):
        monkeypatch.setenv(name, "sb_not_mine")

    assert "sb_not_mine" not in str(settings().model_dump(mode="python"))
    assert settings().supabase.rest() is None


def test_an_address_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_URL", "abc.supabase.co")
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/parley")

    assert told(RecorderSettings) == ["SUPABASE_URL"]
