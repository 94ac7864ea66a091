"""The rules of the local stack that need no server: ports, backoff, environments, the safety rule, the command line."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path

import pytest

from deploy.local import bootstrap
from deploy.local.__main__ import main
from deploy.local.accounts import Account, can_reach
from deploy.local.ports import PortPicker
from deploy.local.processes import BASICS, OUTSIDE, PROCESSES, Wiring, spec_of
from deploy.local.real import RealParts
from deploy.local.seed import LOGINS, seed
from deploy.local.state import StackError, StateDir
from deploy.local.supervisor import Backoff
from deploy.local.token_keys import token_keys

CALLER = {
    "PATH": "/usr/bin",
    "HOME": "/home/someone",
    "AWS_SECRET_ACCESS_KEY": "the caller's",
    "HTTPS_PROXY": "http://proxy.example",
    "PYTHONPATH": "/elsewhere",
}
SECRETS = {
    "ingest": {"DATABASE_URL", "REDIS_URL", "WHATSAPP_APP_SECRETS", "WHATSAPP_VERIFY_TOKEN"},
    "recorder": {"DATABASE_URL", "REDIS_URL"},
    "ai_worker": {"DATABASE_URL", "REDIS_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "STORAGE_DIR"},
    "api": {"DATABASE_URL", "SUPABASE_URL", "WHATSAPP_TOKEN_PUBLIC_KEY"},
    "sender": {"DATABASE_URL", "REDIS_URL", "SUPABASE_URL", "STORAGE_DIR", "STORAGE_PUBLIC_URL", "STORAGE_URL_SECRET"},
    "dispatcher": {
        *("DATABASE_URL", "REDIS_URL", "STORAGE_DIR"),
        *("WHATSAPP_GRAPH_URL", "WHATSAPP_TOKEN_KEYS", "MEDIA_HOSTS"),
    },
    "sandbox": {"SANDBOX_HOST", "SANDBOX_PORT", "SANDBOX_WEBHOOK_URL", "SANDBOX_APP_SECRET", "SANDBOX_STORY"},
}


def wiring(real: RealParts | None = None) -> Wiring:
    return Wiring(
        ports={"ingest": 8001, "api": 8002, "sandbox": 8003, "sender": 8004},
        database_urls={login: f"postgresql://{login}" for login in LOGINS},
        redis_url="redis://local",
        story_path="/story.json",
        app_secret="sandbox-secret",
        verify_token="token",
        token_key="opens-tokens",
        token_public_key="seals-tokens",
        storage_dir="/media",
        storage_url_secret="signs-addresses",
        real=real or RealParts(),
    )


def environment_of(name: str, real: RealParts | None = None, caller: dict[str, str] | None = None) -> dict[str, str]:
    process = next(one for one in PROCESSES if one.name == name)
    return dict(spec_of(process, wiring(real), name=name, internal_port=9001, caller=caller or CALLER).env)


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_each_process_gets_its_own_variables_and_nothing_else(name: str) -> None:
    harmless = {*BASICS, "PYTHONUNBUFFERED", "PYTHONUTF8", "HTTP_INTERNAL_PORT"}
    harmless |= {"HTTP_HOST", "HTTP_PORT", "HTTP_REQUIRE_HTTPS"}

    assert set(environment_of(name)) - harmless == SECRETS[name]


def test_each_process_connects_as_its_own_login() -> None:
    assert {name: environment_of(name).get("DATABASE_URL") for name in SECRETS} == {
        "ingest": "postgresql://parley_ingest_login",
        "recorder": "postgresql://parley_service_login",
        "ai_worker": "postgresql://parley_service_login",
        "api": "postgresql://parley_api_login",
        "sender": "postgresql://parley_sender_login",
        "dispatcher": "postgresql://parley_service_login",
        "sandbox": None,
    }


def test_a_real_claude_replaces_the_sandbox_and_nothing_else_changes() -> None:
    real = RealParts.from_environment({"ANTHROPIC_API_KEY": "sk-real", "SUPABASE_URL": ""})

    worker = environment_of("ai_worker", real)

    assert (worker["ANTHROPIC_API_KEY"], "ANTHROPIC_BASE_URL" in worker) == ("sk-real", False)
    assert set(worker) & set(OUTSIDE) == {"HTTPS_PROXY"}
    assert {name: environment_of(name, real) for name in SECRETS if name != "ai_worker"} == {
        name: environment_of(name) for name in SECRETS if name != "ai_worker"
    }
    assert real.names() == ["Claude (ANTHROPIC_API_KEY)"]


def test_the_sandbox_never_holds_a_real_app_secret() -> None:
    real = RealParts.from_environment({"WHATSAPP_APP_SECRETS": "real-1,real-2"})

    assert environment_of("ingest", real)["WHATSAPP_APP_SECRETS"] == "real-1,real-2,sandbox-secret"
    assert environment_of("sandbox", real) == environment_of("sandbox")


def test_a_real_graph_api_replaces_the_sandbox_s_and_nothing_else_changes() -> None:
    real = RealParts.from_environment({"WHATSAPP_TOKEN_KEYS": "their-key"})

    dispatcher = environment_of("dispatcher", real)

    assert not {"WHATSAPP_GRAPH_URL", "MEDIA_HOSTS"} & set(dispatcher), "Meta's own addresses are the defaults"
    assert set(dispatcher) & set(OUTSIDE) == {"HTTPS_PROXY"}
    assert {name: environment_of(name, real) for name in SECRETS if name != "dispatcher"} == {
        name: environment_of(name) for name in SECRETS if name != "dispatcher"
    }
    assert real.names() == ["Meta's Graph API (WHATSAPP_TOKEN_KEYS)"]


def test_only_the_dispatcher_can_open_tokens() -> None:
    holders = [name for name in SECRETS if "opens-tokens" in str(environment_of(name))]

    assert holders == ["dispatcher"]


def test_token_keys_are_made_once_or_taken_from_the_caller(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path)
    made = token_keys(state, RealParts())
    theirs = b64encode(bytes(range(32))).decode()
    real = RealParts.from_environment({"WHATSAPP_TOKEN_KEYS": f"{theirs},{made.private}"})

    assert token_keys(StateDir.open(tmp_path), RealParts()) == made
    assert token_keys(state, real).private == f"{theirs},{made.private}"
    assert len({made.public, made.private, token_keys(state, real).public, theirs}) == 4
    assert made.private not in repr(made)


def test_a_secret_is_not_shown_by_repr() -> None:
    shown = repr(wiring(RealParts(database_url="postgresql://u:hunter2@h/d")))

    assert "hunter2" not in shown
    assert "sandbox-secret" not in shown
    assert "opens-tokens" not in shown
    assert "signs-addresses" not in shown


def test_backoff_doubles_to_ten_seconds() -> None:
    assert [Backoff().delay_s(failures) for failures in (1, 2, 3, 4, 5, 6, 100)] == [0.5, 1, 2, 4, 8, 10, 10]


def test_a_taken_port_gives_way_to_one_nearby_and_is_told() -> None:
    picker = PortPicker(free=lambda port: port != 8001, any_free=lambda: 40000)

    assert [picker.pick("ingest", 8001), picker.pick("api", 8101)] == [8101, 8201]
    assert picker.moved == [("ingest", 8001, 8101), ("api", 8101, 8201)]


def test_when_everything_nearby_is_taken_any_port_serves() -> None:
    offered = iter((40000, 40000, 40001))
    picker = PortPicker(free=lambda _port: False, any_free=lambda: next(offered))

    assert [picker.pick("ingest", 8001), picker.pick("api", 8002)] == [40000, 40001]


def test_seeding_a_foreign_database_is_refused_without_touching_it() -> None:
    with pytest.raises(StackError, match=r"not the embedded one.*--seed-foreign-database"):
        seed("postgresql://nobody@host.invalid/production", embedded=False, token_public_key=None)


def test_the_demo_without_a_stack_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["demo", "--state-dir", str(tmp_path / "none")])

    assert status == 2
    assert "Start it first: make run (in another terminal)" in capsys.readouterr().err


def test_the_demo_refuses_a_foreign_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = StateDir.open(tmp_path)
    state.write_stack({"database": {"embedded": False}, "sign_in": {}})

    with state.locked():
        status = main(["demo", "--state-dir", str(tmp_path)])

    assert status == 2
    assert "--seed-foreign-database" in capsys.readouterr().err


def test_a_description_left_by_a_killed_stack_does_not_count(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path)
    state.write_stack({"pid": 1})

    assert state.read_stack() is None


def test_one_state_directory_holds_one_stack(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path)

    with (
        state.locked(),
        pytest.raises(StackError, match=rf"already runs.*process {os.getpid()}"),
        StateDir.open(tmp_path).locked(),
    ):
        pass


def test_secrets_are_made_once_and_kept_private(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path)

    assert state.secret("a") == StateDir.open(tmp_path).secret("a") != state.secret("b")
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_closed_directory_above_is_noticed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    stranger = Account("stranger", uid=os.getuid() + 54321, gid=os.getgid() + 54321)

    assert not can_reach(closed / "data", stranger)
    assert can_reach(closed / "data", None)


@pytest.mark.parametrize("workers", ["api=2", "ai_worker=0", "nobody=1", "ai_worker"])
def test_only_what_can_have_copies_gets_them(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--workers", workers])

    assert stopped.value.code == 2
    assert "ai_worker" in capsys.readouterr().err


def test_dev_serves_where_local_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements").mkdir()
    for group in ("local", "dev"):
        (tmp_path / "requirements" / f"{group}.txt").write_text(f"# {group}\n")
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    for name, value in (("ROOT", tmp_path), ("VENV", venv), ("STAMP", venv / ".parley.json")):
        monkeypatch.setattr(bootstrap, name, value)
    bootstrap.stamp("dev")

    assert (bootstrap.is_current("local"), bootstrap.is_current("dev")) == (True, True)

    (tmp_path / "requirements" / "dev.txt").write_text("# dev, changed\n")
    assert (bootstrap.is_current("local"), bootstrap.is_current("dev")) == (False, False)
