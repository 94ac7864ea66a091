"""The doctor against the sandbox: each thing that can be wrong is made wrong, and is found with its fix."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from deploy.local.ports import HOST, any_free_port
from services.ingest.accept_webhook import PATH, WebhookEndpoint
from services.sender import doctor
from services.sender.command_line import parse
from services.sender.diagnosis import Check
from services.sender.graph import open_graph
from services.sender.operator_settings import TriedWebhookSettings
from services.sender.seal import new_key_pair
from shared.settings.clocks import Clocks
from shared.storage.folder import FolderStorage
from shared.store.channels import ChannelWork
from shared.store.postgres import PostgresTransport
from shared.web.health import Health
from shared.web.serve import serving
from tests.conftest import Database
from tests.integration.chore_runs import KEYS, TOKEN, give_token
from tests.integration.conftest import ClaudeSandbox
from tests.world import PHONE_A, WABA_A, World

SECRET, VERIFY_TOKEN = "app-secret-of-this-test", "verify-token-of-this-test"
NOWHERE = f"http://{HOST}:9/nobody-listens"


class Kept:
    """Where the webhook keeps what it takes."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def keep(self, raw: bytes, _: str | None) -> None:
        self.bodies.append(raw)


@pytest.fixture(scope="module")
async def webhook_url() -> AsyncIterator[str]:
    """Our webhook as ingest serves it."""
    app = WebhookEndpoint(
        Health({}).app,
        durable=Kept(),
        app_secrets=[SECRET.encode()],
        verify_token=VERIFY_TOKEN.encode(),
        max_body_bytes=1000,
    )
    async with served(app) as url:
        yield url + PATH


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    port = any_free_port()
    async with serving(app, host=HOST, port=port, drain_s=1):
        yield f"http://{HOST}:{port}"


@dataclass(frozen=True)
class Practice:
    """Everything the doctor looks at, as it should be; a test changes one thing."""

    admin: psycopg.AsyncConnection
    world: World
    sandbox: ClaudeSandbox
    channels: ChannelWork
    settings: TriedWebhookSettings
    folder: Path
    shift: timedelta = timedelta()

    async def examine(self) -> list[Check]:
        async with (
            open_graph(self.settings.graph_url, clocks=Clocks(), connections=4) as graph,
            httpx.AsyncClient(timeout=5, trust_env=False) as http,
        ):
            return await doctor.examine(
                channels=self.channels,
                graph=graph,
                http=http,
                storage=FolderStorage(self.folder, None),
                settings=self.settings,
                workspace_id=self.world.workspace_a,
                now=lambda: datetime.now(UTC) + self.shift,
            )

    def having(self, **settings: Any) -> Practice:
        return replace(self, settings=self.settings.model_copy(update=settings))

    async def token(self, token: str) -> None:
        await give_token(self.admin, self.world.workspace_a, self.world.channel_a, token)

    async def change(self, column: str, value: str) -> None:
        statement = sql.SQL("update public.whatsapp_channels set {} = %s where id = %s")
        await self.admin.execute(statement.format(sql.Identifier(column)), (value, self.world.channel_a))

    def ask_meta(self, method: str, path: str, body: Any = None) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        answer = self.sandbox.http.request(method, f"/graph/v26.0/{path}", headers=headers, json=body)
        assert answer.status_code == 200, answer.text


@pytest.fixture
async def practice(
    admin: psycopg.AsyncConnection,
    world: World,
    claude_process: ClaudeSandbox,
    service_store: PostgresTransport,
    webhook_url: str,
    tmp_path: Path,
) -> Practice:
    claude_process.http.post("/sandbox/graph/reset").raise_for_status()
    await give_token(admin, world.workspace_a, world.channel_a)
    settings = TriedWebhookSettings(
        graph_url=f"{claude_process.url}/graph/v26.0",
        token_keys=(SecretStr(KEYS.private_key),),
        webhook_url=webhook_url,
        app_secrets=(SecretStr(SECRET),),
        verify_token=SecretStr(VERIFY_TOKEN),
    )
    return Practice(admin, world, claude_process, ChannelWork(service_store), settings, tmp_path / "files")


Wrong = Callable[[Practice], Awaitable[Practice | None]]


def setting(**settings: Any) -> Wrong:
    async def change(practice: Practice) -> Practice:
        return practice.having(**settings)

    return change


def token(token: str) -> Wrong:
    return lambda practice: practice.token(token)  # type: ignore[return-value]


def column(name: str, value: str) -> Wrong:
    return lambda practice: practice.change(name, value)  # type: ignore[return-value]


def at_meta(method: str, path: str, body: Any = None) -> Wrong:
    async def change(practice: Practice) -> None:
        practice.ask_meta(method, path, body)

    return change


def clock(seconds: float) -> Wrong:
    async def change(practice: Practice) -> Practice:
        return replace(practice, shift=timedelta(seconds=seconds))

    return change


async def no_token(practice: Practice) -> None:
    await practice.admin.execute("delete from app.channel_tokens")


async def no_channel(practice: Practice) -> None:
    await practice.change("state", "disconnected")


async def damaged_token(practice: Practice) -> None:
    await practice.admin.execute("update app.channel_tokens set token_sealed = 'AAAA' || token_sealed")


async def no_folder(practice: Practice) -> None:
    practice.folder.write_text("a file stands where the folder should be")


async def template_unknown_here(practice: Practice) -> None:
    await practice.admin.execute(
        "insert into public.whatsapp_templates (workspace_id, id, waba_id, template_name, language, category, status)"
        " values (%s, gen_random_uuid(), %s, 'hello', 'en_US', 'utility', 'approved')",
        (practice.world.workspace_a, WABA_A),
    )


NEWER = new_key_pair()
WRONGS: dict[str, tuple[Wrong, dict[str, str], str]] = {
    "token withdrawn": (token("nobody's-token"), {"token": "fail"}, "POST /api/whatsapp/channels"),
    "token may not send": (token("reading-token"), {"token": "fail"}, "whatsapp_business_messaging"),
    "token of another account": (token("foreign-token"), {"token": "fail", "number": "fail"}, "system user"),
    "token ends tomorrow": (token("ending-token"), {"token": "warn"}, "POST /api/whatsapp/channels"),
    "no token": (no_token, {"token": "warn"}, "POST /api/whatsapp/channels"),
    "no number": (no_channel, {"numbers": "warn"}, "POST /api/whatsapp/channels"),
    "token damaged": (damaged_token, {"token": "fail"}, "anew"),
    "key missing": (
        setting(token_keys=(SecretStr(NEWER.private_key),)), {"token": "fail"}, "WHATSAPP_TOKEN_KEYS",
    ),
    "key is none": (setting(token_keys=(SecretStr("c2hvcnQ="),)), {"keys": "fail"}, "keys new"),
    "keys not rotated": (
        setting(token_keys=(SecretStr(NEWER.private_key), SecretStr(KEYS.private_key))),
        {"keys": "warn"},
        "keys rotate",
    ),
    "old key kept": (
        setting(token_keys=(SecretStr(KEYS.private_key), SecretStr(NEWER.private_key))), {"keys": "warn"}, "out of",
    ),
    "not registered": (at_meta("POST", f"{PHONE_A}/deregister"), {"number": "fail"}, "register"),
    "not subscribed": (at_meta("DELETE", f"{WABA_A}/subscribed_apps"), {"subscription": "fail"}, "subscribed_apps"),
    "another number": (column("phone_number_id", "999999999999999"), {"number": "fail"}, "both ids"),
    "another portfolio": (column("portfolio_id", "1"), {"account": "fail"}, "connect it again"),
    "paused": (column("state", "paused"), {"state": "fail"}, "/resume"),
    "held": (column("hold_reason", "pin_changed"), {"state": "fail"}, "/resume"),
    "clock a bit off": (clock(-40), {"clock": "warn"}, "time server"),
    "clock wrong": (clock(3600), {"clock": "fail"}, "time server"),
    "no storage": (no_folder, {"storage": "fail"}, "STORAGE_DIR"),
    "templates differ": (template_unknown_here, {"templates": "warn"}, "24 hours|sync|submit"),
    "webhook unreachable": (setting(webhook_url=NOWHERE), {"callback": "fail"}, "nginx"),
    "webhook unknown": (setting(webhook_url=None), {"callback": "warn"}, "WHATSAPP_WEBHOOK_URL"),
    "verify token wrong": (setting(verify_token=SecretStr("x")), {"callback": "fail"}, "WHATSAPP_VERIFY_TOKEN"),
    "secret wrong": (setting(app_secrets=(SecretStr("x"),)), {"signature": "fail"}, "WHATSAPP_APP_SECRETS"),
    "secret unknown": (setting(app_secrets=()), {"signature": "warn"}, "WHATSAPP_APP_SECRETS"),
    "Meta unreachable": (setting(graph_url=NOWHERE), {"token": "fail", "clock": "warn"}, "WHATSAPP_GRAPH_URL"),
}  # fmt: skip


def unwell(checks: list[Check]) -> dict[str, str]:
    """What is not ok; without the templates, of which the sandbox has none at first."""
    return {check.name: check.status for check in checks if check.status != "ok" and check.name != "templates"}


async def test_all_is_well(practice: Practice) -> None:
    checks = await practice.examine()

    assert unwell(checks) == {}
    assert {check.name for check in checks} == {
        "keys", "storage", "clock", "callback", "signature", "state", "token", "number", "subscription", "templates",
    }  # fmt: skip
    assert [one for one in practice.folder.rglob("*") if one.is_file()] == []  # nothing is left of what it wrote


@pytest.mark.parametrize("wrong", WRONGS)
async def test_what_is_wrong_is_found_with_its_fix(practice: Practice, wrong: str) -> None:
    change, expected, fix = WRONGS[wrong]
    changed = await change(practice) or practice

    checks = await changed.examine()

    found = unwell(checks)
    if "templates" in expected:
        found = {check.name: check.status for check in checks if check.status != "ok"}
    assert found == expected
    fixes = [check.fix or "" for check in checks if check.name in expected and check.status != "ok"]
    assert any(part in one for one in fixes for part in fix.split("|")), fixes
    for check in checks:
        assert (check.fix is None) == (check.status == "ok")
        assert not any(secret in f"{check.says} {check.fix}" for secret in (SECRET, VERIFY_TOKEN, KEYS.private_key))


async def test_a_webhook_that_takes_everything_is_a_hole(practice: Practice) -> None:
    async def yes(scope: Any, receive: Any, send: Any) -> None:
        query = dict(httpx.QueryParams(scope["query_string"].decode()))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": query.get("hub.challenge", "").encode()})

    async with served(yes) as url:
        checks = await practice.having(webhook_url=url).examine()

    assert unwell(checks) == {"signature": "fail"}


def test_the_command_prints_and_exits_as_it_says(
    database: Database, practice: Practice, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "DATABASE_URL": database.url("test_service"),
        "WHATSAPP_GRAPH_URL": practice.settings.graph_url,
        "WHATSAPP_TOKEN_KEYS": KEYS.private_key,
        "STORAGE_DIR": str(practice.folder),
    }.items():
        monkeypatch.setenv(name, value)
    workspace = str(practice.world.workspace_a)

    as_json = doctor.main(parse(["doctor", "--workspace", workspace, "--json"]))
    answer = json.loads(capsys.readouterr().out)
    practice.ask_meta("DELETE", f"{WABA_A}/subscribed_apps")
    for_people = doctor.main(parse(["doctor", "--workspace", workspace]))
    printed = capsys.readouterr().out

    assert (as_json, answer["outcome"], for_people) == (0, "warn", 1)
    assert {check["name"]: check["status"] for check in answer["checks"]}["subscription"] == "ok"
    assert "→ Set the number's token again" in printed
    assert "1 failing" in printed
