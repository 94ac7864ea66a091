"""Errors whose class answers what a runner must know: try again? whose move is it?"""

from __future__ import annotations

from collections.abc import Mapping


class ParleyError(Exception):
    """An expected failure. `code` is public and stable, `hint` a sentence its reader can act on."""

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


class Rejected(ParleyError):
    """Can never succeed as it stands: record why, stop. HTTP 422.

    `more`: what helps to mend it, by name, as JSON values: further members of the answer.
    """

    def __init__(
        self, message: str, *, code: str, hint: str | None = None, more: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.more = more or {}


class NotFound(Rejected):
    """Does not exist, or is not theirs: we never say which. HTTP 404."""


class Conflict(Rejected):
    """The state forbids it. HTTP 409."""


class Forbidden(Rejected):
    """They are who they say, and may not. HTTP 403."""


class BadData(Rejected):
    """The database refuses the values themselves (SQLSTATE classes 22, 23, 54): poison, to be isolated."""


class Untrusted(ParleyError):
    """Not who they claim to be: drop, count. HTTP 401."""


class Unavailable(ParleyError):
    """Meta, Claude, Postgres or Redis said "later". HTTP 503 with Retry-After."""

    def __init__(self, message: str, *, code: str, hint: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.retry_after_s = retry_after_s
