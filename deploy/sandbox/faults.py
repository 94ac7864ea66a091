"""Faults that can be switched while the sandbox runs, and the routes that switch them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

ClaudeMode = Literal[
    "none",
    "overloaded",
    "rate_limited",
    "server_error",
    "timeout",
    "refusal",
    "truncation",
    "nonsense",
    "invalid_json",
    "slow",
    "gullible",  # does what the customers' texts ask: claude/gullible.py
]
# `slow` without a latency of its own: long enough to be felt, shorter than our clients' 30 to 45 s.
SLOW_MS = 10_000


class ClaudeFaults(BaseModel):
    """What goes wrong with Claude."""

    model_config = ConfigDict(extra="forbid")

    mode: ClaudeMode = "none"
    # After this many calls the mode returns to none by itself; null: until switched off.
    times: Annotated[int, Field(ge=1)] | None = None
    latency_ms: Annotated[int, Field(ge=0, le=120_000)] | None = None
    # Only calls whose user text holds this (as sent, or once its JSON is read) are hit.
    match: Annotated[str, Field(min_length=1)] | None = None


class BatchFaults(BaseModel):
    """What goes wrong with message batches; what is wrong with one request in them, `claude` says."""

    model_config = ConfigDict(extra="forbid")

    hold: bool = False  # none ends until this is switched off
    reply_lost: bool = False  # a batch is made, but its maker gets a 500


class WebhookFaults(BaseModel):
    """What goes wrong between Meta and our webhook."""

    model_config = ConfigDict(extra="forbid")

    duplicate: Annotated[int, Field(ge=1, le=50)] = 1  # copies of each body, the first included
    concurrent_copies: bool = True  # false: a copy leaves once the one before it has arrived
    shuffle_ms: Annotated[int, Field(ge=0, le=60_000)] = 0  # each copy first waits up to this long
    drop_first: Annotated[int, Field(ge=0, le=100)] = 0  # so many first attempts of each copy never reach us


GraphMode = Literal["error", "reply_lost", "reset", "hang", "html", "empty", "slow"]


class GraphScope(BaseModel):
    """Which calls a fault hits: those whose path and recipient hold these; empty: all."""

    model_config = ConfigDict(extra="forbid")

    path: str = ""
    recipient: str = ""


class GraphFault(BaseModel):
    """What goes wrong with Meta's Graph API.

    `error`: answers with `code` (with `by: webhook`, messages are accepted and fail by a status). `reply_lost`: done
    as asked, statuses come, but the connection closes without an answer. `reset`: closed before anything was done.
    `hang`: nothing done, never answers. `html`, `empty`: a 5xx that is not JSON. `slow`: only the latency.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    mode: GraphMode = "error"
    code: int = 131000
    http: Annotated[int, Field(ge=200, le=599)] | None = None  # null: what Meta's table says
    details: str | None = None
    by: Literal["answer", "webhook"] = "answer"
    latency_ms: Annotated[int, Field(ge=0, le=120_000)] = 0
    skip: Annotated[int, Field(ge=0)] = 0  # so many calls get through first
    times: Annotated[int, Field(ge=1)] | None = None  # null: until switched off
    only: Annotated[GraphScope, Field(alias="for")] = GraphScope()


class Faults(BaseModel):
    """All switches. What a PUT does not name goes back to its default, so `{}` resets everything."""

    model_config = ConfigDict(extra="forbid")

    claude: ClaudeFaults = ClaudeFaults()
    webhooks: WebhookFaults = WebhookFaults()
    batches: BatchFaults = BatchFaults()
    graph: list[GraphFault] = []  # the first that fits a call hits it; one object stands for a list of one
    # Keep whole prompts in the record of calls; null: as SANDBOX_RECORD_PROMPTS says.
    record_prompts: bool | None = None
    # Refuse schemas that the real API refuses (limits on numbers and lengths, open objects, recursion).
    strict_schema: bool = False

    @model_validator(mode="before")
    @classmethod
    def one_stands_for_a_list(cls, asked: Any) -> Any:
        if isinstance(asked, dict) and isinstance(asked.get("graph"), dict):
            return asked | {"graph": [asked["graph"]]}
        return asked


class FaultBoard:
    """The switches as they stand now."""

    def __init__(self, *, latency_ms: int, record_prompts: bool) -> None:
        self.now = Faults()
        self._latency_ms = latency_ms
        self._record_prompts = record_prompts
        self.changed = asyncio.Event()

    def replace(self, faults: Faults) -> None:
        """Put these switches in place of the present ones and wake whoever is sleeping under an old one."""
        self.now = faults.model_copy(deep=True)
        self.changed.set()
        self.changed = asyncio.Event()

    @property
    def record_prompts(self) -> bool:
        return self._record_prompts if self.now.record_prompts is None else self.now.record_prompts

    def take_graph_fault(self, path: str, recipient: str) -> GraphFault | None:
        """Find the fault that hits a call and use up one of its `times`."""
        for fault in self.now.graph:
            if fault.only.path not in path or fault.only.recipient not in recipient:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
                if not fault.times:
                    self.now.graph = [one for one in self.now.graph if one is not fault]
            return fault
        return None

    def take_claude_mode(self, texts: list[str]) -> tuple[ClaudeMode, int]:
        """Decide what happens to one call and use up one of its `times`.

        Returns: the mode, and the latency in milliseconds.
        """
        fault = self.now.claude
        mode: ClaudeMode = fault.mode
        if fault.match is not None and not any(fault.match in text for text in texts):
            mode = "none"
        latency_ms = self._latency_ms if fault.latency_ms is None else fault.latency_ms
        if mode == "slow" and fault.latency_ms is None:
            latency_ms = SLOW_MS
        if mode != "none" and fault.times is not None:
            left = fault.times - 1
            # The latency stays: it is a setting of its own, also without a fault.
            self.now.claude = (
                fault.model_copy(update={"times": left})
                if left
                else ClaudeFaults(latency_ms=None if mode == "slow" else fault.latency_ms)
            )
        return mode, latency_ms


def routes(board: FaultBoard) -> APIRouter:
    """Serve `GET` and `PUT /sandbox/faults`."""
    router = APIRouter()

    @router.get("/sandbox/faults")
    async def show_faults() -> Faults:
        return board.now

    @router.put("/sandbox/faults")
    async def replace_faults(faults: Faults) -> Faults:
        board.replace(faults)
        return board.now

    return router
