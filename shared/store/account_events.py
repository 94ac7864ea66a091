"""What Meta told about a workspace's accounts, as JSON text that goes straight through to its people."""

from __future__ import annotations

from uuid import UUID

from shared.domain.person import Person
from shared.store.port import Store


class AccountEvents:
    """The reading function of migration *_account_events; recording calls the others inside the database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list_account_events(
        self, workspace_id: UUID, *, limit: int, cursor: str | None, severity: str | None, as_user: Person
    ) -> str:
        """A page of events, newest first; `severity`: critical, warning or info only. Raises: NotFound, Rejected."""
        return await self._store.call(
            "list_account_events",
            {
                "p_workspace_id": str(workspace_id),
                "p_limit": limit,
                "p_cursor": cursor,
                "p_severity": severity,
            },
            as_user=as_user,
        )
