"""The whole stack on the sandbox, started once for all drills, driven over HTTP only."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.stack import started_stack


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack: what its stack.json says, and a client signed in as a member of the first workspace."""

    state_dir: Path
    http: httpx.AsyncClient

    @property
    def description(self) -> dict[str, Any]:
        """stack.json as it is now; pids change when a process is restarted."""
        found: dict[str, Any] = json.loads((self.state_dir / "stack.json").read_text())
        return found

    @property
    def story(self) -> dict[str, Any]:
        """The people and numbers the sandbox plays."""
        found: dict[str, Any] = json.loads(Path(self.description["story"]).read_text())
        return found

    @property
    def workspace_id(self) -> str:
        return str(self.description["sign_in"]["workspace_id"])

    def address(self, name: str) -> str:
        return str(self.description["addresses"][name])

    async def send(self, *, name: str, wa_id: str, user_id: str, text: str) -> str:
        """Write as a customer on the sandbox's phone; return the wamid. It retries until our 200, as Meta does."""
        answer = await self.http.post(
            f"{self.address('sandbox')}/sandbox/messages",
            json={
                "from": {"name": name, "wa_id": wa_id, "user_id": user_id},
                "phone_number_id": self.story["channels"][0]["phone_number_id"],
                "text": text,
            },
        )
        answer.raise_for_status()
        return str(answer.json()["wamid"])

    async def undelivered(self) -> int:
        """How many webhooks still wait for our 200."""
        answer = await self.http.get(f"{self.address('sandbox')}/sandbox/deliveries")
        return int(answer.json()["pending"])

    async def get(self, path: str, **query: object) -> dict[str, Any]:
        """Read the API as the signed-in person; a 503 while something restarts is tried again."""
        return await self.get_from("api", path, **query)

    async def get_from(self, process: str, path: str, **query: object) -> dict[str, Any]:
        """Read `api` or `sender`, likewise."""
        async with asyncio.timeout(30):
            while True:
                try:
                    answer = await self.http.get(
                        f"{self.address(process)}{path}",
                        params={"workspace_id": self.workspace_id, **query},  # type: ignore[dict-item]
                        headers={"authorization": f"Bearer {await self._token()}"},
                    )
                    if answer.status_code != 503:
                        answer.raise_for_status()
                        found: dict[str, Any] = answer.json()
                        return found
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.2)

    async def post(
        self, process: str, path: str, body: object = None, *, key: str | None = None, **query: object
    ) -> httpx.Response:
        """Ask `sender` or `api` for something, as the signed-in person. key: Idempotency-Key, by default a new one."""
        return await self.http.post(
            f"{self.address(process)}{path}",
            params={"workspace_id": self.workspace_id, **query},  # type: ignore[dict-item]
            headers={"authorization": f"Bearer {await self._token()}", "idempotency-key": key or str(uuid.uuid4())},
            json=body,
        )

    async def delete(self, process: str, path: str, **query: object) -> None:
        answer = await self.http.delete(
            f"{self.address(process)}{path}",
            params={"workspace_id": self.workspace_id, **query},  # type: ignore[dict-item]
            headers={"authorization": f"Bearer {await self._token()}"},
        )
        answer.raise_for_status()

    async def upload(self, content: bytes, mime_type: str, *, kind: str) -> dict[str, Any]:
        """Upload a file as the signed-in person; return how the API describes it."""
        answer = await self.http.post(
            f"{self.address('sender')}/api/whatsapp/media",
            params={"workspace_id": self.workspace_id, "kind": kind},
            headers={"authorization": f"Bearer {await self._token()}"},
            files={"file": ("a file.jpg", content, mime_type)},
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    async def send_file(self, *, name: str, wa_id: str, user_id: str, content: bytes, mime_type: str) -> str:
        """Send a file as a customer on the sandbox's phone; return the wamid."""
        sandbox, number = self.address("sandbox"), self.story["channels"][0]["phone_number_id"]
        kept = await self.http.post(
            f"{sandbox}/sandbox/media",
            params={"phone_number_id": number},
            headers={"content-type": mime_type},
            content=content,
        )
        who = {"name": name, "wa_id": wa_id, "user_id": user_id}
        asked = {"from": who, "phone_number_id": number, "media": {"id": kept.raise_for_status().json()["id"]}}
        answer = await self.http.post(f"{sandbox}/sandbox/messages", json=asked)
        return str(answer.raise_for_status().json()["wamid"])

    async def message(self, message_id: str, conversation_id: str) -> dict[str, Any]:
        """One message as the API shows it; `{}` while it is not among the conversation's last."""
        page = await self.get(f"/api/whatsapp/conversations/{conversation_id}/messages", limit=100)
        return next((one for one in page["items"] if one["id"] == message_id), {})

    async def conversation_of(self, wamid: str) -> str:
        """Wait until a customer's message is recorded; return its conversation."""
        async with asyncio.timeout(15):
            while True:
                for message in await self.messages():
                    if message["wamid"] == wamid:
                        return str(message["conversation_id"])
                await asyncio.sleep(0.1)

    async def phone(self, user_id: str) -> list[dict[str, Any]]:
        """What the business sent to a customer, as their phone shows it; oldest first."""
        state = (await self.http.get(f"{self.address('sandbox')}/sandbox/state")).json()
        return [one for one in state["outbound"] if one["customer"] == user_id]

    async def messages(self) -> list[dict[str, Any]]:
        """Every message of every conversation, walking all pages."""
        found = []
        cursor = None
        while True:
            page = await self.get("/api/whatsapp/conversations", limit=100, **({"cursor": cursor} if cursor else {}))
            for conversation in page["items"]:
                before = None
                while True:
                    part = await self.get(
                        f"/api/whatsapp/conversations/{conversation['id']}/messages",
                        limit=100,
                        **({"before": before} if before else {}),
                    )
                    found += part["items"]
                    before = part["next_cursor"]
                    if before is None:
                        break
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    async def _token(self) -> str:
        sign_in = self.description["sign_in"]
        answer = await self.http.post(
            f"{self.address('sandbox')}/auth/v1/token",
            params={"grant_type": "password"},
            json={"email": sign_in["email"], "password": sign_in["password"]},
        )
        return str(answer.json()["access_token"])

    async def analyses_of(self, texts: Iterable[str]) -> Counter[str]:
        """How often Claude was asked about each text by itself; conversations are read whole besides."""
        by_hash = {hashlib.sha256(text.encode()).hexdigest(): text for text in texts}
        answer = await self.http.get(f"{self.address('sandbox')}/sandbox/claude/calls")
        calls = [call for call in answer.json()["calls"] if call["answer_fields"] == ["entries"]]
        hashes = [h for call in calls for h in call["text_sha256s"]]
        return Counter(by_hash[h] for h in hashes if h in by_hash)

    async def kill(self, process: str) -> int:
        """kill -9 a process; return the pid it had."""
        pid = int(self.description["pids"][process])
        os.kill(pid, signal.SIGKILL)
        return pid


async def until(condition: Callable[[], Awaitable[bool]], *, within_s: float, what: str) -> float:
    """Wait for a condition; return the seconds it took."""
    started = time.monotonic()
    while not await condition():
        if time.monotonic() - started > within_s:
            pytest.fail(f"not within {within_s:.0f} s: {what}")
        await asyncio.sleep(0.1)
    return time.monotonic() - started


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """`python -m deploy.local run`, as a person starts it, in a directory of its own."""
    state_dir = tmp_path_factory.mktemp("stack")
    async with started_stack(state_dir), httpx.AsyncClient(timeout=10) as http:
        yield Stack(state_dir, http)
