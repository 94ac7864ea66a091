"""What to do after a call that brought no answer for some messages: when again, how, or never. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What a call came to. Stored on the attempt, and as the message's ai_reason when we give up."""

    OK = "ok"
    REFUSED = "refused"  # Claude declined
    TRUNCATED = "truncated"  # ran into max_tokens
    NONSENSE = "nonsense"  # an answer that does not fit the form
    INVALID = "invalid_request"  # the API says our request can never work
    OVERLOADED = "overloaded"  # 429, 529: later
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"  # no connection, or their 5xx
    NOT_AUTHORISED = "not_authorised"  # our key is wrong or empty: someone must act
    # Not asked:
    NOT_REDACTED = "not_redacted"  # something personal could not be taken out
    TOO_LARGE = "too_large"  # could cost more than was reserved for it
    CIRCUIT_OPEN = "circuit_open"  # Claude is out; no try of anybody's


_LATER_S = (5, 30, 120, 300, 600, 600, 600)
_CONTENT_S = (1, 5)

# Seconds before the second, third … try. What depends on the content fails the same way soon; what depends on the
# weather may clear up, so it gets 38 minutes.
RETRY_AFTER_S: dict[Outcome, tuple[int, ...]] = {
    Outcome.REFUSED: (),
    Outcome.INVALID: (),
    Outcome.TRUNCATED: _CONTENT_S,
    Outcome.NONSENSE: _CONTENT_S,
    Outcome.OVERLOADED: _LATER_S,
    Outcome.TIMEOUT: _LATER_S,
    Outcome.UNREACHABLE: _LATER_S,
    Outcome.NOT_AUTHORISED: _LATER_S,
    Outcome.NOT_REDACTED: (),
    Outcome.TOO_LARGE: (),
}

_DEPENDS_ON_CONTENT = frozenset(
    {
        *(Outcome.REFUSED, Outcome.INVALID, Outcome.TRUNCATED, Outcome.NONSENSE),
        *(Outcome.NOT_REDACTED, Outcome.TOO_LARGE),
    }
)
# What says that Claude is out, rather than something about a message.
WEATHER = frozenset({Outcome.OVERLOADED, Outcome.TIMEOUT, Outcome.UNREACHABLE, Outcome.NOT_AUTHORISED})
MOST_ATTEMPTS = 10  # more than any schedule: whatever a message does to workers, it stops here


@dataclass(frozen=True, slots=True)
class Next:
    """`retry_in_s` None: give the messages up. `isolate`: one message at a time from now on."""

    retry_in_s: float | None
    isolate: bool


def next_step(outcome: Outcome, *, attempt: int, messages: int, retry_after_s: float | None = None) -> Next:
    """Decide about one message after its `attempt`th try (from 1), in a call about `messages` messages.

    `retry_after_s`: what the API asked for; honoured when longer than ours, up to 10 minutes.
    """
    if outcome is Outcome.CIRCUIT_OPEN:
        return Next(retry_in_s=max(1.0, min(retry_after_s or 0, 600)), isolate=False)
    isolate = outcome in _DEPENDS_ON_CONTENT
    if isolate and messages > 1:
        return Next(retry_in_s=0, isolate=True)  # one bad message must not cost its neighbours theirs
    schedule = RETRY_AFTER_S[outcome]
    if attempt > len(schedule):
        return Next(retry_in_s=None, isolate=isolate)
    pause_s = max(schedule[attempt - 1], min(retry_after_s or 0, 600))
    return Next(retry_in_s=pause_s, isolate=isolate)
