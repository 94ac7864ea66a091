"""SQLSTATE to error class: the one table, the same on every transport."""

from __future__ import annotations

from shared.domain.errors import BadData, Conflict, Forbidden, NotFound, ParleyError, Rejected, Unavailable

# Our functions refuse with 'PT' + an HTTP status, PostgREST's convention; detail is the stable code.
_REFUSALS: dict[str, type[Rejected]] = {"PT403": Forbidden, "PT404": NotFound, "PT409": Conflict}

# Connection lost, resources, operator intervention, I/O, deadlock or serialisation failure, lock timeout: later.
_LATER = ("08", "40", "53", "55", "57", "58")


def refusal(sqlstate: str | None, message: str, detail: str | None, hint: str | None) -> ParleyError | None:
    """Translate what the database said; None when it is a bug of ours (unknown function, missing grant …)."""
    if sqlstate is None:
        return Unavailable("the database is not reachable", code="database_unavailable")
    if sqlstate.startswith("PT"):
        return _REFUSALS.get(sqlstate, Rejected)(message, code=detail or "rejected", hint=hint)
    if sqlstate[:2] in ("22", "23"):
        # The message may quote the value: only the state travels.
        return BadData(f"the database refused a value (SQLSTATE {sqlstate})", code=f"sqlstate_{sqlstate}")
    if sqlstate == "42501":
        return Forbidden("not allowed", code="forbidden")
    if sqlstate[:2] in _LATER:
        return Unavailable(f"the database said later (SQLSTATE {sqlstate})", code="database_unavailable")
    return None
