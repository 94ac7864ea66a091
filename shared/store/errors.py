"""SQLSTATE to error class: the one table, the same on every transport; and what PostgREST adds of its own."""

from __future__ import annotations

from collections.abc import Mapping

from shared.domain.errors import BadData, Conflict, Forbidden, NotFound, ParleyError, Rejected, Unavailable, Untrusted

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
    if sqlstate[:2] in ("22", "23", "54"):
        # The message may quote the value: only the state travels.
        return BadData(f"the database refused a value (SQLSTATE {sqlstate})", code=f"sqlstate_{sqlstate}")
    if sqlstate == "42501":
        return Forbidden("not allowed", code="forbidden")
    if sqlstate == "57014":
        return Unavailable("the database took too long", code="database_too_slow")
    if sqlstate[:2] in _LATER:
        return Unavailable(f"the database said later (SQLSTATE {sqlstate})", code="database_unavailable")
    return None


# PostgREST's own codes, from its page "Errors", read 2026-11-23. 000 to 003: it has no database connection, or no
# schema yet. 300 (no JWT secret) and the rest are ours to put right.
_REST_LATER = ("PGRST000", "PGRST001", "PGRST002", "PGRST003")
_REST_BAD_TOKEN = ("PGRST301", "PGRST302", "PGRST303")
# Without a body of PostgREST's it was a gateway on the way: these come from load, restarts and lost connections
# (520 to 524 are Cloudflare's, which stands before hosted projects). 429 means: not at once.
_GATEWAY_HICCUP = (408, 502, 503, 504, 520, 521, 522, 523, 524)
_GATEWAY_LATER = (429, *_GATEWAY_HICCUP)


def may_pass(status: int, body: Mapping[str, object]) -> bool:
    """Say whether an error answer came from on the way, so that asking again at once may help.

    What the database itself said is not: whoever called knows better when to try again.
    """
    code = _text(body.get("code"))
    return code in _REST_LATER or (code is None and status in _GATEWAY_HICCUP)


def rest_refusal(status: int, body: Mapping[str, object], *, is_users: bool) -> ParleyError | None:
    """Translate an error answer of Supabase's REST API; None when it is a bug of ours.

    `body`: {code, message, details, hint} as PostgREST writes it, or whatever a gateway said. `is_users`: the call
    carried a person's token, so a bad one is theirs.
    """
    code = _text(body.get("code"))
    if code in _REST_LATER or (code is None and status in _GATEWAY_LATER):
        return Unavailable("the database is not reachable", code="database_unavailable")
    if code in _REST_BAD_TOKEN and is_users:
        return Untrusted("the token is not accepted", code="token_not_valid", hint="Sign in again.")
    if code in _REST_BAD_TOKEN or (code is None and status in (401, 403)):
        # Like a wrong database password: nothing a message did, so it must wait rather than be set aside as poison.
        hint = "Compare SUPABASE_URL and the keys with the project's."
        return Unavailable("Supabase refuses our key", code="database_key_refused", hint=hint)
    if code is None or code.startswith("PGRST"):
        return None
    return refusal(code, _text(body.get("message")) or "refused", _text(body.get("details")), _text(body.get("hint")))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
