"""The demo's last table: what the conversations say of the customers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

DEADLINE_S = 30.0
POLL_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Known:
    """A customer as the API shows them; no score: their conversation was not read in time."""

    name: str
    score: int | None
    stage: str | None
    tags: tuple[str, ...]
    tasks: tuple[str, ...]
    proposed: int


async def read_all(
    http: httpx.AsyncClient, api: str, token: str, conversations: Iterable[tuple[str, str]]
) -> list[Known]:
    """Return the customers of (workspace, conversation) pairs, waiting until each has a score."""
    contacts = [
        (workspace, contact)
        for workspace, ours in _by_workspace(conversations).items()
        for contact in await _contacts(http, api, token, workspace, ours)
    ]
    give_up_at = time.monotonic() + DEADLINE_S
    while True:
        shown = [await _contact(http, api, token, workspace, contact) for workspace, contact in contacts]
        if all(one["score"] for one in shown) or time.monotonic() > give_up_at:
            return [_known(one) for one in shown]
        await asyncio.sleep(POLL_EVERY_S)


def _by_workspace(conversations: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for workspace, conversation in conversations:
        found.setdefault(workspace, set()).add(conversation)
    return found


async def _contacts(http: httpx.AsyncClient, api: str, token: str, workspace: str, ours: set[str]) -> list[str]:
    page = await _get(http, f"{api}/api/whatsapp/conversations", token, workspace_id=workspace, limit="100")
    return [one["contact"]["id"] for one in page["items"] if one["id"] in ours and one["contact"]]


async def _contact(http: httpx.AsyncClient, api: str, token: str, workspace: str, contact: str) -> dict[str, Any]:
    return await _get(http, f"{api}/api/whatsapp/contacts/{contact}", token, workspace_id=workspace)


async def _get(http: httpx.AsyncClient, url: str, token: str, **params: str) -> dict[str, Any]:
    answer = await http.get(url, params=params, headers={"Authorization": f"Bearer {token}"})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def _known(contact: dict[str, Any]) -> Known:
    return Known(
        name=str(contact["name"] or "?"),
        score=contact["score"]["now"] if contact["score"] else None,
        stage=contact["lifecycle_stage"],
        tags=tuple(tag["name"] for tag in contact["tags"]),
        tasks=tuple(task["title"] for task in contact["tasks"]),
        proposed=len(contact["proposals"]),
    )


def table(known: Sequence[Known]) -> RenderableType:
    """Return the table, the most promising first."""
    made = Table(box=None, padding=(0, 1), header_style="bold", expand=True, pad_edge=False)
    made.add_column("Customer", no_wrap=True)
    made.add_column("Score", justify="right", no_wrap=True)
    made.add_column("Stage", no_wrap=True)
    made.add_column("Tags", overflow="fold", ratio=2)
    made.add_column("To do", overflow="fold", ratio=3)
    for one in sorted(known, key=lambda one: -(one.score or 0)):
        made.add_row(
            one.name.split()[0],
            Text("–" if one.score is None else str(one.score), "bold"),
            one.stage or "–",
            ", ".join(one.tags) or "–",
            "; ".join(one.tasks) or "–",
        )
    return made


def as_json(known: Sequence[Known]) -> list[dict[str, Any]]:
    """Return them for `--json`."""
    return [
        {
            "customer": one.name,
            "score": one.score,
            "stage": one.stage,
            "tags": list(one.tags),
            "tasks": list(one.tasks),
            "proposed": one.proposed,
        }
        for one in known
    ]
