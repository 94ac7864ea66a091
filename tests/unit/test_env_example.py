""".env.example says what the settings classes say, and .env is made so that it works and stays private."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deploy.compose import env
from deploy.compose.env import PROCESSES, example_file, example_of, settings_of
from deploy.local.processes import PROCESSES as LOCAL_PROCESSES

ROOT = Path(__file__).parents[2]
SETTINGS = [setting for process in PROCESSES for setting in settings_of(process)]


def test_the_file_is_what_the_settings_classes_say() -> None:
    assert (ROOT / ".env.example").read_text() == example_file(), "run `make env-example`"


def test_every_process_with_settings_is_known() -> None:
    assert set(PROCESSES) == {process.name for process in LOCAL_PROCESSES} - {"sandbox"}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.process}-{setting.name}")
def test_every_setting_says_what_it_means(setting: env.Setting) -> None:
    assert setting.field.description, "add a description"
    assert example_of([one for one in SETTINGS if one.name == setting.name]), "add an example to deploy/compose/env.py"


def test_secrets_are_known_as_secrets() -> None:
    for setting in SETTINGS:
        sounds_secret = any(
            word in setting.name for word in ("SECRET", "TOKEN", "_KEY", "PASSWORD", "DATABASE_URL", "REDIS_URL")
        )
        is_public = setting.name.endswith("_PUBLIC_KEY")  # its private part is the secret
        assert setting.is_secret == (sounds_secret and not is_public), setting.name


def test_the_example_holds_no_value_that_takes_effect() -> None:
    lines = example_file().splitlines()

    assert all(not line or line.startswith("#") for line in lines)


def test_an_env_file_is_private_and_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    env.write_env(file, {"A": "1"})

    with pytest.raises(FileExistsError):
        env.write_env(file, {"A": "2"})

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().endswith("A=1\n")


def test_secrets_are_fresh_each_time() -> None:
    first, second = env.local_values(), env.local_values()

    for name in (
        "POSTGRES_PASSWORD",
        "REDIS_PASSWORD",
        "SANDBOX_APP_SECRET",
        "WHATSAPP_VERIFY_TOKEN",
        "WHATSAPP_TOKEN_KEYS",
        "STORAGE_URL_SECRET",
    ):
        assert first[name] != second[name]
        assert len(first[name]) >= 32


def test_a_hosted_env_makes_up_nothing_of_others() -> None:
    values = env.hosted_values()

    assert values["COMPOSE_PROFILES"] == ""
    assert not values["ANTHROPIC_API_KEY"]
    assert not values["WHATSAPP_APP_SECRETS"]
    assert "sandbox" not in str(values).lower()
    assert "INGEST_REQUIRE_HTTPS" not in values


def test_a_certificate_is_made_once(tmp_path: Path) -> None:
    assert env.write_certificate(tmp_path)
    made = (tmp_path / "fullchain.pem").read_bytes()

    assert not env.write_certificate(tmp_path)
    assert (tmp_path / "fullchain.pem").read_bytes() == made
