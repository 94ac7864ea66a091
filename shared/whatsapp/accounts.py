"""Fields about an account, a number, a template or a group: the change as a whole is the event."""

from __future__ import annotations

from datetime import datetime

from shared.whatsapp.events import AccountEvent
from shared.whatsapp.scope import Scope
from shared.whatsapp.wire import Json, elements, identifier, mapping, time

_FIELDS = frozenset(
    {
        "account_alerts",
        "account_review_update",
        "account_settings_update",
        "account_update",
        "business_capability_update",
        "business_username_update",
        "business_username_updates",  # Meta's docs spell it both ways
        "flows",
        "messaging_handovers",
        "partner_solutions",
        "payment_configuration_update",
        "security",
        "template_category_update",
        "template_correct_category_detection",
        "user_id_update",  # withdrawn on 11 Aug 2026
    }
)
_FAMILIES = ("group_", "message_template_", "phone_number_")


def is_about_account(field: str) -> bool:
    """Say whether a field changes rows of ours rather than a chat."""
    return field in _FIELDS or field.startswith(_FAMILIES)


def read_account_event(value: Json, scope: Scope, *, entry_time: datetime | None) -> AccountEvent:
    """Read what happened, under whichever name the field's family gives it."""
    named = (value.get("event"), value.get("decision"), value.get("type"), _group(value).get("type"))
    event = next(filter(None, map(identifier, named)), "")
    return AccountEvent(scope.change, scope.item, event.lower(), entry_time or change_time(value))


def change_time(value: Json) -> datetime | None:
    """Return the time a change gives itself, where its entry has none."""
    return time(value.get("timestamp")) or time(_group(value).get("timestamp"))


def waba_of(value: Json, entry_id: object) -> str | None:
    """Return the WABA a change is about: with `waba_info`, the entry's id is the portfolio's."""
    return identifier(mapping(value.get("waba_info")).get("waba_id")) or identifier(entry_id)


def _group(value: Json) -> Json:
    return mapping(next(iter(elements(value.get("groups"))), None))
