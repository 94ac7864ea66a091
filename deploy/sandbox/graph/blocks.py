"""`/<PHONE_NUMBER_ID>/block_users`. Source: Meta, block-users, read 2026-11-22."""

from __future__ import annotations

from typing import Any

from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.people import WINDOW_S, Recipient
from deploy.sandbox.graph.wire import Answer, Request
from deploy.sandbox.graph.world import Number, World

MOST_BLOCKED = 64_000


def block_users(world: World, number: Number, request: Request) -> Answer:
    """Answer GET, POST and DELETE; some that fail make it a 400 with both lists.

    Raises: Refused 139100 with the lists beside it.
    """
    if request.method == "GET":
        return _list(number, request)
    body = request.body()
    if body.get("messaging_product") != "whatsapp":
        raise Refused(100, "The parameter messaging_product is required.")
    asked = body.get("block_users")
    if not isinstance(asked, list) or not asked:
        raise Refused(100, "The parameter block_users is required.")
    adds = request.method == "POST"
    done: list[dict[str, str]] = []
    failed: list[dict[str, Any]] = []
    for one in asked:
        text = str(one.get("user", "")) if isinstance(one, dict) else ""
        try:
            recipient = _who(world, number, text)
            (_block if adds else _unblock)(world, number, recipient)
            done.append(recipient.contact())
        except Refused as refused:
            error = {"message": refused.title, "code": refused.code, "error_data": {"details": refused.details}}
            digits = "".join(sign for sign in text if sign.isdigit())
            failed.append({"input": text, "wa_id": digits, "errors": [error]})
    lists: dict[str, Any] = {"added_users" if adds else "removed_users": done}
    if failed:
        lists["failed_users"] = failed
    found = {"messaging_product": "whatsapp", "block_users": lists}
    if failed:
        raise Refused(139100, beside=found)
    return Answer(found)


def _who(world: World, number: Number, text: str) -> Recipient:
    is_number = text.lstrip("+ ").replace(" ", "").replace("-", "").isdigit()
    return world.people.recipient(text if is_number else None, None if is_number else text, number.digits)


def _block(world: World, number: Number, recipient: Recipient) -> None:
    person = recipient.person
    if person.wa_id == number.digits:
        raise Refused(131021)
    if len(number.blocked) >= MOST_BLOCKED:
        raise Refused(139101)
    wrote_at = world.people.last_wrote(number.id, person)
    if wrote_at is None or world.clock() - wrote_at >= WINDOW_S:
        refused = Refused(131047, "This user has not written in the last 24 hours.")
        refused.title = "Re-engagement required"
        raise refused
    number.blocked[person.key] = person


def _unblock(_: World, number: Number, recipient: Recipient) -> None:
    number.blocked.pop(recipient.person.key, None)


def _list(number: Number, request: Request) -> Answer:
    limit = int(request.query["limit"]) if request.query.get("limit", "").isdigit() else 100
    people = list(number.blocked.values())
    start = int(request.query["after"]) if request.query.get("after", "").isdigit() else 0
    page = people[start : start + limit]
    shown = [
        {"messaging_product": "whatsapp"}
        | ({"wa_id": person.wa_id} if person.wa_id else {})
        | ({"user_id": person.user_id} if person.user_id else {})
        for person in page
    ]
    if not page:
        return Answer({"data": []})
    cursors = {"before": str(start), "after": str(start + len(page))}
    return Answer({"data": [{"block_users": shown}], "paging": {"cursors": cursors}})
