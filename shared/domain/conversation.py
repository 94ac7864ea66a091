"""The life of a conversation: which actions are allowed when, and what a customer's message does to it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from shared.domain.errors import Conflict, NotFound


class ConversationStatus(StrEnum):
    """Spelled as in the database."""

    OPEN = "open"
    ARCHIVED = "archived"
    BLOCKED = "blocked"
    DELETED = "deleted"


class Action(StrEnum):
    """What a person does. Block and unblock are done to a contact, and so to all their conversations."""

    ARCHIVE = "archive"
    REOPEN = "reopen"
    BLOCK = "block"
    UNBLOCK = "unblock"
    DELETE = "delete"


_OPEN, _ARCHIVED, _BLOCKED, _DELETED = ConversationStatus
# Source: system-architecture.md, "Conversation Lifecycle"; but for archived → blocked, which it does not draw: nothing
# of somebody blocked should show.
_MOVES = {
    (_OPEN, Action.ARCHIVE): _ARCHIVED,
    (_ARCHIVED, Action.REOPEN): _OPEN,
    (_OPEN, Action.BLOCK): _BLOCKED,
    (_ARCHIVED, Action.BLOCK): _BLOCKED,
    (_BLOCKED, Action.UNBLOCK): _OPEN,
    (_ARCHIVED, Action.DELETE): _DELETED,
    (_BLOCKED, Action.DELETE): _DELETED,
}
# Asking for what is already so. Unblocking somebody who is not blocked leaves their archived conversations alone, and
# neither it nor blocking brings deleted ones back.
_SETTLED = {
    (_ARCHIVED, Action.ARCHIVE),
    (_OPEN, Action.REOPEN),
    (_BLOCKED, Action.BLOCK),
    (_DELETED, Action.BLOCK),
    (_OPEN, Action.UNBLOCK),
    (_ARCHIVED, Action.UNBLOCK),
    (_DELETED, Action.UNBLOCK),
    (_DELETED, Action.DELETE),
}
_NEEDED = {Action.ARCHIVE: _OPEN, Action.REOPEN: _ARCHIVED, Action.DELETE: _ARCHIVED}
_PRECEDENCE = (_BLOCKED, _OPEN, _ARCHIVED, _DELETED)


def move(status: ConversationStatus, action: Action) -> ConversationStatus:
    """Return the status after an action; asking for the state it already has succeeds.

    Twins: the functions of migration *_conversation_lifecycle, with the same codes and hints.
    Raises: Conflict where the state forbids it, NotFound where the conversation is deleted.
    """
    if (status, action) in _SETTLED:
        return status
    following = _MOVES.get((status, action))
    if following is not None:
        return following
    if status is _DELETED:
        raise NotFound(
            "conversation not found", code="conversation_not_found", hint="It does not exist, or it is not yours."
        )
    hint = "Unblock the contact first." if status is _BLOCKED else "Archive it first."
    raise Conflict(f"conversation is {status}", code=f"conversation_not_{_NEEDED[action]}", hint=hint)


def merged(a: ConversationStatus, b: ConversationStatus) -> ConversationStatus:
    """Return the status of two conversations that turn out to be one: blocked over open over archived."""
    return min(a, b, key=_PRECEDENCE.index)


def after_inbound(
    status: ConversationStatus, *, sent_at: datetime, archived_at: datetime | None, reopen: bool
) -> ConversationStatus:
    """Return the status after a customer's live message that we did not have yet.

    `reopen`: the workspace's setting; without it, archived stays archived, as drawn. What was sent before archiving
    and arrives late reopens nothing. Units: aware times; `sent_at` is Meta's.
    """
    is_later = archived_at is not None and sent_at > archived_at
    return _OPEN if status is _ARCHIVED and reopen and is_later else status
