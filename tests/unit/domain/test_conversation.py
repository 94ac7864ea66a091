"""The life of a conversation, as the specification draws it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations, product

import pytest

from shared.domain.conversation import Action, ConversationStatus, after_inbound, merged, move
from shared.domain.errors import Conflict, NotFound

OPEN, ARCHIVED, BLOCKED, DELETED = ConversationStatus
ARCHIVED_AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "action", "following"),
    [
        (OPEN, "archive", ARCHIVED),
        (OPEN, "block", BLOCKED),
        (ARCHIVED, "reopen", OPEN),
        (ARCHIVED, "block", BLOCKED),
        (ARCHIVED, "delete", DELETED),
        (BLOCKED, "unblock", OPEN),
        (BLOCKED, "delete", DELETED),
    ],
)
def test_an_action_moves_a_conversation_on(
    status: ConversationStatus, action: str, following: ConversationStatus
) -> None:
    assert move(status, Action(action)) is following


@pytest.mark.parametrize(("status", "action"), list(product(ConversationStatus, Action)))
def test_asking_again_succeeds_and_changes_nothing(status: ConversationStatus, action: Action) -> None:
    try:
        following = move(status, action)
    except (Conflict, NotFound):
        return

    assert move(following, action) is following


@pytest.mark.parametrize(
    ("status", "action", "code", "hint"),
    [
        (BLOCKED, "archive", "conversation_not_open", "Unblock the contact first."),
        (BLOCKED, "reopen", "conversation_not_archived", "Unblock the contact first."),
        (OPEN, "delete", "conversation_not_archived", "Archive it first."),
    ],
)
def test_a_refusal_says_what_would_help(status: ConversationStatus, action: str, code: str, hint: str) -> None:
    with pytest.raises(Conflict) as caught:
        move(status, Action(action))

    assert (caught.value.code, caught.value.hint) == (code, hint)


@pytest.mark.parametrize("action", ["archive", "reopen"])
def test_what_is_deleted_is_not_there(action: str) -> None:
    with pytest.raises(NotFound) as caught:
        move(DELETED, Action(action))

    assert caught.value.code == "conversation_not_found"


def test_nothing_brings_a_deleted_conversation_back() -> None:
    assert {move(DELETED, Action(action)) for action in ("block", "unblock", "delete")} == {DELETED}


def test_two_become_one_blocked_over_open_over_archived() -> None:
    assert merged(BLOCKED, OPEN) is merged(BLOCKED, ARCHIVED) is BLOCKED
    assert merged(OPEN, ARCHIVED) is OPEN
    for a, b, c in permutations(ConversationStatus, 3):
        assert merged(a, b) is merged(b, a)
        assert merged(merged(a, b), c) is merged(a, merged(b, c))


@pytest.mark.parametrize(
    ("status", "reopen", "late_s", "following"),
    [
        (ARCHIVED, False, 60, ARCHIVED),
        (ARCHIVED, True, 60, OPEN),
        (ARCHIVED, True, 0, ARCHIVED),
        (ARCHIVED, True, -60, ARCHIVED),  # written before it was archived, arrived after
        (OPEN, True, 60, OPEN),
        (BLOCKED, True, 60, BLOCKED),
        (DELETED, True, 60, DELETED),  # the message opens a new one
    ],
)
def test_a_message_reopens_what_was_archived_before_it_if_the_workspace_wants(
    status: ConversationStatus, reopen: bool, late_s: int, following: ConversationStatus
) -> None:
    sent_at = ARCHIVED_AT + timedelta(seconds=late_s)

    assert after_inbound(status, sent_at=sent_at, archived_at=ARCHIVED_AT, reopen=reopen) is following
