"""How far a message of ours has come."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class MessageStatus(StrEnum):
    """Statuses of an outbound message, by rank; spelled as in the database."""

    QUEUED = "queued"
    SENT = "sent"
    FAILED = "failed"
    DELIVERED = "delivered"
    READ = "read"
    PLAYED = "played"


# The machine as drawn depends on the order of {delivered, failed}, and Meta repeats and reorders reports; a maximum
# does not. Failed is below delivered: what reached the customer did not fail, whichever report came last.
# Source: system-architecture.md, "Message State Machine"; docs/decisions/0008. Twin: app.status_rank.
RANK: Mapping[str, int] = MappingProxyType({status: rank for rank, status in enumerate(MessageStatus)})


def advance(current: MessageStatus, reported: str) -> MessageStatus:
    """Return the status after a report: the one of greatest rank.

    `reported`: Meta's word; one that we do not know moves nothing.
    """
    try:
        return max(current, MessageStatus(reported), key=RANK.__getitem__)
    except ValueError:
        return current
