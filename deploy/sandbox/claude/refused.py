"""How the API says no."""

from __future__ import annotations


class Refused(Exception):
    """The request is not one Anthropic takes."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message


def invalid(message: str) -> Refused:
    """Return the refusal of a request that can never work."""
    return Refused(400, "invalid_request_error", message)
