"""Contacts as Claude and people have come to see them: score, tags, stage, tasks, proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from shared.domain.person import Person
from shared.store.port import Store


class Contacts:
    """What a signed-in person reads and does; answers are JSON text.

    Asking for what is already so succeeds, so each may be called again after a lost answer.
    Raises: NotFound, Forbidden (a viewer), Conflict, Rejected.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, workspace_id: UUID, contact_id: UUID, *, as_user: Person) -> str:
        """One contact, and why."""
        return await self._call("read_contact", workspace_id, as_user, p_contact_id=str(contact_id))

    async def change_tags(
        self,
        workspace_id: UUID,
        contact_id: UUID,
        *,
        added: Sequence[str],
        removed: Sequence[str],
        as_user: Person,
    ) -> str:
        """Set and remove tags; Claude then leaves them as they are."""
        return await self._call(
            "change_contact_tags",
            workspace_id,
            as_user,
            p_contact_id=str(contact_id),
            p_set=list(added),
            p_removed=list(removed),
        )

    async def change_stage(self, workspace_id: UUID, contact_id: UUID, *, stage: str | None, as_user: Person) -> str:
        """Set the stage; Claude then only proposes others."""
        return await self._call(
            "change_contact_stage", workspace_id, as_user, p_contact_id=str(contact_id), p_stage=stage
        )

    async def list_tasks(
        self,
        workspace_id: UUID,
        *,
        state: str | None,
        assigned_to: UUID | None,
        contact_id: UUID | None,
        limit: int,
        cursor: UUID | None,
        as_user: Person,
    ) -> str:
        """A page of tasks, newest first. `state` None: all."""
        return await self._call(
            "list_tasks",
            workspace_id,
            as_user,
            p_state=state,
            p_assigned_to=_text(assigned_to),
            p_contact_id=_text(contact_id),
            p_limit=limit,
            p_cursor=_text(cursor),
        )

    async def change_task(
        self, workspace_id: UUID, task_id: UUID, *, changes: Mapping[str, object], as_user: Person
    ) -> str:
        """Change its state, or whom it is assigned to."""
        return await self._call("change_task", workspace_id, as_user, p_task_id=str(task_id), p_changes=dict(changes))

    async def list_proposals(
        self, workspace_id: UUID, *, state: str | None, limit: int, cursor: UUID | None, as_user: Person
    ) -> str:
        """A page of what Claude proposes, newest first. `state` None: all."""
        return await self._call(
            "list_proposals", workspace_id, as_user, p_state=state, p_limit=limit, p_cursor=_text(cursor)
        )

    async def decide_proposal(
        self, workspace_id: UUID, proposal_id: UUID, *, accept: bool, new_id: UUID, as_user: Person
    ) -> str:
        """Accept or reject. `new_id`: of the task that is made, if it is one."""
        return await self._call(
            "decide_proposal",
            workspace_id,
            as_user,
            p_proposal_id=str(proposal_id),
            p_accept=accept,
            p_task_id=str(new_id),
        )

    async def undo_ai_changes(self, workspace_id: UUID, changes: Sequence[int], *, as_user: Person) -> str:
        """Undo what Claude changed; what a person has changed since stays."""
        return await self._call("undo_ai_changes", workspace_id, as_user, p_changes=list(changes))

    async def ai_lists(self, workspace_id: UUID, *, as_user: Person) -> str:
        """What Claude may set by itself, and how scores are made."""
        return await self._call("read_ai_lists", workspace_id, as_user)

    async def change_ai_lists(self, workspace_id: UUID, changes: Mapping[str, object], *, as_user: Person) -> str:
        """Change whole lists. Raises: Forbidden (neither owner nor admin)."""
        return await self._call("change_ai_lists", workspace_id, as_user, p_changes=dict(changes))

    async def _call(self, function: str, workspace_id: UUID, as_user: Person, **args: object) -> str:
        return await self._store.call(function, {"p_workspace_id": str(workspace_id), **args}, as_user=as_user)


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
