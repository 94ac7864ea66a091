"""What is in PostgreSQL: rows are counted, never answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import psycopg


@dataclass(frozen=True, slots=True)
class Rows:
    """Bodies in state recorded, their items by what became of them, and messages."""

    bodies: int
    items: int
    stored: int
    duplicate: int
    unrouted: int
    suppressed: int
    quarantined: int
    messages: int

    def __sub__(self, earlier: Rows) -> Rows:
        mine, theirs = asdict(self), asdict(earlier)
        return Rows(**{name: mine[name] - theirs[name] for name in mine})

    def must_be(self, *, bodies: int, items: int, messages: int) -> None:
        """See that each item became a row, once. Raises: RuntimeError."""
        wanted = Rows(bodies, items, items, 0, 0, 0, 0, messages)
        if self != wanted:
            raise RuntimeError(f"the rows do not add up: {self} instead of {wanted}")


async def count_rows(admin: psycopg.AsyncConnection) -> Rows:
    """Count them all."""
    cursor = await admin.execute(
        "select count(*), coalesce(sum(items), 0), coalesce(sum(stored), 0), coalesce(sum(duplicate), 0),"
        " coalesce(sum(unrouted), 0), coalesce(sum(suppressed), 0), coalesce(sum(quarantined), 0),"
        " (select count(*) from public.whatsapp_messages)"
        " from app.webhook_bodies where state = 'recorded'"
    )
    row = await cursor.fetchone()
    assert row is not None
    return Rows(*(int(number) for number in row))


async def count_items(admin: psycopg.AsyncConnection) -> int:
    """Count the items of recorded bodies."""
    cursor = await admin.execute("select coalesce(sum(items), 0) from app.webhook_bodies where state = 'recorded'")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
