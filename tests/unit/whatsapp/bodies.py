"""Webhook bodies for these tests: the fixtures as they are, and small ones made to measure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.whatsapp.events import Event, ParsedBody, Person
from shared.whatsapp.parse import parse_webhook

WEBHOOKS = Path(__file__).parents[2] / "fixtures" / "webhooks"
MANIFEST = json.loads((WEBHOOKS / "MANIFEST.json").read_text("utf-8"))

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)  # for bodies made here
LATER = datetime(2027, 1, 1, tzinfo=UTC)  # for fixtures, all of them from before

NUMBER = {"display_phone_number": "12025550143", "phone_number_id": "402776318915527"}

MAREN = Person("US.4471902683351774", "12025550117", name="Maren Holt")
TOMAS = Person("US.8830174426195003", "12025550162", name="Tomás Arriaga")
COLE = Person("AU.5590287714463310", "61491570006", name="Cole Whitaker", username="cole.paddles")
LEILA = Person("FR.2096631178450219", "33639980142", name="Leïla Benhaddou")
IFEOMA = Person("GB.7715520941638206", "447700900417", name="Ifeoma Adeyemi")
KESTREL = Person("US.9120047736618250", None, name="Kestrel", username="kestrel.makes")


def at(seconds: int) -> datetime:
    """Aware UTC of Meta's unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def fixture(name: str) -> bytes:
    """One fixture's bytes."""
    return (WEBHOOKS / name).read_bytes()


def value_of(name: str) -> dict[str, Any]:
    """What the first change of a fixture holds."""
    value: dict[str, Any] = json.loads(fixture(name))["entry"][0]["changes"][0]["value"]
    return value


def parsed(name: str) -> ParsedBody:
    """One fixture, parsed."""
    return parse_webhook(fixture(name), now=LATER)


def only(body: ParsedBody) -> Event:
    """The one event of a body without anything else in it."""
    assert body.quarantined == ()
    [event] = body.events
    return event


def body_of(value: object, *, field: object = "messages", entry: dict[str, Any] | None = None) -> bytes:
    """A body of one change."""
    held = {"id": "1", "changes": [{"field": field, "value": value}]} | (entry or {})
    return json.dumps({"object": "whatsapp_business_account", "entry": [held]}).encode()


def read(value: dict[str, Any], *, field: str = "messages", entry: dict[str, Any] | None = None) -> ParsedBody:
    """A change of our number, parsed."""
    return parse_webhook(body_of({"metadata": NUMBER} | value, field=field, entry=entry), now=NOW)


def reasons(body: ParsedBody) -> list[str]:
    """Why what was set aside was set aside."""
    return [quarantined.reason for quarantined in body.quarantined]


def text(**changes: Any) -> dict[str, Any]:
    """A customer's text; None takes a key away."""
    sent = {"id": "wamid.1", "from": "12025550117", "timestamp": "1763802000", "type": "text", "text": {"body": "Hi"}}
    return {key: value for key, value in (sent | changes).items() if value is not None}
