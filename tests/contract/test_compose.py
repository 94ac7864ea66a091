"""What docker-compose.yml and the Dockerfile promise, as far as text tells; `make compose-smoke` runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.compose.env import COMPOSE_ONLY, PROCESSES, settings_of
from deploy.compose.logins import ROLES, NotUsable, logins_of
from deploy.compose.stand_ins import STAND_INS
from deploy.local.processes import PROCESSES as LOCAL_PROCESSES
from deploy.local.seed import LOGINS
from shared.settings.clocks import Clocks
from tests.contract.compose_reader import read_compose

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = read_compose(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ONE_SHOT = {"migrate", "logins"}
OURS = {name for name, service in SERVICES.items() if "PARLEY_IMAGE" in service["image"]}
every_service = pytest.mark.parametrize("name", sorted(SERVICES))


def environment(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}


# ── services ──


@pytest.mark.parametrize("process", LOCAL_PROCESSES, ids=lambda process: process.name)
def test_every_local_process_is_a_service_with_the_same_command(process: Any) -> None:
    command = SERVICES[process.name]["command"]
    told = command if "-m" in command else str(command[-1]).split()

    assert told[told.index("-m") + 1 :] == list(process.command)


@every_service
def test_every_service_is_hardened_and_limited(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert re.fullmatch(r"\d+m", service["mem_limit"])
    assert service["pids_limit"] > 0
    assert service["logging"]["options"]["max-size"]
    assert "container_name" not in service, "it could not be scaled"


@every_service
def test_every_service_stops_within_the_clocks(name: str) -> None:
    assert SERVICES[name]["stop_grace_period"] == f"{Clocks().orchestrator_s:.0f}s"


@every_service
def test_long_running_services_are_checked_and_restarted_one_shots_end(name: str) -> None:
    service = SERVICES[name]

    if name in ONE_SHOT:
        assert service["restart"].startswith("on-failure")
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert {"interval", "timeout", "retries", "start_period", "start_interval"} <= set(service["healthcheck"])


@every_service
def test_nobody_runs_as_root(name: str) -> None:
    user = SERVICES[name].get("user")

    assert (user is None) == (name in OURS), "ours take their user from the image"
    assert user is None or re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


@every_service
def test_a_tmpfs_that_is_not_tmp_names_its_owner(name: str) -> None:
    # The mode is lost when the container is restarted (runc 1.1.5, seen 2026-11-23): PostgreSQL did not come back.
    for mount in SERVICES[name]["tmpfs"]:
        path, _, options = mount.partition(":")
        assert "size=" in options
        assert path == "/tmp" or ("uid=" in options and "mode=" not in options), mount


def test_only_nginx_publishes_ports() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]


def test_networks_are_internal_but_the_two_ways_out() -> None:
    internal = {name for name, network in COMPOSE["networks"].items() if network.get("internal")}
    on_front = [name for name, service in SERVICES.items() if "front" in service["networks"]]

    assert set(COMPOSE["networks"]) - internal == {"front", "outside"}
    assert on_front == ["nginx"]
    assert "data" not in SERVICES["nginx"]["networks"], "nginx has no business with the database"
    for name in ("redis-queue", "redis-cache", "postgres"):
        assert SERVICES[name]["networks"] == ["data"]


def test_processes_wait_for_migrations_and_nothing_else() -> None:
    for name in PROCESSES:
        depends = SERVICES[name]["depends_on"]
        assert set(depends) == {"migrate", "logins"}
        assert depends["migrate"] == {"condition": "service_completed_successfully"}
        assert depends["logins"]["required"] is False, "without the local profile there is none"


def test_the_local_profile_is_the_stand_ins_for_hosted_parts() -> None:
    assert {name for name, service in SERVICES.items() if service.get("profiles")} == {"postgres", "logins", "sandbox"}


def test_the_queue_redis_loses_nothing_and_the_cache_forgets() -> None:
    def settings(name: str) -> dict[str, str]:
        lines = (ROOT / "deploy" / "compose" / f"{name}.conf").read_text().splitlines()
        return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))

    queue, cache = settings("redis-queue"), settings("redis-cache")

    assert queue["maxmemory-policy"] == "noeviction"
    assert (queue["appendonly"], queue["appendfsync"]) == ("yes", "always")
    assert cache["maxmemory-policy"] == "allkeys-lru"
    assert cache["appendonly"] == "no"
    for name, conf in (("redis-queue", queue), ("redis-cache", cache)):
        limit_mb = int(SERVICES[name]["mem_limit"].removesuffix("m"))
        factor = 2 if conf["appendonly"] == "yes" else 1  # rewriting the file copies what changes meanwhile
        assert int(conf["maxmemory"].removesuffix("mb")) * factor < limit_mb, name


# ── settings ──


@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_every_setting_of_a_process_reaches_it(process: str) -> None:
    given = environment(process)

    for setting in settings_of(process):
        assert setting.name in given, f"add {setting.name} to {process} in docker-compose.yml"
        if setting.variable is not None:
            assert f"${{{setting.variable}:" in given[setting.name], f"{setting.name} does not come from .env"
    assert set(given) == {setting.name for setting in settings_of(process)}, "it holds more than it takes"


def test_every_variable_is_explained_in_env_example() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", TEXT))
    explained = set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert used <= explained
    # COMPOSE_PROFILES is compose's own.
    assert {variable.name for variable in COMPOSE_ONLY} - {"COMPOSE_PROFILES"} <= used


def test_no_secret_is_on_a_command_line() -> None:
    for name, service in SERVICES.items():
        for part in ("command", "entrypoint"):
            assert not re.search(r"(?<!\$)\$\{\w*(PASSWORD|SECRET|TOKEN|KEY|URL)", str(service.get(part))), name


def test_the_trusted_proxy_is_nginx() -> None:
    address = SERVICES["nginx"]["networks"]["edge"]["ipv4_address"]

    for name in ("ingest", "api", "sender"):
        assert environment(name)["HTTP_TRUSTED_PROXIES"] == address


def test_only_the_dispatcher_can_open_tokens_and_only_it_and_the_sender_hold_files() -> None:
    assert [name for name in SERVICES if "WHATSAPP_TOKEN_KEYS" in environment(name)] == ["dispatcher"]
    mounts = {name: service["volumes"] for name, service in SERVICES.items() if "media:" in str(service.get("volumes"))}

    assert mounts == {name: ["media:/var/lib/parley/media"] for name in ("sender", "dispatcher")} | {
        "ai_worker": ["media:/var/lib/parley/media:ro"]
    }
    assert "install -d -o 10001 -g 10001 /var/lib/parley/media" in DOCKERFILE, "a new volume belongs to root otherwise"


def test_logins_are_those_of_the_local_stack() -> None:
    assert sorted(ROLES.values()) == sorted(LOGINS.values())


def test_logins_are_read_off_the_addresses() -> None:
    found = logins_of(
        {
            "MIGRATE_DATABASE_URL": "postgresql://postgres:p@host/d",
            "INGEST_DATABASE_URL": "postgresql://ingest_login:p%40ss@host/d",
            "SERVICE_DATABASE_URL": "postgresql://service_login.project:p2@pooler:5432/d",
        }
    )

    assert [(login.name, login.password, login.roles) for login in found] == [
        ("ingest_login", "p@ss", ("anon", "parley_ingest")),
        ("service_login", "p2", ("anon", "service_role")),
    ]
    assert "p2" not in repr(found)


@pytest.mark.parametrize(
    "address",
    ["postgresql://postgres:secret@host/d", "postgresql://other@host/d", "postgresql://host/d"],
    ids=["the owner's", "without a password", "without a user"],
)
def test_an_unusable_address_is_refused_without_being_shown(address: str) -> None:
    with pytest.raises(NotUsable, match="INGEST_DATABASE_URL") as raised:
        logins_of({"MIGRATE_DATABASE_URL": "postgresql://postgres:secret@host/d", "INGEST_DATABASE_URL": address})

    assert "secret" not in str(raised.value)


# ── images ──


def test_no_image_floats_or_is_pinned_by_digest() -> None:
    bases = re.findall(r"^ARG BASE=(\S+)", DOCKERFILE, re.MULTILINE)
    images = bases + [service["image"] for name, service in SERVICES.items() if name not in OURS]

    assert set(images) == set(STAND_INS), "the smoke test's stand-ins carry other tags"
    for image in images:
        assert "@" not in image
        assert re.search(r":\d", image), f"{image} floats"


def test_the_dockerfile_keeps_its_rules() -> None:
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]

    assert "# syntax" not in DOCKERFILE.lower()
    assert "@sha256" not in DOCKERFILE
    assert len([line for line in lines if line.startswith("FROM ")]) == 2
    assert "--require-hashes" in DOCKERFILE
    assert "/opt/venv" in DOCKERFILE
    assert "requirements/runtime.txt" in DOCKERFILE
    assert re.fullmatch(r"USER [1-9]\d+:[1-9]\d+", [line for line in lines if line.startswith("USER")][-1])
    assert not re.search(r"^(ADD|MAINTAINER)\b|sudo|:latest|apt-get|\bcurl\b|chmod 777", DOCKERFILE, re.MULTILINE)
    assert not re.search(r"^(ARG|ENV)\b.*(PASSWORD|SECRET|TOKEN|KEY)", DOCKERFILE, re.MULTILINE)
    assert all(line.split('"')[0].strip() == "CMD [" for line in lines if line.startswith("CMD")), "exec form"


def test_the_build_context_lets_nothing_in_by_accident() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]

    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    assert not [rule for rule in allowed if rule.startswith((".", "deploy/nginx", "tests"))]
    copied = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, re.MULTILINE)
    assert all(any(rule.startswith(source) for rule in allowed) for source in copied)


def test_the_sandbox_needs_only_what_the_image_has() -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)", (ROOT / "requirements" / "runtime.txt").read_text(), re.MULTILINE))
    packages = {"jwt": "pyjwt", "pydantic_settings": "pydantic-settings"}
    found = {
        name
        for path in (ROOT / "deploy" / "sandbox").rglob("*.py")
        for name in re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
    }

    import sys

    third_party = found - set(sys.stdlib_module_names) - {"deploy", "__future__"}
    assert {packages.get(name, name) for name in third_party} <= pinned


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")

    found = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60)

    assert (found.returncode, found.stdout + found.stderr) == (0, "")
