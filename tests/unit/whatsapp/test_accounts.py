"""Fields about an account, a number, a template or a group, and those nobody knows yet."""

from __future__ import annotations

from typing import Any

import pytest

from shared.whatsapp.events import AccountEvent, Change, Kept
from tests.unit.whatsapp.bodies import NUMBER, at, only, parsed, read, reasons, value_of

WABA, PORTFOLIO = "318204775196043", "690113358247715"
NUMBER_ID = NUMBER["phone_number_id"]


@pytest.mark.parametrize(
    ("name", "field", "event", "sent_at", "phone_number_id", "waba_id"),
    [
        ("account_alerts.json", "account_alerts", "", 1795183200, None, WABA),
        ("account_review_update.json", "account_review_update", "approved", 1795183200, None, WABA),
        ("account_settings_update.json", "account_settings_update", "phone_number_settings", 1795183200, None, WABA),
        ("account_update_violation.json", "account_update", "account_violation", 1795183200, None, WABA),
        ("account_update_partner_added.json", "account_update", "partner_added", 1795183200, None, WABA),
        ("business_capability_update_int.json", "business_capability_update", "", 1795183200, None, WABA),
        ("business_username_update_deleted.json", "business_username_updates", "", 1795183200, None, WABA),
        ("flows_endpoint_error_rate.json", "flows", "endpoint_error_rate", 1795183200, None, WABA),
        ("template_status_paused.json", "message_template_status_update", "paused", 1795183200, None, WABA),
        ("template_quality_update.json", "message_template_quality_update", "", 1795183200, None, WABA),
        ("template_quality_update_mislabelled_field.json", "message_template_status_update", "", 1795183200, None,
         WABA),
        ("template_category_update_done.json", "template_category_update", "", 1795183200, None, WABA),
        ("template_components_update.json", "message_template_components_update", "", 1795183200, None, WABA),
        ("partner_solutions.json", "partner_solutions", "solution_created", 1795183200, None, PORTFOLIO),
        ("payment_configuration_update.json", "payment_configuration_update", "", 1795183200, None, WABA),
        ("phone_number_name_update_rejected.json", "phone_number_name_update", "rejected", 1795183200, None, WABA),
        ("phone_number_quality_update_onboarding.json", "phone_number_quality_update", "onboarding", 1795183200, None,
         WABA),
        ("security_pin_changed.json", "security", "pin_changed", 1795183200, None, WABA),
        ("group_lifecycle_update_create.json", "group_lifecycle_update", "group_create", 1795183200, NUMBER_ID, WABA),
        ("group_participants_update_add.json", "group_participants_update", "group_participants_add", 1795183209,
         NUMBER_ID, WABA),
        ("group_settings_update.json", "group_settings_update", "group_settings_update", 1795183220, NUMBER_ID, WABA),
        ("group_status_update_suspend.json", "group_status_update", "group_suspend", 1795183222, NUMBER_ID, WABA),
        ("messaging_handovers_taken.json", "messaging_handovers", "control_passed", 1795183208, None, WABA),
        ("user_id_update_withdrawn.json", "user_id_update", "", None, NUMBER_ID, WABA),
    ],
)  # fmt: skip
def test_a_change_is_exactly_this_event(
    name: str, field: str, event: str, sent_at: int | None, phone_number_id: str | None, waba_id: str
) -> None:
    body = parsed(name)

    assert body.changes == (Change(field, phone_number_id, waba_id, value_of(name)),)
    assert only(body) == AccountEvent(0, 0, event, at(sent_at) if sent_at else None)


@pytest.mark.parametrize("time", [1763802000, "1763802000", 1763802000000])
def test_the_entrys_time_comes_as_meta_likes(time: object) -> None:
    body = read({"event": "APPROVED"}, field="message_template_status_update", entry={"time": time})

    assert only(body) == AccountEvent(0, 0, "approved", at(1763802000))


def test_an_account_event_from_the_future_is_set_aside() -> None:
    body = read({"event": "ACCOUNT_DELETED"}, field="account_update", entry={"time": 4_000_000_000})

    assert reasons(body) == ["time_a_day_ahead"]


@pytest.mark.parametrize("event", [None, {}, "x" * 600, True])
def test_an_event_nobody_can_name_is_one_all_the_same(event: object) -> None:
    assert only(read({"event": event}, field="account_update")) == AccountEvent(0, 0, "", None)


def test_errors_beside_an_account_event_do_not_repeat_it() -> None:
    body = read({"event": "ENDPOINT_ERROR_RATE", "calls": {}, "errors": [{}, {}]}, field="flows")

    assert body.events == (
        AccountEvent(0, 0, "endpoint_error_rate", None),
        Kept(0, 1, "errors", None),
        Kept(0, 2, "errors", None),
    )
    assert body.quarantined == ()


# --- kept -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("automatic_events_purchase.json", "automatic_events"),
        ("history_declined.json", "history_declined"),
        ("messages_empty_array.json", "messages"),
        ("standby_echo.json", "standby"),
        ("standby_message.json", "standby"),
        ("unknown_field.json", "tide_table_update"),
        ("value_level_errors.json", "errors"),
    ],
)
def test_what_has_no_effect_is_kept(name: str, kind: str) -> None:
    assert only(parsed(name)) == Kept(0, 0, kind, None)


def test_a_click_is_kept_with_its_time() -> None:
    assert only(parsed("user_actions_link_click.json")) == Kept(0, 0, "user_actions", at(1795183290))


@pytest.mark.parametrize("listed", ["messages", "statuses", "message_echoes", "calls"])
def test_lists_of_a_field_nobody_knows_are_kept_one_by_one(listed: str) -> None:
    sent: list[Any] = [{"id": "wamid.1", "from": "12025550117", "timestamp": "4000000000"}, 7]

    body = read({listed: sent}, field="tide_table_update")

    assert [event.kind for event in body.events if isinstance(event, Kept)] == ["tide_table_update"] * 2
