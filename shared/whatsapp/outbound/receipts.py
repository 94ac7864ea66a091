"""Small requests that are no messages: read marks, typing, blocking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from shared.whatsapp.outbound.message import Bsuid, Phone
from shared.whatsapp.problems import Problem, Problems
from shared.whatsapp.wire import Json

BLOCK_LIST_MOST = 64_000


def read_receipt(wamid: str, *, is_typing: bool = False) -> Json:
    """Return the body that marks a message and all before it as read (within 30 days), for `POST /<number>/messages`.

    is_typing: shows that we type, for 25 s or until we send. There is no typing without the mark.
    """
    body: Json = {"messaging_product": "whatsapp", "status": "read", "message_id": wamid}
    return body | {"typing_indicator": {"type": "text"}} if is_typing else body


def block_users(users: Sequence[Phone | Bsuid]) -> Json:
    """Return the body that blocks (POST) or unblocks (DELETE) at `/<number>/block_users`."""
    return {"messaging_product": "whatsapp", "block_users": [{"user": _named(user)} for user in users]}


def _named(user: Phone | Bsuid) -> str:
    named: str = user.graph()["to" if isinstance(user, Phone) else "recipient"]
    return named


def check_block(
    action: Literal["block", "unblock"], users: Sequence[Phone | Bsuid], *, blocked_already: int = 0
) -> list[Problem]:
    """Return what Meta would refuse.

    Not checked: that each of them wrote to us within 24 h, which blocking needs (131047).
    """
    problems = Problems()
    problems.at("users").count(users, "people", least=1, most=BLOCK_LIST_MOST)
    for index, user in enumerate(users):
        user.check(problems.at("users", index))
    if action == "block" and blocked_already + len(users) > BLOCK_LIST_MOST >= len(users):
        problems.at("users").add("list_full", f"The block list of a number holds {BLOCK_LIST_MOST:,} people.")
    return problems.found()
