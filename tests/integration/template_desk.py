"""Templates in a test's database, with Meta's stand-in behind: write as people, work as dispatcher and recorder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg

from services.api.template_shapes import MessageTemplate, MessageTemplatePage
from services.sender.chores import Again, Chore, Done, Executor, Failed
from shared.domain.ids import new_id
from shared.store.outbox import ChoreResult, Outbox
from shared.store.postgres import PostgresTransport
from shared.store.webhooks import Webhooks
from tests.contract.conftest import until
from tests.contract.meta_graph import Meta
from tests.integration.test_api import Client
from tests.world import World, received

TEMPLATES = "/api/whatsapp/templates"
KINDS = ("template_submit", "template_delete", "template_sync")
BODY = {"text": "Hi {{1}}, your trip starts on {{2}}. See you there!", "examples": {"1": "Maren", "2": "24 Nov"}}


def definition(name: str = "trip_reminder", text: str | None = None, **changes: Any) -> dict[str, Any]:
    """A template that Meta takes, unless the changes are such that it does not."""
    body = {"text": text} if text else BODY
    return {"name": name, "language": "en_US", "category": "UTILITY", "body": body} | changes


@dataclass
class Desk:
    """Everybody around a template; workspace A's account is the stand-in's first."""

    admin: psycopg.AsyncConnection
    world: World
    service: PostgresTransport
    client: Client
    meta: Meta
    executors: dict[str, Executor]
    token: str = "good"
    recorded: int = 0
    outcomes: list[Done | Again | Failed] = field(default_factory=list)

    # --- people -----------------------------------------------------------------------------------------------------

    async def ask(
        self,
        method: str,
        path: str = "",
        *,
        user: UUID | None = None,
        params: dict[str, Any] | None = None,
        **more: Any,
    ) -> httpx.Response:
        found = {"workspace_id": str(self.world.workspace_a)} | (params or {})
        return await self.client.ask(
            TEMPLATES + path, user=user or self.world.owner_a, method=method, params=found, **more
        )

    async def create(self, key: str | None = None, user: UUID | None = None, **asked: Any) -> httpx.Response:
        body = {"definition": definition(**asked)}
        headers = {"idempotency-key": key or str(uuid4())}
        return await self.ask("POST", user=user, json=body, headers=headers)

    async def created(self, **asked: Any) -> dict[str, Any]:
        return valid(await self.create(**asked), 201)

    async def edit(self, template: dict[str, Any], **changed: Any) -> httpx.Response:
        body = {"version": template["version"], "definition": definition(template["template_name"], **changed)}
        return await self.ask("PUT", f"/{template['id']}", json=body)

    async def edited(self, template: dict[str, Any], **changed: Any) -> dict[str, Any]:
        return valid(await self.edit(template, **changed), 200)

    async def submit(self, template: dict[str, Any]) -> httpx.Response:
        return await self.ask("POST", f"/{template['id']}/submit", json={"version": template["version"]})

    async def submitted(self, template: dict[str, Any]) -> dict[str, Any]:
        """Submit it, have the dispatcher do it, and return what people then see."""
        assert valid(await self.submit(template), 202)["busy"] == "submitting"
        await self.work()
        return await self.read(template)

    async def delete(self, template: dict[str, Any]) -> httpx.Response:
        return await self.ask("DELETE", f"/{template['id']}", params={"version": template["version"]})

    async def read(self, template: dict[str, Any]) -> dict[str, Any]:
        return valid(await self.ask("GET", f"/{template['id']}"), 200)

    async def names(self, **params: Any) -> list[str]:
        page = await self.ask("GET", params=params)
        assert page.status_code == 200, page.text
        return [one.template_name for one in MessageTemplatePage.model_validate_json(page.content).items]

    async def sync(self) -> None:
        """Ask for a sync and do it."""
        answer = await self.ask("POST", "/sync")
        assert (answer.status_code, answer.json()) == (202, {"accounts": 1}), answer.text
        await self.work()

    # --- the dispatcher and the recorder ----------------------------------------------------------------------------

    async def work(self, *, hurry: bool = True) -> list[Done | Again | Failed]:
        """Do what is due; hurry: also what waits its time."""
        if hurry:
            await self.admin.execute(
                "update app.outbox set next_attempt_at = now() where state = 'due' and next_attempt_at > now()"
            )
        outbox, token = Outbox(self.service), new_id()
        self.outcomes = []
        for claimed in await outbox.claim_chores(KINDS, most=20, lease_token=token, lease_s=20):
            chore = Chore(
                workspace_id=claimed.workspace_id,
                id=claimed.id,
                channel_id=claimed.channel_id,
                phone_number_id=claimed.phone_number_id,
                waba_id=claimed.waba_id,
                token=self.token,
                kind=claimed.kind,
                payload=claimed.payload,
                lane=claimed.lane,
                message_id=claimed.message_id,
                attempt=claimed.attempt,
                expires_at=claimed.expires_at,
            )
            outcome = await self.executors[claimed.kind](chore)
            self.outcomes.append(outcome)
            result = {Done: "done", Again: "retry", Failed: "failed"}[type(outcome)]
            retry_in_ms = int(outcome.in_s * 1000) if isinstance(outcome, Again) else None
            await outbox.finish_chores(
                [ChoreResult(claimed.workspace_id, claimed.id, token, result, retry_in_ms)]  # type: ignore[arg-type]
            )
        return self.outcomes

    async def hear(self, field: str = "message_template_status_update", times: int = 1, later_s: int = 0) -> None:
        """Record what Meta tells, once it has told that much in all.

        later_s: as if it happened so much later, since the stand-in reviews twice within a second, and Meta does not.
        """
        until(lambda: len(self.meta.told(field)) >= times, what=f"{times} × {field}")
        raw = [got.raw for got in self.meta.webhook.received][self.recorded :]
        self.recorded += len(raw)
        await Webhooks(self.service).record([received(_shifted(one, later_s)) for one in raw], settle_s=0)

    async def rows(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        return await (await self.admin.execute(query.encode(), args)).fetchall()

    def calls(self, method: str, ending: str) -> int:
        """How often Meta was asked."""
        calls = self.meta.http.get("/sandbox/graph/calls").json()["calls"]
        return sum(call["method"] == method and call["path"].endswith(ending) for call in calls)

    def by_hand(self, template: dict[str, Any], **decision: Any) -> None:
        """Decide about a template at Meta."""
        path = f"/sandbox/graph/templates/{template['meta_id']}"
        self.meta.http.post(path, json=decision).raise_for_status()


def _shifted(raw: bytes, by_s: int) -> bytes:
    if not by_s:
        return raw
    body = json.loads(raw)
    for entry in body["entry"]:
        entry["time"] += by_s
    return json.dumps(body).encode()


def valid(answer: httpx.Response, status: int) -> dict[str, Any]:
    """A template as people got it, in its documented shape and nothing more."""
    assert answer.status_code == status, answer.text
    MessageTemplate.model_validate_json(answer.content)
    found: dict[str, Any] = json.loads(answer.content)
    return found
