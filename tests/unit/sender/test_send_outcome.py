"""What each answer of Meta's comes to on a message's row, and what is posted for it."""

from __future__ import annotations

from typing import Any

import pytest

from services.sender.request_body import Unsendable, request_body
from services.sender.send_outcome import result_of
from shared.store.outbox import ClaimedMessage, SendError, SendResult
from shared.whatsapp.errors import Failure, classify

MESSAGE_ID = "0195a7c2-1111-7222-8333-444455556666"


def claimed(attempt: int = 1, **changes: Any) -> ClaimedMessage:
    fields: dict[str, Any] = {
        "workspace_id": "w", "outbox_id": "o", "message_id": MESSAGE_ID, "channel_id": "c", "attempt": attempt,
        "wa_id": "12025550117", "user_id": "US.1001", "group_id": None,
        "payload": {"type": "text", "text": {"body": "Hello"}}, "reply_to": None, "files": {}, "put_off": 0,
        "throttled": 0, "queued_ms": 3, "priority": 2, "is_marketing": False,
    }  # fmt: skip
    return ClaimedMessage(**fields | changes)


def come_of(
    status: int | None, body: object = None, failure: Failure | None = None, *, chance: float = 0, **before: int
) -> SendResult:
    return result_of(
        claimed(1 + sum(before.values()), **before), "lease", classify(status, body, failure), body, chance=chance
    )


def refusal(code: int, message: str = "(#1) Told.") -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def test_an_accepted_message_has_its_wamid_and_the_person_meta_found() -> None:
    body = {
        "messaging_product": "whatsapp",
        "contacts": [{"input": "+12025550117", "wa_id": "12025550118", "user_id": "US.7"}],
        "messages": [{"id": "wamid.A"}],
    }

    result = come_of(200, body)

    assert (result.outcome, result.wamid, result.wa_id, result.user_id) == (
        "accepted",
        "wamid.A",
        "12025550118",
        "US.7",
    )
    assert (
        come_of(200, {"messages": [{"id": "wamid.A", "message_status": "held_for_quality_assessment"}]}).outcome
        == "held"
    )
    assert come_of(200, {"success": True}).outcome == "unknown"


@pytest.mark.parametrize(
    ("code", "before", "outcome", "retry_in_ms", "then"),
    [
        (130429, 0, "throttled", 1_000, None),
        (130429, 98, "throttled", 60_000, None),  # a throttle fails nothing
        (131056, 1, "throttled", 4_000, None),
        (80007, 0, "throttled", 60_000, None),
        (131016, 0, "retry", 5_000, None),
        (131016, 4, "retry", 1_800_000, None),
        (131016, 5, "failed", None, None),  # the schedule's end
        (131000, 0, "unknown", None, None),
        (131047, 0, "failed", None, None),
        (132001, 0, "failed", None, "resync_templates"),
        (131050, 0, "failed", None, "opt_out"),
        (131048, 0, "failed", None, "pause_marketing"),
        (190, 0, "retry", 5_000, "pause_channel"),
        (190, 8, "retry", 5_000, "pause_channel"),  # it waits for a person
    ],
)
def test_a_refusal_comes_to(code: int, before: int, outcome: str, retry_in_ms: int | None, then: str | None) -> None:
    result = come_of(400, refusal(code), **{"throttled" if outcome == "throttled" else "put_off": before})

    assert (result.outcome, result.retry_in_ms, result.then) == (outcome, retry_in_ms, then)
    assert result.error is not None
    assert result.error.code == code
    assert result.error.sentence


def test_throttles_and_refusals_do_not_use_up_each_others_tries() -> None:
    assert come_of(400, refusal(131016), throttled=20).retry_in_ms == 5_000
    assert come_of(400, refusal(130429), put_off=4).retry_in_ms == 1_000


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [(Failure.DNS, "retry"), (Failure.CONNECT, "retry"), (Failure.TLS, "retry"), (Failure.TIMEOUT, "unknown"),
     (Failure.RESET, "unknown"), (Failure.UNREADABLE, "unknown")],
)  # fmt: skip
def test_no_answer_is_doubt_once_it_may_have_left(failure: Failure, outcome: str) -> None:
    assert come_of(None, None, failure).outcome == outcome


def test_an_error_says_it_in_metas_words_and_in_ours() -> None:
    error = come_of(400, refusal(131047, "Re-engagement\x00 message\ud800" + "x" * 500)).error

    assert error is not None
    assert error == SendError(131047, "window_closed", error.title, error.sentence)
    assert error.title.startswith("Re-engagement message?xx")
    assert len(error.title) == 200
    assert "template" in error.sentence


def test_retries_of_a_burst_come_apart() -> None:
    assert come_of(400, refusal(131016), chance=0.5).retry_in_ms == 5_500


def test_a_request_carries_the_attempt_and_metas_ids_of_our_files() -> None:
    media_id = "0195a7c2-aaaa-7222-8333-444455556666"
    message = claimed(
        2,
        payload={
            "type": "template",
            "template": {
                "components": [
                    {"type": "header", "parameters": [{"type": "image", "image": {"id": f"parley:{media_id}"}}]},
                    {"type": "body", "parameters": [{"type": "text", "text": f"parley:{media_id}"}]},
                ]
            },
        },
        files={media_id: "998877"},
        reply_to="wamid.before",
    )

    assert request_body(message) == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "+12025550117",
        "type": "template",
        "template": {
            "components": [
                {"type": "header", "parameters": [{"type": "image", "image": {"id": "998877"}}]},
                {"type": "body", "parameters": [{"type": "text", "text": f"parley:{media_id}"}]},
            ]
        },
        "biz_opaque_callback_data": f"{MESSAGE_ID}.2",
        "context": {"message_id": "wamid.before"},
    }


def test_whom_it_goes_to() -> None:
    assert request_body(claimed(wa_id=None))["recipient"] == "US.1001"
    assert request_body(claimed(group_id="G1"))["recipient_type"] == "group"
    with pytest.raises(Unsendable, match="no_recipient"):
        request_body(claimed(wa_id=None, user_id=None))
    with pytest.raises(Unsendable, match="file_missing"):
        request_body(claimed(payload={"type": "image", "image": {"id": f"parley:{MESSAGE_ID}"}}))
    assert request_body(claimed(payload={"button": {"id": "parley:x"}}))["button"] == {"id": "parley:x"}
