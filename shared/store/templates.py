"""Message templates: what people write and read (JSON text that goes straight through), what dispatchers do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from shared.domain.person import Person
from shared.store.port import Store

Json = dict[str, Any]


class Templates:
    """Functions of migration *_templates for people. Raises: NotFound, Forbidden (a role), Conflict, Rejected."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list_templates(
        self, workspace_id: UUID, *, limit: int, cursor: str | None, filters: Mapping[str, str | None], as_user: Person
    ) -> str:
        """A page, newest first; `filters`: status, category, language, q, waba_id; each None for all."""
        args = {f"p_{name}": filters.get(name) for name in ("status", "category", "language", "q", "waba_id")}
        return await self._as_user("list_templates", workspace_id, as_user, p_limit=limit, p_cursor=cursor, **args)

    async def read(self, workspace_id: UUID, template_id: UUID, *, as_user: Person) -> str:
        return await self._as_user("read_template", workspace_id, as_user, p_template_id=str(template_id))

    async def create(self, workspace_id: UUID, template: Json, *, request_id: str, digest: str, as_user: Person) -> str:
        """Write a draft; `template` as `create_template` says. The same request again is the same template."""
        return await self._as_user(
            "create_template",
            workspace_id,
            as_user,
            p_request_id=request_id,
            p_digest=digest,
            p_template=template,
        )

    async def edit(
        self, workspace_id: UUID, template_id: UUID, template: Json | None, *, version: int, as_user: Person
    ) -> str:
        """Write another draft; None gives the draft up."""
        return await self._as_user(
            "edit_template",
            workspace_id,
            as_user,
            p_template_id=str(template_id),
            p_version=version,
            p_template=template,
        )

    async def submit(self, workspace_id: UUID, template_id: UUID, *, version: int, as_user: Person) -> str:
        return await self._as_user(
            "submit_template", workspace_id, as_user, p_template_id=str(template_id), p_version=version
        )

    async def delete(self, workspace_id: UUID, template_id: UUID, *, version: int, as_user: Person) -> str:
        return await self._as_user(
            "delete_template", workspace_id, as_user, p_template_id=str(template_id), p_version=version
        )

    async def unpause(self, workspace_id: UUID, template_id: UUID, *, version: int, as_user: Person) -> str:
        return await self._as_user(
            "unpause_template", workspace_id, as_user, p_template_id=str(template_id), p_version=version
        )

    async def request_sync(self, workspace_id: UUID, *, as_user: Person) -> str:
        """Ask for all templates to be read from Meta now."""
        return await self._as_user("request_template_sync", workspace_id, as_user)

    async def enable_analytics(self, workspace_id: UUID, waba_id: str, *, as_user: Person) -> str:
        """Have Meta count for an account's templates, for good."""
        return await self._as_user("enable_template_analytics", workspace_id, as_user, p_waba_id=waba_id)

    async def analytics(
        self, workspace_id: UUID, template_id: UUID, *, first: date, last: date, as_user: Person
    ) -> str:
        """What was sent by day, UTC, both days included."""
        return await self._as_user(
            "list_template_analytics",
            workspace_id,
            as_user,
            p_template_id=str(template_id),
            p_from=first.isoformat(),
            p_to=last.isoformat(),
        )

    async def _as_user(self, function: str, workspace_id: UUID, person: Person, **args: object) -> str:
        return await self._store.call(function, {"p_workspace_id": str(workspace_id)} | args, as_user=person)


@dataclass(frozen=True, slots=True)
class ToSubmit:
    """A draft on its way. meta_id: of the one to edit; None: create it. status: what Meta says of it now.

    known_ms: as of when that is known. components: as Meta's endpoints take them, but for samples of ours ("parley:…").
    """

    version: int
    meta_id: str | None
    waba_id: str
    name: str
    language: str
    status: str | None
    category: str
    components: list[Any]
    parameter_format: str | None
    ttl_s: int | None
    known_ms: int


@dataclass(frozen=True, slots=True)
class ToDelete:
    """A template to be deleted at Meta, in its language."""

    version: int
    meta_id: str
    waba_id: str
    name: str
    language: str
    known_ms: int


@dataclass(frozen=True, slots=True)
class ToUnpause:
    """A paused template that Meta is to let go."""

    version: int
    meta_id: str


@dataclass(frozen=True, slots=True)
class AnalyticsDue:
    """Which statistics to read. enable: switch them on first. since: unix seconds. groups: of Meta's ids."""

    enable: bool
    since: int
    groups: list[list[str]]


class TemplateWork:
    """What dispatchers do with templates; every call may be repeated."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def to_submit(self, workspace_id: UUID, template_id: UUID) -> ToSubmit | None:
        """Return what to submit; None: nothing any more."""
        found = (await self._call("template_to_submit", workspace_id, p_template_id=str(template_id)))["template"]
        return ToSubmit(**found) if found else None

    async def finish_submit(
        self,
        workspace_id: UUID,
        template_id: UUID,
        asked: ToSubmit,
        *,
        at: datetime,
        answer: Json | None,
        error: Json | None,
    ) -> None:
        """Record what Meta answered, or why it refused. `at`: before the call."""
        await self._call(
            "finish_template_submit",
            workspace_id,
            p_template_id=str(template_id),
            p_version=asked.version,
            p_known_ms=asked.known_ms,
            p_asked_at=at.isoformat(),
            p_answer=answer,
            p_error=error,
        )

    async def to_delete(self, workspace_id: UUID, template_id: UUID) -> ToDelete | None:
        """Return what to delete; None: nothing any more."""
        found = (await self._call("template_to_delete", workspace_id, p_template_id=str(template_id)))["template"]
        return ToDelete(**found) if found else None

    async def finish_delete(
        self, workspace_id: UUID, template_id: UUID, asked: ToDelete, *, at: datetime, error: Json | None
    ) -> None:
        """Record that it is gone, or why Meta refused."""
        await self._call(
            "finish_template_delete",
            workspace_id,
            p_template_id=str(template_id),
            p_version=asked.version,
            p_known_ms=asked.known_ms,
            p_asked_at=at.isoformat(),
            p_error=error,
        )

    async def to_unpause(self, workspace_id: UUID, template_id: UUID) -> ToUnpause | None:
        """Return what to let go; None: nothing any more."""
        found = (await self._call("template_to_unpause", workspace_id, p_template_id=str(template_id)))["template"]
        return ToUnpause(**found) if found else None

    async def finish_unpause(
        self, workspace_id: UUID, template_id: UUID, asked: ToUnpause, *, error: Json | None
    ) -> None:
        """Record that Meta let it go, or why it refused."""
        await self._call(
            "finish_template_unpause",
            workspace_id,
            p_template_id=str(template_id),
            p_version=asked.version,
            p_error=error,
        )

    async def merge(self, workspace_id: UUID, waba_id: str, templates: Sequence[Any], *, at: datetime) -> None:
        """Merge templates as Meta showed them; `at`: before it was asked."""
        await self._of_account(
            "merge_templates", workspace_id, waba_id, p_read_at=at.isoformat(), p_templates=templates
        )

    async def unseen(self, workspace_id: UUID, waba_id: str, seen: Sequence[str], *, at: datetime) -> list[str]:
        """Return Meta's ids of some templates that a reading of all begun at `at` did not show."""
        found: list[str] = await self._of_account(
            "unseen_templates", workspace_id, waba_id, p_read_at=at.isoformat(), p_seen=seen
        )
        return found

    async def forget(self, workspace_id: UUID, waba_id: str, meta_ids: Sequence[str], *, at: datetime) -> None:
        """Mark templates deleted that Meta does not have."""
        await self._of_account("forget_templates", workspace_id, waba_id, p_read_at=at.isoformat(), p_meta_ids=meta_ids)

    async def finish_sync(
        self, workspace_id: UUID, waba_id: str, *, read_at: datetime | None, calls: int, error: Json | None
    ) -> AnalyticsDue | None:
        """Record how a sync ended; `read_at`: None unless it read all. Return which statistics to read now."""
        found = await self._of_account(
            "finish_template_sync",
            workspace_id,
            waba_id,
            p_read_at=read_at.isoformat() if read_at else None,
            p_calls=calls,
            p_error=error,
        )
        due = found["analytics"]
        return AnalyticsDue(due["enable"], due["from"], due["groups"]) if due else None

    async def store_analytics(self, workspace_id: UUID, waba_id: str, points: Sequence[Json]) -> None:
        await self._of_account("store_template_analytics", workspace_id, waba_id, p_points=points)

    async def finish_analytics(
        self, workspace_id: UUID, waba_id: str, *, state: str, calls: int, error: Json | None
    ) -> None:
        """Record how reading statistics ended; `state`: on, off, unavailable."""
        await self._of_account(
            "finish_template_analytics", workspace_id, waba_id, p_state=state, p_calls=calls, p_error=error
        )

    async def schedule_syncs(self) -> int:
        """Queue the syncs that are due, once whoever asks. Return how many."""
        return int(json.loads(await self._store.call("schedule_template_syncs", {}))["queued"])

    async def _of_account(self, function: str, workspace_id: UUID, waba_id: str, **args: object) -> Any:
        return await self._call(function, workspace_id, p_waba_id=waba_id, **args)

    async def _call(self, function: str, workspace_id: UUID, **args: object) -> Any:
        return json.loads(await self._store.call(function, {"p_workspace_id": str(workspace_id)} | args))
