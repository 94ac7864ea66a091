"""Bodies that were recorded before: read again, compared, given up, and recorded anew; migration *_replay."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from shared.domain.person import Person
from shared.store.port import Store
from shared.whatsapp.events import WebhookBody

ACCOUNT = ("items", "stored", "duplicate", "unrouted", "suppressed", "quarantined")
_PAGE_BYTES = 512 * 1024  # as much as one call records in a second (see services/ingest/recorder.py)


_FIRST = UUID(int=0)  # before every id


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place between bodies: after the one with this key."""

    received_at: datetime
    body_id: UUID = _FIRST

    def __str__(self) -> str:
        return f"{self.received_at.astimezone(UTC).isoformat()}/{self.body_id}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str` wrote. Raises: ValueError."""
        at, _, body_id = text.partition("/")
        received_at = datetime.fromisoformat(at)
        if received_at.tzinfo is None:
            raise ValueError("a cursor's time has an offset")
        return cls(received_at, UUID(body_id))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which recorded bodies, of those that still have bytes.

    `outcome`: unrouted or quarantined, with at least one such item. `is_open`: with an item in quarantine that nobody
    dropped, of `reason` if given. `body_ids`: these and no others, whatever became of them.
    `since`, `to`: received then or later, and before. `after`: behind this place, where a reader left off.
    """

    outcome: str | None = None
    phone_number_id: str | None = None
    is_open: bool = False
    reason: str | None = None
    body_ids: tuple[UUID, ...] = ()
    since: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    to: datetime = datetime(9999, 1, 1, tzinfo=UTC)
    after: Cursor | None = None

    @property
    def start(self) -> Cursor:
        """Return where to begin."""
        first = Cursor(self.since)
        if self.after is None or self.after.received_at < self.since:
            return first
        return self.after

    def args(self, place: Cursor) -> dict[str, object]:
        """Return what the functions take, to go on from a place."""
        only: dict[str, object] = {
            name: value
            for name in ("outcome", "phone_number_id", "reason")
            if (value := getattr(self, name)) is not None
        }
        if self.is_open:
            only["is_open"] = True
        if self.body_ids:
            only["body_ids"] = [str(body_id) for body_id in self.body_ids]
        return {
            "p_only": only,
            "p_after_at": place.received_at.isoformat(),
            "p_after_id": str(place.body_id),
            "p_to": self.to.isoformat(),
        }


@dataclass(slots=True)
class Rows:
    """What became of a table's rows: counts and names of columns, never values."""

    new: int = 0
    changed: int = 0
    gone: int = 0
    columns: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Difference:
    """What recording again changed, or would: the bodies' account, rows by table, and what it left.

    `read_otherwise`: messages stored otherwise than these bodies have them, in all ("messages") and by column: read so
    by an older parser, or sent twice and different. They stay: a message is what its first copy said.
    """

    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    tables: dict[str, Rows] = field(default_factory=dict)
    read_otherwise: Counter[str] = field(default_factory=Counter)

    def include(self, other: Difference) -> None:
        """Add another difference to this one."""
        self.before.update(other.before)
        self.after.update(other.after)
        self.read_otherwise.update(other.read_otherwise)
        for table, theirs in other.tables.items():
            rows = self.tables.setdefault(table, Rows())
            rows.new += theirs.new
            rows.changed += theirs.changed
            rows.gone += theirs.gone
            rows.columns.update(theirs.columns)

    def add(self, answer: Mapping[str, Any]) -> None:
        """Add what record_webhook_batch_diff said of one batch."""
        tables = {
            table: Rows(found["new"], found["changed"], found["gone"], Counter(found["columns"]))
            for table, found in answer["diff"].items()
        }
        before, after, otherwise = (Counter(answer[name]) for name in ("before", "after", "read_otherwise"))
        self.include(Difference(before, after, tables, otherwise))


class DiffingStore:
    """A store through which recording says what it changes; `is_dry`: and changes nothing.

    `refused`: bodies of which the database would not even take the changes; their account stays as it was.
    """

    def __init__(self, store: Store, *, is_dry: bool) -> None:
        self._store = store
        self._is_dry = is_dry
        self.difference = Difference()
        self.refused: list[UUID] = []

    async def call(self, function: str, args: Mapping[str, object], as_user: Person | None = None) -> str:
        """See `Store.call`."""
        if function == "quarantine_webhook":
            self.refused.append(UUID(str(args["p_body_id"])))
            if self._is_dry:
                return json.dumps({"quarantined": args["p_items"]})
        if function != "record_webhook_batch":
            return await self._store.call(function, args, as_user)
        text = await self._store.call(
            "try_webhook_batch_diff" if self._is_dry else "record_webhook_batch_diff", args, as_user
        )
        self.difference.add(json.loads(text))
        return text

    async def is_reachable(self) -> bool:
        """See `Store.is_reachable`."""
        return await self._store.is_reachable()


class Replay:
    """The functions of migration *_replay that look and decide."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list_quarantine(self, *, state: str, reason: str | None, limit: int) -> dict[str, Any]:
        """Return {rows, totals} as the function's comment has them."""
        args = {"p_state": state, "p_reason": reason, "p_limit": limit}
        found: dict[str, Any] = json.loads(await self._store.call("list_quarantine", args))
        return found

    async def show(self, body_id: UUID) -> dict[str, Any]:
        """Return {body, quarantine, changes} as the function's comment has them."""
        found: dict[str, Any] = json.loads(await self._store.call("show_webhook_body", {"p_body_id": str(body_id)}))
        return found

    async def drop(self, body_id: UUID, *, items: Sequence[int], by: str) -> dict[str, Any]:
        """Give up open items of a body, all if none is named. Raises: NotFound."""
        args = {"p_body_id": str(body_id), "p_items": list(items) or None, "p_by": by}
        found: dict[str, Any] = json.loads(await self._store.call("drop_quarantined", args))
        return found

    async def count(self, wanted: Wanted) -> int:
        """Return how many bodies `read` would hand out in all."""
        text = await self._store.call("count_webhook_bodies", wanted.args(wanted.start))
        count: int = json.loads(text)["bodies"]
        return count

    async def read(
        self, wanted: Wanted, *, after: Cursor, limit: int, most_bytes: int = _PAGE_BYTES
    ) -> list[WebhookBody]:
        """Return the next bodies in the order of their keys; empty at the end."""
        args = wanted.args(after) | {"p_limit": limit, "p_max_bytes": most_bytes}
        return [_body(row) for row in json.loads(await self._store.call("read_webhook_bodies", args))]

    async def claim_reroutable(
        self, *, limit: int, hold_s: float, most_bytes: int = _PAGE_BYTES
    ) -> list[tuple[WebhookBody, int]]:
        """Return bodies with items whose number is connected by now, each with how often it was claimed.

        They are this recorder's for `hold_s`, doubled each time they come back.
        """
        args = {"p_limit": limit, "p_max_bytes": most_bytes, "p_hold_ms": int(hold_s * 1000)}
        text = await self._store.call("claim_reroutable_bodies", args)
        return [(_body(row), row["attempts"]) for row in json.loads(text)]


def _body(row: Mapping[str, Any]) -> WebhookBody:
    return WebhookBody(
        id=UUID(row["id"]),
        received_at=datetime.fromisoformat(row["received_at"]),
        raw=b64decode(row["raw"]),
        traceparent=row["traceparent"] or "",
    )
