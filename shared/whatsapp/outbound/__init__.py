"""What we say to WhatsApp: one type per thing that can be said, its limits and its body for Meta's Graph API.

Holds: contents, recipients, read receipts, blocks; `check` (all problems at once) and `to_graph` (the request body).
Holds not: the reply window, who may send, what a template looks like (`shared.whatsapp.templates`), HTTP.
Types are plain frozen dataclasses, each with a `type` that tells it apart, so that pydantic's TypeAdapter reads and
writes them at a process boundary (unknown keys are refused there).
"""

from shared.whatsapp.outbound.media import media_ids
from shared.whatsapp.outbound.message import (
    Bsuid,
    Content,
    Group,
    Phone,
    Recipient,
    check,
    message_type,
    to_graph,
    to_marketing_graph,
)
from shared.whatsapp.problems import Problem

__all__ = [
    "Bsuid",
    "Content",
    "Group",
    "Phone",
    "Problem",
    "Recipient",
    "check",
    "media_ids",
    "message_type",
    "to_graph",
    "to_marketing_graph",
]
