"""Field `calls`: what happens to voice calls, and their statuses, which are not those of messages."""

from __future__ import annotations

from shared.whatsapp.events import Call, Direction
from shared.whatsapp.scope import Scope
from shared.whatsapp.wire import Json, identifier, time


def read_call(item: Json, scope: Scope) -> Call | str:
    """Read an element of `calls`, or return why it cannot be placed."""
    said = item.get("direction")
    ours = said == "BUSINESS_INITIATED" or (said != "USER_INITIATED" and scope.is_ours(item.get("from")))
    side = "to" if ours else "from"
    ids = (item.get(f"{side}_user_id"), item.get(side), item.get(f"{side}_parent_user_id"))
    return _read(item, scope, event=item.get("event"), direction="outbound" if ours else "inbound", ids=ids)


def read_call_status(item: Json, scope: Scope) -> Call | str:
    """Read an element of `statuses`: only calls of ours have them."""
    parent_user_id = item.get("recipient_parent_user_id") or item.get("parent_recipient_user_id")
    ids = (item.get("recipient_user_id"), item.get("recipient_id"), parent_user_id)
    return _read(item, scope, event=item.get("status"), direction="outbound", ids=ids)


def _read(
    item: Json, scope: Scope, *, event: object, direction: Direction, ids: tuple[object, object, object]
) -> Call | str:
    call_id, named = identifier(item.get("id")), identifier(event)
    if call_id is None:
        return "call_without_id"
    if named is None:
        return "call_without_event"
    return Call(
        change=scope.change,
        item=scope.item,
        call_id=call_id,
        event=named.lower(),
        direction=direction,
        sent_at=time(item.get("timestamp")),
        person=scope.people.customer(*ids),
        payload=item,
    )
