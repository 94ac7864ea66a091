"""One template to many people: what owners and admins do (JSON text that goes straight through), and dispatchers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from shared.domain.person import Person
from shared.store.port import Store


class BulkSends:
    """People's functions of migration *_bulk_sends.

    Raises: NotFound, Forbidden (neither owner nor admin), Conflict, Rejected.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(
        self, workspace_id: UUID, bulk: Mapping[str, Any], *, request_id: str, digest: str, as_user: Person
    ) -> str:
        """Begin a bulk send, shaped as create_bulk_send says; the same again under the same id is the same one."""
        args = _workspace(workspace_id) | {"p_request_id": request_id, "p_digest": digest, "p_bulk": dict(bulk)}
        return await self._store.call("create_bulk_send", args, as_user=as_user)

    async def template(self, workspace_id: UUID, template_id: UUID, *, as_user: Person) -> str:
        """Return a template as Meta keeps it."""
        args = _workspace(workspace_id) | {"p_wanted": {"template_id": str(template_id)}}
        return await self._store.call("template_to_send", args, as_user=as_user)

    async def list(self, workspace_id: UUID, *, limit: int, cursor: str | None, as_user: Person) -> str:
        """Return a page of a workspace's bulk sends, newest first."""
        args = _workspace(workspace_id) | {"p_limit": limit, "p_cursor": cursor}
        return await self._store.call("list_bulk_sends", args, as_user=as_user)

    async def read(self, workspace_id: UUID, bulk_id: UUID, *, as_user: Person) -> str:
        """Return one, with counts of what came of it."""
        return await self._store.call("read_bulk_send", _bulk(workspace_id, bulk_id), as_user=as_user)

    async def list_recipients(
        self, workspace_id: UUID, bulk_id: UUID, *, state: str | None, limit: int, after: int, as_user: Person
    ) -> str:
        """Return what came of each recipient, those after a place; `state`: only these."""
        args = _bulk(workspace_id, bulk_id) | {"p_state": state, "p_limit": limit, "p_after": after}
        return await self._store.call("list_bulk_recipients", args, as_user=as_user)

    async def pause(self, workspace_id: UUID, bulk_id: UUID, *, as_user: Person) -> str:
        """Keep back all that is not on its way."""
        return await self._store.call("pause_bulk_send", _bulk(workspace_id, bulk_id), as_user=as_user)

    async def resume(self, workspace_id: UUID, bulk_id: UUID, *, as_user: Person) -> str:
        """Go on with a paused one."""
        return await self._store.call("resume_bulk_send", _bulk(workspace_id, bulk_id), as_user=as_user)

    async def cancel(self, workspace_id: UUID, bulk_id: UUID, *, as_user: Person) -> str:
        """End it: what is not on its way never goes."""
        return await self._store.call("cancel_bulk_send", _bulk(workspace_id, bulk_id), as_user=as_user)


@dataclass(frozen=True, slots=True)
class Expansion:
    """What `expand_bulk_sends` did. is_more: call again at once."""

    expanded: int
    paused: int
    finished: int
    is_more: bool


class BulkWork:
    """The dispatchers' function of migration *_bulk_sends, as service_role."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def expand(self, *, most: int) -> Expansion:
        """Turn up to so many recipients of one bulk send into messages; call it every second."""
        return Expansion(**json.loads(await self._store.call("expand_bulk_sends", {"p_most": most})))


def _workspace(workspace_id: UUID) -> dict[str, object]:
    return {"p_workspace_id": str(workspace_id)}


def _bulk(workspace_id: UUID, bulk_id: UUID) -> dict[str, object]:
    return _workspace(workspace_id) | {"p_bulk_id": str(bulk_id)}
