"""Chores claimed and done once, as a dispatcher does them, against the sandbox's Graph; and a number with a token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from services.sender.chores import Again, Chore, Done, Failed
from services.sender.graph import Graph, open_graph
from services.sender.number_executors import number_executors
from services.sender.seal import KeyPair, TokenOpener, new_key_pair
from shared.auth.seal import seal
from shared.domain.ids import new_id
from shared.settings.clocks import Clocks
from shared.store.channels import ChannelWork
from shared.store.outbox import ChoreResult, Outbox
from shared.store.port import Store
from tests.integration.conftest import ClaudeSandbox

KEYS: KeyPair = new_key_pair()
TOKEN = "sandbox-token"  # the sandbox's own


async def give_token(
    admin: psycopg.AsyncConnection, workspace_id: UUID, channel_id: UUID, token: str = TOKEN, keys: KeyPair = KEYS
) -> None:
    """Let a number have a token of Meta's."""
    sealed = seal(token, keys.public_key)
    await admin.execute(
        "insert into app.channel_tokens (workspace_id, channel_id, token_sealed, key_id) values (%s, %s, %s, %s)"
        " on conflict (workspace_id, channel_id) do update set token_sealed = excluded.token_sealed",
        (workspace_id, channel_id, sealed.token_sealed, sealed.key_id),
    )


@dataclass(frozen=True)
class ChoreRun:
    """A dispatcher's hand, of which one grip can be looked at."""

    store: Store
    graph: Graph
    sandbox: ClaudeSandbox

    async def once(self, *kinds: str) -> list[tuple[str, Any]]:
        """Claim what is due of these kinds (all without any), do it, record it; return kind and outcome of each."""
        outbox = Outbox(self.store)
        executors = number_executors(graph=self.graph, channels=ChannelWork(self.store), outbox=outbox)
        lease = new_id()
        found = []
        for row in await outbox.claim_chores(list(kinds or executors), most=50, lease_token=lease, lease_s=20):
            token = TokenOpener([KEYS.private_key]).open(row.token_sealed or "", row.key_id or "")
            names = set(Chore.__dataclass_fields__) - {"token"}
            chore = Chore(**{name: getattr(row, name) for name in names}, token=token)
            outcome = await executors[row.kind](chore)
            found.append((row.kind, outcome))
            word = {Done: "done", Again: "retry", Failed: "failed"}[type(outcome)]
            wait_ms = int(outcome.in_s * 1000) if isinstance(outcome, Again) else None
            error = None if isinstance(outcome, Done) else {"reason": outcome.error.reason, "code": outcome.error.code}
            await outbox.finish_chores(
                [ChoreResult(row.workspace_id, row.id, lease, word, retry_in_ms=wait_ms, error=error)]  # type: ignore[arg-type]
            )
        return found

    def calls(self) -> list[tuple[str, str]]:
        """What Meta was asked since the last reset: method and path."""
        shown = self.sandbox.http.get("/sandbox/graph/calls").raise_for_status().json()["calls"]
        return [(call["method"], call["path"]) for call in shown]

    def read_marks(self) -> list[dict[str, Any]]:
        return list(self.sandbox.http.get("/sandbox/graph/read_marks").raise_for_status().json()["read_marks"])

    def wrote(self, phone_number_id: str, **customer: str) -> None:
        """Let Meta know that a customer wrote just now."""
        asked = {"phone_number_id": phone_number_id, "customer": customer}
        self.sandbox.http.post("/sandbox/graph/windows", json=asked).raise_for_status()


@asynccontextmanager
async def chore_run(store: Store, sandbox: ClaudeSandbox) -> AsyncIterator[ChoreRun]:
    """Yield a hand on a sandbox that has forgotten everything."""
    sandbox.http.post("/sandbox/graph/reset").raise_for_status()
    async with open_graph(f"{sandbox.url}/graph/v26.0", clocks=Clocks(), connections=4) as graph:
        yield ChoreRun(store, graph, sandbox)
