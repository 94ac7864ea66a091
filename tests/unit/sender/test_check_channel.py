"""What a number's node at Meta says, as findings and as facts."""

from __future__ import annotations

from typing import Any

import pytest

from services.sender.check_channel import belonging, facts, findings, messaging_limit

WELL: dict[str, Any] = {
    "id": "402776318915527",
    "display_phone_number": "+1 202-555-0143",
    "verified_name": "Casa Verde",
    "quality_rating": "GREEN",
    "throughput": {"level": "STANDARD"},
    "status": "CONNECTED",
    "name_status": "APPROVED",
    "whatsapp_business_manager_messaging_limit": "TIER_10K",
    "health_status": {
        "can_send_message": "AVAILABLE",
        "entities": [{"entity_type": "PHONE_NUMBER", "id": "1", "can_send_message": "AVAILABLE"}],
    },
}
BLOCKED = {
    "entities": [
        {
            "entity_type": "WABA",
            "can_send_message": "BLOCKED",
            "errors": [{"error_code": 141006, "error_description": "There is an error with the payment method."}],
        },
        {"entity_type": "BUSINESS", "can_send_message": "LIMITED"},
    ]
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"status": "DISCONNECTED"}, [("fail", "registration")]),
        ({"status": "FLAGGED"}, [("fail", "registration")]),
        ({"quality_rating": "RED"}, [("warn", "quality_low")]),
        ({"quality_rating": "YELLOW"}, []),
        ({"name_status": "DECLINED"}, [("warn", "name_refused")]),
        ({"health_status": BLOCKED}, [("fail", "health_waba"), ("warn", "health_business")]),
        ({"health_status": "odd", "status": None, "quality_rating": 7}, []),
        (
            {"health_status": {"entities": ["odd", {"can_send_message": "BLOCKED", "errors": "odd"}]}},
            [("fail", "health_something")],
        ),
    ],
)
def test_findings_are_what_is_not_as_it_should_be(changed: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    found = findings(WELL | changed)

    assert [(one.level, one.code) for one in found] == expected
    assert all(len(one.sentence) <= 500 for one in found)


def test_a_blocked_account_says_why_in_metas_words() -> None:
    assert "payment method" in findings(WELL | {"health_status": BLOCKED})[0].sentence


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {"quality": [7, "green"], "messaging_limit": [7, "10000"], "verified_name": [7, "Casa Verde"]}),
        (
            {"throughput": {"level": "HIGH"}, "verified_name": ""},
            {"quality": [7, "green"], "messaging_limit": [7, "10000"], "tier_mps": [7, 1000]},
        ),
        ({"quality_rating": "PURPLE", "whatsapp_business_manager_messaging_limit": None, "verified_name": None}, {}),
    ],
)
def test_facts_are_what_is_known_and_no_more(changed: dict[str, Any], expected: dict[str, Any]) -> None:
    assert facts(WELL | changed, at_ms=7) == expected


@pytest.mark.parametrize(
    ("tier", "limit"),
    [("TIER_250", "250"), ("TIER_2K", "2000"), ("TIER_100K", "100000"), ("TIER_UNLIMITED", "unlimited")],
)
def test_limits_are_written_as_webhooks_leave_them(tier: str, limit: str) -> None:
    assert messaging_limit(tier) == limit


@pytest.mark.parametrize(
    ("ids", "portfolio_id", "code"),
    [
        (["1", "2"], "9", None),
        (["2"], "9", "number_of_other_account"),
        (["1"], None, "portfolio_unknown"),
        ([], None, "number_of_other_account"),
    ],
)
def test_a_number_belongs_where_meta_lists_it(ids: list[str], portfolio_id: str | None, code: str | None) -> None:
    found = belonging("1", {"data": [{"id": one} for one in ids]}, portfolio_id)

    assert [one.code for one in found] == ([code] if code else [])
