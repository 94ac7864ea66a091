"""What a signed-in person reads, as JSON text that goes straight through to them."""

from __future__ import annotations

from uuid import UUID

from shared.domain.person import Person
from shared.store.port import Store


class Inbox:
    """The functions of migration *_inbox_reads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def me(self, *, as_user: Person) -> str:
        """Who they are and which workspaces are theirs."""
        return await self._store.call("me", {}, as_user=as_user)

    async def list_conversations(self, workspace_id: UUID, *, limit: int, cursor: str | None, as_user: Person) -> str:
        """A page of conversations, newest first. Raises: NotFound, Rejected."""
        return await self._store.call(
            "list_conversations",
            {"p_workspace_id": str(workspace_id), "p_limit": limit, "p_cursor": cursor},
            as_user=as_user,
        )

    async def list_channels(self, workspace_id: UUID, *, as_user: Person) -> str:
        """A workspace's numbers and how far behind each is. Raises: NotFound."""
        return await self._store.call("list_channels", {"p_workspace_id": str(workspace_id)}, as_user=as_user)

    async def list_messages(
        self,
        workspace_id: UUID,
        conversation_id: UUID,
        *,
        limit: int,
        before: int | None,
        after: int | None,
        as_user: Person,
    ) -> str:
        """A page of messages. Raises: NotFound, Rejected."""
        return await self._store.call(
            "list_messages",
            {
                "p_workspace_id": str(workspace_id),
                "p_conversation_id": str(conversation_id),
                "p_limit": limit,
                "p_before": before,
                "p_after": after,
            },
            as_user=as_user,
        )
