"""Bodies and answers about contacts as OpenAPI describes them. Postgres builds the JSON; a test holds the two equal."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.web.shapes import Evidence, Shape

Source = Literal["user", "ai"]
TaskState = Literal["open", "done", "dismissed"]
ProposalState = Literal["open", "accepted", "rejected"]
FeatureName = Literal["intent_strength", "value_signals", "sentiment_trend", "engagement", "recency"]
Name = Annotated[str, Field(min_length=1, max_length=60)]


class Quotation(Evidence):
    """The customer's words something rests on."""

    message_id: UUID


class ContactTag(Shape):
    """A tag, and who set it."""

    name: str = Field(examples=["complaint"])
    source: Source


class ScoreFeature(Shape):
    """One feature's share of a score."""

    value: Annotated[float, Field(ge=0, le=1)]
    weight: Annotated[float, Field(ge=0, le=1)] = Field(description="Share of all weights")
    points: int = Field(description="Share of the score: the points of all features add up to it")


class ScoreThen(Shape):
    """A score of the past."""

    score: int
    at: datetime


class ContactScore(Shape):
    """How promising a contact is, and what makes it so."""

    now: Annotated[int, Field(ge=0, le=100)] = Field(description="What time has left of `scored`")
    scored: Annotated[int, Field(ge=0, le=100)]
    scored_at: datetime
    half_life_days: float = Field(description="Half of it is left after so many days without a new one")
    features: dict[FeatureName, ScoreFeature]
    history: list[ScoreThen] = Field(description="The newest 50, newest first")


class Finding(Shape):
    """Something Claude said of a conversation."""

    value: Any
    confidence: Annotated[float, Field(ge=0, le=1)]
    evidence: list[Quotation]


class ConversationFindings(Shape):
    """All that Claude said of a conversation."""

    summary: str
    features: dict[str, Finding]
    stage: Finding | None
    tags: list[Finding]
    tasks: list[Finding]


class Why(Shape):
    """The newest analysis of a conversation of theirs: what score, tags, stage and tasks rest on."""

    conversation_id: UUID
    analysed_at: datetime
    model: str
    prompt_version: str
    result: ConversationFindings


class ContactTask(Shape):
    """Something to do for a contact."""

    id: UUID
    workspace_id: UUID
    contact_id: UUID
    conversation_id: UUID
    kind: str = Field(examples=["fix_problem"])
    title: str = Field(examples=["Replace the broken vase of order 4711"])
    due_at: datetime | None
    team: str | None = Field(description="Whom it is for: a hint", examples=["support"])
    evidence: list[Quotation]
    state: TaskState
    assigned_to: UUID | None
    source: Source = Field(description="Who wanted it: Claude, or a person who accepted Claude's proposal")
    created_at: datetime
    closed_at: datetime | None
    closed_by: UUID | None


class ProposedTask(Shape):
    """Of a task that is proposed: what it would be."""

    kind: str
    due_at: datetime | None
    team: str | None
    evidence: list[Quotation]


class Proposal(Shape):
    """What Claude would do but may not by itself."""

    id: UUID
    workspace_id: UUID
    contact_id: UUID
    conversation_id: UUID
    kind: Literal["tag", "stage", "task"]
    name: str = Field(description="The tag, the stage, or the task's title", examples=["wholesale"])
    task: ProposedTask | None
    confidence: Annotated[float, Field(ge=0, le=1)]
    state: ProposalState
    created_at: datetime
    decided_at: datetime | None
    decided_by: UUID | None


class AiChange(Shape):
    """Something Claude changed; undone by its id."""

    id: int
    at: datetime
    action: str = Field(examples=["contact.tagged"])
    subject_id: UUID = Field(description="The contact, the task or the proposal")
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Contact(Shape):
    """A contact as Claude and people have come to see it."""

    id: UUID = Field(description="Another than asked for if that one was merged into this")
    workspace_id: UUID
    name: str | None = Field(examples=["Ana Souza"])
    username: str | None
    first_seen_at: datetime
    opted_out_at: datetime | None
    blocked_at: datetime | None
    lifecycle_stage: str | None = Field(examples=["qualified"])
    stage_source: Source | None = Field(description="`user`: Claude only proposes others")
    tags: list[ContactTag]
    score: ContactScore | None = Field(description="Null before the third message")
    why: Why | None
    tasks: list[ContactTask] = Field(description="Open ones, those due first first")
    proposals: list[Proposal] = Field(description="Open ones")
    ai_changes: list[AiChange] = Field(description="The newest 50, newest first")
    server_time: datetime


class ContactTaskPage(Shape):
    """Answer of GET /api/tasks."""

    items: list[ContactTask]
    next_cursor: UUID | None
    server_time: datetime


class ProposalPage(Shape):
    """Answer of GET /api/proposals."""

    items: list[Proposal]
    next_cursor: UUID | None
    server_time: datetime


class Undone(Shape):
    """What was undone, and what was left: a person has changed it since, or it is gone."""

    undone: list[int]
    left: list[int]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TagsChange(_Asked):
    """Tags to set, of the workspace's list, and to remove."""

    add: list[Name] = Field([], max_length=100, examples=[["repeat_customer"]])
    remove: list[Name] = Field([], max_length=100)


class StageChange(_Asked):
    """The stage to set, of the workspace's list; null: none."""

    stage: Name | None = Field(examples=["customer"])


class TaskChange(_Asked):
    """What to change; what is left out stays."""

    state: TaskState = "open"
    assigned_to: UUID | None = Field(None, description="A member; null: nobody")


class Changes(_Asked):
    """Which of Claude's changes to undo."""

    changes: list[Annotated[int, Field(strict=True, ge=1, le=2**63 - 1)]] = Field(
        min_length=1, max_length=200, description="`ai_changes[].id` of contacts"
    )


class Listed(BaseModel):
    """A name Claude may use, and what it means: Claude reads that."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    description: Annotated[str, Field(max_length=300)] = ""


class ScoreSettings(_Asked):
    """How scores are made; what is left out is as usual."""

    weights: dict[FeatureName, Annotated[float, Field(ge=0, le=1000)]] = Field(
        {}, description="How much each counts, beside the others", examples=[{"intent_strength": 50, "recency": 0}]
    )
    half_life_days: Annotated[float, Field(ge=1, le=3650)] | None = None


class AiLists(Shape):
    """What Claude may set by itself in a workspace; all else is proposed."""

    workspace_id: UUID
    tags: list[Listed]
    stages: list[Listed]
    task_kinds: list[Listed]
    teams: list[Listed]
    score: dict[str, Any]
    analyse_conversations: bool


class AiListsChange(_Asked):
    """Whole lists to put in place of those there; what is left out stays."""

    tags: Annotated[list[Listed], Field(max_length=200)] | None = None
    stages: Annotated[list[Listed], Field(max_length=200)] | None = None
    task_kinds: Annotated[list[Listed], Field(max_length=200)] | None = None
    teams: Annotated[list[Listed], Field(max_length=200)] | None = None
    score: ScoreSettings | None = None
    analyse_conversations: Annotated[bool, Field(strict=True)] | None = None
