"""Look after what could not be recorded: list it, show it masked, try it again, give it up."""

from __future__ import annotations

import asyncio
import getpass
import json
import socket
from base64 import b64decode
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog

from services.ingest.masking import masked
from services.ingest.printing import Screen, age, counted, difference_json, second
from services.ingest.record_isolated import record_isolated
from shared.queue.jobs import Jobs
from shared.store.port import Store
from shared.store.replay import ACCOUNT, Cursor, Difference, DiffingStore, Replay, Wanted
from shared.store.webhooks import Webhooks
from shared.whatsapp.events import ParsedBody, WebhookBody
from shared.whatsapp.parse import elements_of, parse_webhook

log = structlog.get_logger()

_PAGE_BODIES = 50
_MOST_SHOWN = 10  # items of one body; any other can be named
_MOST_LISTED = 30  # bodies of a retry shown one by one; totals say the rest


async def list_items(*, replay: Replay, screen: Screen, state: str, reason: str | None, limit: int) -> int:
    """Print what is set aside."""
    found = await replay.list_quarantine(state=state, reason=reason, limit=limit)
    if screen.as_json:
        screen.answer(found)
        return 0
    rows, totals = found["rows"], found["totals"]
    if not rows:
        screen.line("Nothing is in quarantine." if state == "all" else f"Nothing in quarantine is {state}.", "green")
        return 0
    now = datetime.now(UTC)
    screen.table(
        ("body", "received (UTC)", "item", "reason", "state", "age", "tried"),
        [
            (
                row["body_id"],
                second(row["received_at"]),
                row["item"],
                row["reason"],
                row["state"] if row["has_bytes"] else f"{row['state']}, bytes gone",
                age(row["set_aside_at"], now=now),
                age(row["tried_at"], now=now),
            )
            for row in rows
        ],
        right=("item", "age", "tried"),
    )
    screen.line()
    screen.table(
        ("reason", "state", "items", "bodies"),
        [(one["reason"], one["state"], one["items"], one["bodies"]) for one in totals],
        right=("items", "bodies"),
    )
    items = sum(one["items"] for one in totals)
    if items > len(rows):
        screen.line(f"\nShown: the newest {len(rows)} of {items} items (--limit).")
    return 0


async def show(*, replay: Replay, screen: Screen, body_id: UUID, item: int | None, reveal: bool) -> int:
    """Print all that is known of a body, and what its items look like; what they say only if `reveal`."""
    found = await replay.show(body_id)
    body, quarantine = found["body"], found["quarantine"]
    if body is None and not quarantine:
        screen.note(f"There is no body {body_id}. It may be older than raw webhooks are kept; compare the id.", "red")
        return 1
    raw = b64decode(body.pop("raw")) if body is not None else b""
    now_reasons = _reasons_now(raw, body)
    elements = elements_of(raw) if raw else []
    set_aside = [one["item"] for one in quarantine]
    wanted = [item] if item is not None else set_aside[:_MOST_SHOWN]
    if any(place >= len(elements) for place in wanted) and item is not None and raw:
        screen.note(f"The body has {len(elements)} items, from 0; there is no item {item}.", "red")
        return 1
    if reveal:
        log.warning("quarantine.revealed", body_id=str(body_id), items=wanted, by=_who())
        screen.note("What follows is what Meta sent, personal data included. That you looked is logged.", "yellow")
    shown = [
        {
            "item": place,
            "path": elements[place][0],
            "reason_now": now_reasons.get(place),
            "content": elements[place][1] if reveal else masked(elements[place][1]),
        }
        for place in wanted
        if place < len(elements)
    ]
    if screen.as_json:
        screen.answer(
            {"body": body, "quarantine": quarantine, "changes": found["changes"], "items": shown, "masked": not reveal}
        )
        return 0
    _print_body(screen, body_id, body, found["changes"])
    if quarantine:
        screen.line()
        screen.table(
            ("item", "reason", "state", "set aside (UTC)", "dropped by"),
            [(q["item"], q["reason"], q["state"], second(q["set_aside_at"]), q["dropped_by"]) for q in quarantine],
            right=("item",),
        )
    for one in shown:
        verdict = one["reason_now"] or "this version can read it: retry"
        screen.line(f"\nitem {one['item']}, {one['path']} ({verdict})", "bold")
        screen.line(json.dumps(one["content"], indent=2, ensure_ascii=False))
    if item is None and len(set_aside) > _MOST_SHOWN:
        screen.line(
            f"\nShown: the first {_MOST_SHOWN} of {len(set_aside)} items set aside; name another: show {body_id} ITEM"
        )
    if shown and not reveal:
        screen.line("\nValues are masked; --reveal prints them, and is logged.", "dim")
    return 0


def _reasons_now(raw: bytes, body: dict[str, Any] | None) -> dict[int, str]:
    """Say which items this version's parser sets aside, and why; the database may refuse others."""
    if not raw or body is None:
        return {}
    parsed: ParsedBody = parse_webhook(raw, now=datetime.fromisoformat(body["received_at"]))
    return {place.item: place.reason for place in parsed.quarantined}


def _print_body(screen: Screen, body_id: UUID, body: dict[str, Any] | None, changes: list[dict[str, Any]]) -> None:
    screen.line(f"body {body_id}", "bold")
    if body is None:
        screen.line("Its bytes are gone: older than raw webhooks are kept.", "yellow")
        return
    received, recorded = second(body["received_at"]), second(body["recorded_at"])
    screen.line(f"received {received} UTC, last recorded {recorded} UTC, state {body['state']}")
    screen.line("account: " + ", ".join(f"{name} {body[name]}" for name in ACCOUNT))
    if body["size_bytes"]:
        screen.line(f"bytes: {body['size_bytes']:,} in {body['partition']}, column raw")
    else:
        screen.line("bytes: none are kept any more", "yellow")
    if body["erased_at"]:
        screen.line(f"rewritten {second(body['erased_at'])} UTC without an erased person's items", "yellow")
    for change in changes:
        to = (
            f"workspace {change['workspace_id']}" if change["workspace_id"] else "no workspace: nobody has connected it"
        )
        about = f"number {change['phone_number_id']}" if change["phone_number_id"] else f"account {change['waba_id']}"
        screen.line(f"change: {change['field']}, {about}, to {to}")


async def retry(
    *,
    store: Store,
    jobs: Jobs,
    screen: Screen,
    stop: asyncio.Event,
    settle_s: float,
    body_ids: tuple[UUID, ...],
    reason: str | None,
    is_dry: bool,
) -> int:
    """Record bodies again, one by one, and print what became of each; 1 if something is still set aside.

    `body_ids`: these; none: all that are open, of `reason` if given.
    """
    replay = Replay(store)
    wanted = Wanted(body_ids=body_ids) if body_ids else Wanted(is_open=True, reason=reason)
    total, outcomes = Difference(), []
    cursor = wanted.start
    count = await replay.count(wanted)
    with screen.progress("Retrying", count) as advance:
        while not stop.is_set() and (page := await replay.read(wanted, after=cursor, limit=_PAGE_BODIES)):
            for body in page:
                if stop.is_set():
                    break
                outcomes.append(
                    await _retry_one(body, store=store, jobs=jobs, settle_s=settle_s, is_dry=is_dry, total=total)
                )
                cursor = Cursor(body.received_at, body.id)
                advance(len(outcomes), "")
    missing = (
        sorted({str(body_id) for body_id in body_ids} - {one["body_id"] for one in outcomes})
        if not stop.is_set()
        else []
    )
    left = [one for one in outcomes if one["result"] != "recorded"]
    if screen.as_json:
        answer = {"dry_run": is_dry, "bodies": outcomes, "missing": missing, "finished": not stop.is_set()}
        screen.answer(answer | difference_json(total))
    else:
        _print_retry(screen, outcomes, total, is_dry=is_dry)
    if left:
        screen.note(f"Not wholly recorded: {counted(len(left), 'body')} of {len(outcomes)}.", "yellow")
    for body_id in missing:
        screen.note(f"Not tried, since its bytes are not there: {body_id}", "red")
    if stop.is_set():
        screen.note("Stopped; what was not tried is still open: run it again.", "yellow")
    return 1 if left or missing or stop.is_set() else 0


async def _retry_one(
    body: WebhookBody, *, store: Store, jobs: Jobs, settle_s: float, is_dry: bool, total: Difference
) -> dict[str, Any]:
    diffing = DiffingStore(store, is_dry=is_dry)
    failed = await record_isolated([body], webhooks=Webhooks(diffing), jobs=jobs, settle_s=settle_s)
    found = diffing.difference
    total.include(found)
    result = "recorded"
    if failed:
        result = "failed"  # logged, with where
    elif diffing.refused:
        result = "refused whole"
    elif found.after["quarantined"]:
        result = "partly set aside" if found.after["quarantined"] < found.after["items"] else "set aside"
    return {
        "body_id": str(body.id),
        "result": result,
        "before": {name: found.before[name] for name in ACCOUNT},
        "after": {name: found.after[name] for name in ACCOUNT},
    }


def _print_retry(screen: Screen, outcomes: list[dict[str, Any]], total: Difference, *, is_dry: bool) -> None:
    if not outcomes:
        screen.line("Nothing to retry.", "green")
        return
    shown = outcomes[-_MOST_LISTED:]
    screen.table(
        ("body", "items", "stored", "duplicate", "quarantined", "would be" if is_dry else "is now"),
        [
            (
                one["body_id"],
                one["after"]["items"],
                *(_step(one, name) for name in ("stored", "duplicate", "quarantined")),
                one["result"],
            )
            for one in shown
        ],
        right=("items", "stored", "duplicate", "quarantined"),
    )
    if len(outcomes) > len(shown):
        screen.line(f"… the last {len(shown)} of {len(outcomes)} bodies")
    screen.line()
    screen.difference(total, is_dry=is_dry)
    if is_dry:
        screen.line("\nTried only: nothing was changed.", "bold")


def _step(one: dict[str, Any], name: str) -> str:
    before, after = one["before"][name], one["after"][name]
    return str(after) if before == after else f"{before} → {after}"


async def drop(*, replay: Replay, screen: Screen, body_id: UUID, items: tuple[int, ...], is_sure: bool) -> int:
    """Give items of a body up, which the log keeps; without `is_sure` say what that would be."""
    if not is_sure:
        found = await replay.show(body_id)
        opened = [q["item"] for q in found["quarantine"] if q["state"] == "open" and (not items or q["item"] in items)]
        screen.note(
            f"This would drop {_items(opened)} of body {body_id}. Nobody looks at a dropped item again; add --yes.",
            "yellow",
        )
        return 2
    found = await replay.drop(body_id, items=items, by=_who())
    dropped: list[int] = found["dropped"]
    if dropped:
        log.warning("quarantine.dropped", body_id=str(body_id), items=dropped, by=_who())
    if screen.as_json:
        screen.answer({"body_id": str(body_id), **found})
    else:
        screen.line(
            f"Dropped {_items(dropped)}; {found['left']} of this body are still open. The bytes stay as long as any."
        )
    not_dropped = sorted(set(items) - set(dropped))
    if not_dropped:
        screen.note(f"Not dropped, since not open: {', '.join(map(str, not_dropped))}.", "red")
    return 1 if not_dropped else 0


def _items(items: list[int]) -> str:
    return f"{'item' if len(items) == 1 else 'items'} {', '.join(map(str, items))}" if items else "no item"


def _who() -> str:
    """Return who sits there, as far as their machine knows."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container's user may have no name
        return f"?@{socket.gethostname()}"
