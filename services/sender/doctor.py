"""`python -m services.sender doctor`: look at everything that sending needs, print what fails and its fix."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from uuid import UUID

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.sender.diagnosis import Check
from services.sender.examine_number import examine_number
from services.sender.examine_setup import examine_clock, examine_keys, examine_storage, examine_webhook
from services.sender.graph import Graph, open_graph
from services.sender.operator_settings import DoctorSettings, TriedWebhookSettings
from services.sender.seal import TokenOpener
from shared.domain.errors import Unavailable
from shared.settings.clocks import Clocks
from shared.settings.load import load
from shared.storage.open_storage import open_storage
from shared.storage.port import Storage
from shared.store.channels import ChannelWork
from shared.store.choose import open_store

_AT_ONCE = 4
_TIMEOUT_S = 10.0
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_PIPE_WIDTH = 200  # a file has no edge


def main(options: argparse.Namespace) -> int:
    """Do what the options say; return the exit status."""
    settings = load(DoctorSettings)
    try:
        checks = asyncio.run(_run(options.workspace, settings))
    except Unavailable as error:
        sys.stderr.write(f"The database cannot be had ({error.code}): nothing else was looked at.\n")
        return 1
    if options.as_json:
        print(json.dumps(as_json(checks), indent=2))  # noqa: T201 - it is the answer
    else:
        show(checks)
    return 1 if worst(checks) == "fail" else 0


async def _run(workspace_id: UUID | None, settings: DoctorSettings) -> list[Check]:
    async with (
        open_store(settings.database, settings.supabase.rest(), service_role="service_role") as store,
        open_storage(settings.storage, supabase_url=settings.supabase.url) as storage,
        open_graph(settings.whatsapp.graph_url, clocks=Clocks(), connections=_AT_ONCE) as graph,
        httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False) as http,
    ):
        return await examine(
            channels=ChannelWork(store),
            graph=graph,
            http=http,
            storage=storage,
            settings=settings.whatsapp,
            workspace_id=workspace_id,
        )


async def examine(
    *,
    channels: ChannelWork,
    graph: Graph,
    http: httpx.AsyncClient,
    storage: Storage,
    settings: TriedWebhookSettings,
    workspace_id: UUID | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Check]:
    """Look at the installation, then at each number. http: for what is not Meta's Graph API. Raises: Unavailable."""
    try:
        opener = TokenOpener([key.get_secret_value() for key in settings.token_keys])
    except ValueError as error:
        fix = "Copy what `python -m services.sender keys new` printed, whole, into WHATSAPP_TOKEN_KEYS."
        return [Check("keys", "fail", f"One of WHATSAPP_TOKEN_KEYS {error}.", fix)]
    found = await channels.with_tokens(workspace_id)
    checks = [
        *examine_keys(found, opener),
        *await examine_storage(storage),
        *await examine_clock(http, settings.graph_url, now=now),
        *await examine_webhook(
            http,
            settings.webhook_url,
            verify_token=settings.verify_token.get_secret_value() if settings.verify_token else None,
            app_secret=settings.app_secrets[0].get_secret_value() if settings.app_secrets else None,
        ),
    ]
    if not found:
        fix = "Connect one: POST /api/whatsapp/channels with its ids and a token of Meta's."
        checks.append(Check("numbers", "warn", "No number is connected.", fix))
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(index: int) -> list[Check]:
        async with slots:
            return await examine_number(
                found[index], graph=graph, opener=opener, webhook_url=settings.webhook_url, now=now()
            )

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(index)) for index in range(len(found))]
    return checks + [check for task in tasks for check in task.result()]


def worst(checks: Sequence[Check]) -> str:
    """Return the status of the whole."""
    statuses = {check.status for check in checks}
    return next((status for status in ("fail", "warn") if status in statuses), "ok")


def as_json(checks: Sequence[Check]) -> dict[str, object]:
    """Return the answer for scripts."""
    return {"outcome": worst(checks), "checks": [asdict(check) for check in checks]}


def show(checks: Sequence[Check]) -> None:
    """Print a line for each check, and its fix below."""
    console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("", "number", "check", "found"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "")
    for check in checks:
        says = Text(check.says)
        if check.fix is not None:
            says.append(f"\n→ {check.fix}", style="italic")
        number = check.number or "–"
        table.add_row(Text(check.status, _STYLES[check.status]), Text(number), Text(check.name), says)
    console.print(table)
    counted = {status: sum(check.status == status for check in checks) for status in _STYLES}
    console.print(
        Text(f"\n{counted['ok']} ok, {counted['warn']} to look at, {counted['fail']} failing", _STYLES[worst(checks)])
    )
