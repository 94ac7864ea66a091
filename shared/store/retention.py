"""What goes: raw bodies by the day, and erased people's rows and items, step by step."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from shared.store.port import Store
from shared.whatsapp.redact import Erased, Redacted

_MOST_CALLS = 50  # each deletes some thousand rows at most; what is left goes the next hour


@dataclass(frozen=True, slots=True)
class Dropped:
    """What retention took away."""

    partitions: tuple[str, ...] = ()
    postponed: tuple[date, ...] = ()  # locked just now
    kept: tuple[date, ...] = ()  # hold bodies nobody has recorded yet
    unrouted: int = 0  # items that went without ever having been recorded
    quarantined: int = 0
    stray: int = 0  # rows of default partitions
    tombstones: int = 0


@dataclass(frozen=True, slots=True)
class ErasureLease:
    """An erasure that is ours until its lease runs out."""

    workspace_id: UUID
    id: UUID
    token: UUID
    state: str
    erased: Erased
    numbers: frozenset[str]  # phone number ids of the workspace
    accounts: frozenset[str]


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """A row of the log of changes that may name the person. `was`: what says that it is still as we read it."""

    at: datetime
    id: UUID
    event_type: str
    payload: dict[str, Any]
    was: str


@dataclass(frozen=True, slots=True)
class RawBody:
    """A body that may name the person."""

    received_at: datetime
    id: UUID
    raw: bytes
    was: str
    unrouted_numbers: frozenset[str]
    others_numbers: frozenset[str]  # other workspaces', so not to be touched


@dataclass(frozen=True, slots=True)
class Found:
    """A part of a pass. `cursor`: how far it came; None: nothing is left."""

    cursor: object
    changes: tuple[LoggedChange, ...]
    bodies: tuple[RawBody, ...]


class Retention:
    """The services' functions of migration *_retention_and_erasure.

    Raises: Conflict `lease_lost` from those that take a lease, and Unavailable.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def drop_old(self, *, keep_days: int) -> Dropped:
        """Drop what is older than so many days, and tombstones that have run out. Raises: Rejected `bad_keep_days`."""
        total = Dropped()
        for _ in range(_MOST_CALLS):
            answer = json.loads(await self._store.call("drop_old_webhooks", {"p_keep_days": keep_days}))
            total = Dropped(
                partitions=(*total.partitions, *answer["dropped"]),
                postponed=tuple(map(date.fromisoformat, answer["postponed"])),
                kept=tuple(map(date.fromisoformat, answer["kept"])),
                unrouted=total.unrouted + answer["lost"]["unrouted"],
                quarantined=total.quarantined + answer["lost"]["quarantined"],
                stray=total.stray + answer["stray"],
                tombstones=total.tombstones + answer["tombstones"],
            )
            if not answer["more"]:
                break
        return total

    async def claim_erasure(self, *, lease_s: float) -> tuple[ErasureLease | None, int]:
        """Return an erasure that is due, ours for `lease_s`, and how many are open."""
        answer = json.loads(await self._store.call("claim_erasure", {"p_lease_ms": int(lease_s * 1000)}))
        row = answer["erasure"]
        if row is None:
            return None, answer["open"]
        erased = Erased(ids=_latest(row["ids"]), wamids=frozenset(row["wamids"]), others=frozenset(row["others"]))
        lease = ErasureLease(
            workspace_id=UUID(row["workspace_id"]),
            id=UUID(row["id"]),
            token=UUID(row["lease_token"]),
            state=row["state"],
            erased=erased,
            numbers=frozenset(row["numbers"]),
            accounts=frozenset(row["accounts"]),
        )
        return lease, answer["open"]

    async def erase_rows(self, lease: ErasureLease, *, lease_s: float, limit: int) -> str:
        """Take one step of erasing rows; return the state it came to, `erasing` as long as there is more."""
        args = _held(lease, lease_s) | {"p_limit": limit}
        state: str = json.loads(await self._store.call("erase_contact_rows", args))["state"]
        return state

    async def find_raw(
        self, lease: ErasureLease, *, lease_s: float, limit: int, most_bytes: int = 4 * 1024 * 1024
    ) -> Found:
        """Return the next part of what may name the person."""
        args = _held(lease, lease_s) | {"p_limit": limit, "p_max_bytes": most_bytes}
        answer = json.loads(await self._store.call("find_erased_raw", args))
        return Found(
            cursor=answer["cursor"],
            changes=tuple(
                LoggedChange(
                    datetime.fromisoformat(row["at"]), UUID(row["id"]), row["event_type"], row["payload"], row["was"]
                )
                for row in answer["changes"]
            ),
            bodies=tuple(
                RawBody(
                    received_at=datetime.fromisoformat(row["received_at"]),
                    id=UUID(row["id"]),
                    raw=b64decode(row["raw"]),
                    was=row["was"],
                    unrouted_numbers=frozenset(row["unrouted_numbers"]),
                    others_numbers=frozenset(row["others_numbers"]),
                )
                for row in answer["bodies"]
            ),
        )

    async def rewrite_raw(
        self,
        lease: ErasureLease,
        *,
        lease_s: float,
        cursor: object,
        changes: Sequence[tuple[LoggedChange, dict[str, Any]]],
        bodies: Sequence[tuple[RawBody, Redacted]],
    ) -> str:
        """Write a part back and move on; return the state it came to. Raises: Unavailable if it is not as it was."""
        found = sorted({wamid for _, redacted in bodies for wamid in redacted.wamids})
        args = _held(lease, lease_s) | {
            "p_changes": [
                {"at": row.at.isoformat(), "id": str(row.id), "payload": payload, "was": row.was}
                for row, payload in changes
            ],
            "p_bodies": [
                {
                    "received_at": row.received_at.isoformat(),
                    "id": str(row.id),
                    "raw": b64encode(redacted.raw).decode(),
                    "was": row.was,
                    "dropped": list(redacted.dropped),
                }
                for row, redacted in bodies
            ],
            "p_found": [{"phone_number_id": number, "wamid": wamid} for number, wamid in found],
            "p_cursor": cursor,
        }
        answer = json.loads(await self._store.call("rewrite_erased_raw", args))
        return "due" if not answer["is_pass_over"] else str(answer["state"])


def _held(lease: ErasureLease, lease_s: float) -> dict[str, object]:
    return {
        "p_workspace_id": str(lease.workspace_id),
        "p_erasure_id": str(lease.id),
        "p_lease_token": str(lease.token),
        "p_lease_ms": int(lease_s * 1000),
    }


def _latest(ids: list[list[str]]) -> dict[str, datetime]:
    """Return each id with its time; one that two portfolios know has the later."""
    latest: dict[str, datetime] = {}
    for value, at in ids:
        time = datetime.fromisoformat(at)
        latest[value] = max(time, latest.get(value, time))
    return latest
