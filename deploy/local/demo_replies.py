"""The second half of `make demo`: an agent answers each customer, and the ticks come back."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import httpx
from rich.text import Text

DEADLINE_S = 30.0
POLL_EVERY_S = 0.1  # five messages: the times below are no finer than this


@dataclass(frozen=True, slots=True)
class Question:
    """What is answered: the last message of a customer, with what Claude suggests."""

    workspace_id: str
    conversation_id: str
    answer: str


@dataclass(slots=True)
class Reply:
    """An answer on its way. The times are seconds from the moment it was taken; None: not yet."""

    message_id: str
    workspace_id: str
    conversation_id: str
    taken_at: float
    status: str
    delivered_s: float | None = None
    read_s: float | None = None
    failed_because: str | None = None

    @property
    def is_settled(self) -> bool:
        return self.read_s is not None or self.failed_because is not None


async def answer_all(
    http: httpx.AsyncClient, addresses: dict[str, Any], token: str, questions: Sequence[Question]
) -> list[Reply]:
    """Send the suggested answers and wait until each is read, has failed, or time is up."""
    replies = [await _answer(http, addresses["sender"], token, question) for question in questions]
    give_up_at = time.monotonic() + DEADLINE_S
    while not all(reply.is_settled for reply in replies) and time.monotonic() < give_up_at:
        await asyncio.sleep(POLL_EVERY_S)
        for reply in replies:
            if not reply.is_settled:
                _note(reply, await _as_shown(http, addresses["api"], token, reply))
    return replies


async def _answer(http: httpx.AsyncClient, sender: str, token: str, question: Question) -> Reply:
    answer = await http.post(
        f"{sender}/api/whatsapp/send",
        params={"workspace_id": question.workspace_id},
        headers={"Authorization": f"Bearer {token}", "Idempotency-Key": str(uuid.uuid4())},
        json={"conversation_id": question.conversation_id, "content": {"type": "text", "body": question.answer}},
    )
    message = answer.raise_for_status().json()
    return Reply(
        message["id"], question.workspace_id, question.conversation_id, time.monotonic(), str(message["status"])
    )


async def _as_shown(http: httpx.AsyncClient, api: str, token: str, reply: Reply) -> dict[str, Any]:
    answer = await http.get(
        f"{api}/api/whatsapp/conversations/{reply.conversation_id}/messages",
        params={"workspace_id": reply.workspace_id},
        headers={"Authorization": f"Bearer {token}"},
    )
    items: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
    return next((one for one in items if one["id"] == reply.message_id), {})


def _note(reply: Reply, message: dict[str, Any]) -> None:
    reply.status = str(message.get("status") or reply.status)
    since = time.monotonic() - reply.taken_at
    if reply.status in ("delivered", "read") and reply.delivered_s is None:
        reply.delivered_s = since
    if reply.status == "read":
        reply.read_s = since
    elif reply.status == "failed":
        reply.failed_because = str((message.get("error") or {}).get("sentence") or "no reason is given")


def summary(replies: Sequence[Reply]) -> Text:
    """Say in a line or two what came of the answers."""
    read = [reply.read_s for reply in replies if reply.read_s is not None]
    delivered = [reply.delivered_s for reply in replies if reply.delivered_s is not None]
    text = f"{len(read)} of {len(replies)} suggested answers sent by an agent, delivered and read."
    if delivered and read:
        text += f"\nFrom send to delivered: median {median(delivered):.1f} s; to read: {median(read):.1f} s."
    for reply in replies:
        if not reply.is_settled or reply.failed_because:
            text += f"\nNot read ({reply.status}): {reply.failed_because or 'in time'}"
    return Text(text, "green" if len(read) == len(replies) else "red")


def as_json(replies: Sequence[Reply]) -> list[dict[str, Any]]:
    return [
        {"message_id": one.message_id, "status": one.status, "delivered_s": one.delivered_s, "read_s": one.read_s}
        for one in replies
    ]
