"""`/v1/messages/batches` as Anthropic speaks it: a batch is answered when it is first asked about, unless held.

Source: the types and paths of anthropic 2.12 (`resources/messages/batches.py`, `types/messages`), November 2026.
Simplified: a batch ends at once instead of within the day, and none is cancelled, archived or deleted.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from deploy.sandbox.claude.refused import Refused, invalid
from deploy.sandbox.faults import BatchFaults
from deploy.sandbox.logs import log, utc_text

MOST_REQUESTS = 100_000  # Anthropic's own limit
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_COUNTED = ("succeeded", "errored", "canceled", "expired")


@dataclass(slots=True)
class Batch:
    """One batch: what was asked, and once it has ended what came of it."""

    id: str
    requests: list[dict[str, Any]]
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    results: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self, base_url: str) -> dict[str, object]:
        """Show it as Anthropic does: tallies stay zero until the whole batch has ended."""
        kinds = [result["result"]["type"] for result in self.results]
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": "in_progress" if self.ended_at is None else "ended",
            "request_counts": {
                "processing": len(self.requests) if self.ended_at is None else 0,
                **{kind: kinds.count(kind) for kind in _COUNTED},
            },
            "created_at": utc_text(self.created_at),
            "expires_at": utc_text(self.created_at + timedelta(hours=24)),
            "ended_at": None if self.ended_at is None else utc_text(self.ended_at),
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": None if self.ended_at is None else f"{base_url}v1/messages/batches/{self.id}/results",
        }


def batch_routes(
    answer: Callable[[Any], dict[str, Any]],
    body: Callable[[Request], Awaitable[Any]],
    authorise: Callable[[Request], None],
    faults: Callable[[], BatchFaults],
    envelope: Callable[[str, int, str, str], JSONResponse],
) -> APIRouter:
    """Serve the batches. `answer` produces the result of one request's params."""
    router = APIRouter()
    batches: dict[str, Batch] = {}

    def refused(error: Refused) -> JSONResponse:
        return envelope(f"req_01{secrets.token_hex(11)}", error.status, error.kind, error.message)

    def find(request: Request, batch_id: str) -> Batch:
        authorise(request)
        if batch_id not in batches:
            raise Refused(404, "not_found_error", f"Batch {batch_id} not found")
        batch = batches[batch_id]
        if batch.ended_at is None and not faults().hold:
            # In another order than asked, as the results' order is nobody's promise.
            batch.results = [
                {"custom_id": one["custom_id"], "result": answer(one["params"])} for one in reversed(batch.requests)
            ]
            batch.ended_at = datetime.now(UTC)
        return batch

    @router.post("/v1/messages/batches")
    async def create_batch(request: Request) -> Response:
        try:
            batch = Batch(id=f"msgbatch_01{secrets.token_hex(11)}", requests=_check(await body(request)))
        except Refused as error:
            return refused(error)
        batches[batch.id] = batch
        log("claude.batch_made", batch_id=batch.id, requests=len(batch.requests))
        if faults().reply_lost:
            return refused(Refused(500, "api_error", "Internal server error"))
        return JSONResponse(batch.to_json(str(request.base_url)))

    @router.get("/v1/messages/batches")
    async def list_batches(request: Request) -> Response:
        try:
            authorise(request)
        except Refused as error:
            return refused(error)
        shown = [batch.to_json(str(request.base_url)) for batch in reversed(batches.values())]
        ids = [batch["id"] for batch in shown]
        return JSONResponse(
            {"data": shown, "has_more": False, "first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
        )

    @router.get("/v1/messages/batches/{batch_id}")
    async def read_batch(request: Request, batch_id: str) -> Response:
        try:
            return JSONResponse(find(request, batch_id).to_json(str(request.base_url)))
        except Refused as error:
            return refused(error)

    @router.get("/v1/messages/batches/{batch_id}/results")
    async def read_results(request: Request, batch_id: str) -> Response:
        try:
            batch = find(request, batch_id)
            if batch.ended_at is None:
                raise invalid(f"Batch {batch_id} is still processing")
        except Refused as error:
            return refused(error)
        lines = "".join(json.dumps(result, ensure_ascii=False) + "\n" for result in batch.results)
        return Response(lines, media_type="application/x-jsonl")

    return router


def _check(asked: Any) -> list[dict[str, Any]]:
    """Return the requests if the API would take the batch; what is wrong with one's params, its result will say."""
    if not isinstance(asked, dict) or not isinstance(asked.get("requests"), list) or not asked["requests"]:
        raise invalid("requests: List should have at least 1 item")
    if len(asked["requests"]) > MOST_REQUESTS:
        raise invalid(f"requests: List should have at most {MOST_REQUESTS} items")
    seen: set[str] = set()
    for index, one in enumerate(asked["requests"]):
        if not isinstance(one, dict) or set(one) != {"custom_id", "params"}:
            raise invalid(f"requests.{index}: custom_id and params are required")
        if not isinstance(one["custom_id"], str) or not _CUSTOM_ID.fullmatch(one["custom_id"]):
            raise invalid(f"requests.{index}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
        if one["custom_id"] in seen:
            raise invalid(f"requests.{index}.custom_id: must be unique within the batch")
        seen.add(one["custom_id"])
    return list(asked["requests"])
