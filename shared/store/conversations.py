"""What a signed-in person does to conversations and contacts; answers are JSON text that goes straight through."""

from __future__ import annotations

from uuid import UUID

from shared.domain.person import Person
from shared.store.port import Store


class Conversations:
    """The functions of migration *_conversation_lifecycle, and people's of *_retention_and_erasure.

    Asking for what is already so succeeds, so each may be called again after a lost answer.
    Raises: NotFound, Forbidden (a viewer), Conflict, Rejected.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def archive(self, workspace_id: UUID, conversation_id: UUID, *, seen_seq: int, as_user: Person) -> str:
        """Archive, unless a message arrived after `seen_seq`."""
        args = _conversation(workspace_id, conversation_id) | {"p_seen_seq": seen_seq}
        return await self._store.call("archive_conversation", args, as_user=as_user)

    async def reopen(self, workspace_id: UUID, conversation_id: UUID, *, as_user: Person) -> str:
        """Reopen an archived conversation."""
        args = _conversation(workspace_id, conversation_id)
        return await self._store.call("reopen_conversation", args, as_user=as_user)

    async def mark_read(self, workspace_id: UUID, conversation_id: UUID, *, seen_seq: int, as_user: Person) -> str:
        """Mark messages up to `seen_seq` read."""
        args = _conversation(workspace_id, conversation_id) | {"p_seen_seq": seen_seq}
        return await self._store.call("mark_conversation_read", args, as_user=as_user)

    async def delete(self, workspace_id: UUID, conversation_id: UUID, *, as_user: Person) -> str:
        """Delete an archived or blocked conversation, for good."""
        args = _conversation(workspace_id, conversation_id)
        return await self._store.call("delete_conversation", args, as_user=as_user)

    async def block_contact(self, workspace_id: UUID, contact_id: UUID, *, as_user: Person) -> str:
        """Block a contact and all their conversations."""
        return await self._store.call("block_contact", _contact(workspace_id, contact_id), as_user=as_user)

    async def unblock_contact(self, workspace_id: UUID, contact_id: UUID, *, as_user: Person) -> str:
        """Unblock a contact; their conversations are open again."""
        return await self._store.call("unblock_contact", _contact(workspace_id, contact_id), as_user=as_user)

    async def erase_contact(self, workspace_id: UUID, contact_id: UUID, *, as_user: Person) -> str:
        """Ask for a contact to be erased, for good. Raises: Forbidden unless they are owner or admin."""
        return await self._store.call("request_contact_erasure", _contact(workspace_id, contact_id), as_user=as_user)

    async def erasure(self, workspace_id: UUID, erasure_id: UUID, *, as_user: Person) -> str:
        """Return how far an erasure has come. Raises: Forbidden unless they are owner or admin."""
        args: dict[str, object] = {"p_workspace_id": str(workspace_id), "p_erasure_id": str(erasure_id)}
        return await self._store.call("contact_erasure", args, as_user=as_user)


def _conversation(workspace_id: UUID, conversation_id: UUID) -> dict[str, object]:
    return {"p_workspace_id": str(workspace_id), "p_conversation_id": str(conversation_id)}


def _contact(workspace_id: UUID, contact_id: UUID) -> dict[str, object]:
    return {"p_workspace_id": str(workspace_id), "p_contact_id": str(contact_id)}
