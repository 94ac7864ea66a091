"""Business numbers: what people do to them, and what the sender asks and records of them, of read marks and blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from shared.domain.person import Person
from shared.store.port import Store


class Channels:
    """What a signed-in person does to numbers and to a workspace's settings; answers are JSON text.

    Asking for what is already so succeeds, so each may be called again after a lost answer.
    Raises: NotFound, Forbidden (neither owner nor admin), Conflict, Rejected.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def connect(
        self,
        workspace_id: UUID,
        *,
        new_id: UUID,
        waba_id: str,
        phone_number_id: str,
        token_sealed: str,
        key_id: str,
        as_user: Person,
    ) -> str:
        """Connect a number, or give one of theirs another token."""
        args: dict[str, object] = {
            "p_workspace_id": str(workspace_id),
            "p_id": str(new_id),
            "p_waba_id": waba_id,
            "p_phone_number_id": phone_number_id,
            "p_token_sealed": token_sealed,
            "p_key_id": key_id,
        }
        return await self._store.call("connect_channel", args, as_user=as_user)

    async def health(self, workspace_id: UUID, channel_id: UUID, *, as_user: Person) -> str:
        """Return one number, as list_channels does."""
        return await self._store.call("channel_health", _channel(workspace_id, channel_id), as_user=as_user)

    async def pause(self, workspace_id: UUID, channel_id: UUID, *, as_user: Person) -> str:
        """Hold what it sends."""
        return await self._store.call("pause_channel_by_person", _channel(workspace_id, channel_id), as_user=as_user)

    async def resume(self, workspace_id: UUID, channel_id: UUID, *, as_user: Person) -> str:
        """Let it send again, whatever held it."""
        return await self._store.call("resume_channel", _channel(workspace_id, channel_id), as_user=as_user)

    async def disconnect(self, workspace_id: UUID, channel_id: UUID, *, as_user: Person) -> str:
        """Let it go."""
        return await self._store.call("disconnect_channel", _channel(workspace_id, channel_id), as_user=as_user)

    async def contact_blocks(self, workspace_id: UUID, contact_id: UUID, *, as_user: Person) -> str:
        """Return a contact as blocking does: here, and how far that has come at Meta."""
        args: dict[str, object] = {"p_workspace_id": str(workspace_id), "p_contact_id": str(contact_id)}
        return await self._store.call("contact_block_state", args, as_user=as_user)

    async def settings(self, workspace_id: UUID, *, as_user: Person) -> str:
        """Return a workspace's settings."""
        return await self._store.call("workspace_settings", {"p_workspace_id": str(workspace_id)}, as_user=as_user)

    async def change_settings(self, workspace_id: UUID, changes: Mapping[str, object], *, as_user: Person) -> str:
        """Change some of a workspace's settings; return all."""
        args: dict[str, object] = {"p_workspace_id": str(workspace_id), "p_changes": dict(changes)}
        return await self._store.call("change_workspace_settings", args, as_user=as_user)

    async def ai_budget(self, workspace_id: UUID, *, as_user: Person) -> str:
        """Return what Claude may cost a workspace, and has cost it today."""
        return await self._store.call("ai_budget", {"p_workspace_id": str(workspace_id)}, as_user=as_user)

    async def change_ai_budget(self, workspace_id: UUID, changes: Mapping[str, object], *, as_user: Person) -> str:
        """Change that; return it."""
        args: dict[str, object] = {"p_workspace_id": str(workspace_id), "p_changes": dict(changes)}
        return await self._store.call("change_ai_budget", args, as_user=as_user)


@dataclass(frozen=True, slots=True)
class TokenedChannel:
    """A number as operators' commands see it. token_sealed, key_id: None: it has no token."""

    workspace_id: UUID
    workspace: str
    channel_id: UUID
    phone_number_id: str
    waba_id: str
    portfolio_id: str
    state: Literal["connecting", "connected", "paused"]
    paused_reason: str | None
    hold_reason: str | None
    marketing_paused_at: str | None
    token_sealed: str | None = field(repr=False)
    key_id: str | None
    templates: int  # approved ones we know of its account


@dataclass(frozen=True, slots=True)
class BlockTarget:
    """Whom to block. contact_id: None: erased. user_id, wa_id: what they last wrote with; either may be unknown."""

    contact_id: UUID | None
    is_blocked: bool
    is_other_under_way: bool
    user_id: str | None = field(repr=False)
    wa_id: str | None = field(repr=False)


class ChannelWork:
    """The services' functions of migration *_channels. Raises: NotFound, Unavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def schedule_checks(self, *, limit: int = 20) -> int:
        """Queue the daily check of numbers that had none for a day; return how many."""
        answer = json.loads(await self._store.call("schedule_channel_checks", {"p_limit": limit}))
        return int(answer["queued"])

    async def schedule_blocks(self, *, limit: int = 50) -> int:
        """Queue blocks that Meta refused to people who have written since; return how many."""
        return int(json.loads(await self._store.call("schedule_blocks", {"p_limit": limit}))["queued"])

    async def record_check(self, workspace_id: UUID, channel_id: UUID, check: Mapping[str, Any]) -> str:
        """Record what Meta said of a number; return its state. `check`: see the function."""
        args = _channel(workspace_id, channel_id) | {"p_check": dict(check)}
        return str(json.loads(await self._store.call("record_channel_check", args))["state"])

    async def record_subscription(
        self, workspace_id: UUID, channel_id: UUID, *, is_subscribed: bool, code: str | None, sentence: str | None
    ) -> None:
        """Record whether Meta sends us the webhooks of the number's account; `code`, `sentence`: why not."""
        args = _channel(workspace_id, channel_id) | {
            "p_is_subscribed": is_subscribed,
            "p_code": code,
            "p_sentence": sentence,
        }
        await self._store.call("record_channel_subscription", args)

    async def with_tokens(self, workspace_id: UUID | None = None) -> list[TokenedChannel]:
        """Return the numbers of one workspace, or of all."""
        args = {"p_workspace_id": None if workspace_id is None else str(workspace_id)}
        rows = json.loads(await self._store.call("channels_with_tokens", args))["items"]
        return [
            TokenedChannel(
                **row | {"workspace_id": UUID(row["workspace_id"]), "channel_id": UUID(row["channel_id"])},
            )
            for row in rows
        ]

    async def reseal(self, workspace_id: UUID, channel_id: UUID, *, was: str, token_sealed: str, key_id: str) -> bool:
        """Put a token sealed anew in place of `was`; False: somebody set another meanwhile."""
        args = _channel(workspace_id, channel_id) | {
            "p_was": was,
            "p_token_sealed": token_sealed,
            "p_key_id": key_id,
        }
        return bool(json.loads(await self._store.call("reseal_channel_token", args))["changed"])

    async def read_mark_target(self, workspace_id: UUID, conversation_id: UUID) -> tuple[str | None, str | None]:
        """Return the wamid to mark read at Meta, or None and why there is none."""
        args: dict[str, object] = {"p_workspace_id": str(workspace_id), "p_conversation_id": str(conversation_id)}
        answer = json.loads(await self._store.call("read_mark_target", args))
        return answer["wamid"], answer["reason"]

    async def block_target(
        self, workspace_id: UUID, channel_id: UUID, contact_id: UUID, *, kind: Literal["block", "unblock"]
    ) -> BlockTarget:
        """Return whom a chore is about, and whether it still should be done."""
        args = _channel(workspace_id, channel_id) | {"p_contact_id": str(contact_id), "p_kind": kind}
        row = json.loads(await self._store.call("block_target", args))
        return BlockTarget(**row | {"contact_id": UUID(row["contact_id"]) if row["contact_id"] else None})

    async def record_block(
        self,
        workspace_id: UUID,
        channel_id: UUID,
        contact_id: UUID,
        *,
        kind: Literal["block", "unblock"],
        reason: str | None,
        sentence: str | None,
    ) -> None:
        """Record what Meta made of it; `reason`, `sentence`: why it did not."""
        args = _channel(workspace_id, channel_id) | {
            "p_contact_id": str(contact_id),
            "p_kind": kind,
            "p_reason": reason,
            "p_sentence": sentence,
        }
        await self._store.call("record_block", args)


def _channel(workspace_id: UUID, channel_id: UUID) -> dict[str, object]:
    return {"p_workspace_id": str(workspace_id), "p_channel_id": str(channel_id)}
