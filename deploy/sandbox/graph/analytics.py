"""Meta's analytics, counted from what was really sent here: volumes, prices, templates.

Source: Meta, "Analytics" (M:analytics), read 2026-11-22. Prices are made up: Meta calls its own estimates, too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from deploy.sandbox.graph.errors import Refused
from deploy.sandbox.graph.people import country_of
from deploy.sandbox.graph.world import Account, Sent, World

HALF_HOUR_S, DAY_S = 1_800, 86_400
MOST_CELLS = 50_000
_STEP_S = {"HALF_HOUR": HALF_HOUR_S, "DAY": DAY_S, "DAILY": DAY_S, "MONTH": 30 * DAY_S, "MONTHLY": 30 * DAY_S}
_USD = {"marketing": 0.025, "utility": 0.004, "authentication": 0.004, "service": 0.004}
_CALL = re.compile(r"\.(\w+)\(([^()]*)\)")

# half hour, phone number id, country, category, pricing type, template id or ""
Cell = tuple[int, str, str, str, str, str]


class Analytics:
    """How many messages reached each state, by half hour and what they were."""

    def __init__(self) -> None:
        self.cells: dict[str, Counter[Cell]] = {}

    def count(self, sent: Sent, state: str, now: float) -> None:
        cell: Cell = (
            int(now // HALF_HOUR_S) * HALF_HOUR_S,
            sent.number.id,
            country_of(sent.person.wa_id),
            sent.category,
            sent.pricing_type,
            sent.template_id or "",
        )
        counter = self.cells.setdefault(state, Counter())
        counter[cell] += 1
        if len(counter) > MOST_CELLS:
            del counter[next(iter(counter))]

    def clear(self) -> None:
        self.cells.clear()

    def between(self, state: str, numbers: set[str], start: int, end: int) -> list[tuple[Cell, int]]:
        counter = self.cells.get(state, Counter())
        return [(cell, count) for cell, count in counter.items() if start <= cell[0] < end and cell[1] in numbers]


def read_expression(expression: str, name: str) -> dict[str, str]:
    """Take `analytics.start(1).end(2).granularity(DAY)` apart. Raises: Refused 100 without start, end, granularity."""
    found = dict(_CALL.findall(expression))
    for needed in ("start", "end", "granularity"):
        if needed not in found:
            raise Refused(100, f"{name}: the parameter {needed} is required.")
    if found["granularity"] not in _STEP_S:
        raise Refused(100, f"{name}: granularity must be one of {sorted(_STEP_S)}.")
    return found


def _span(asked: dict[str, str]) -> tuple[int, int]:
    try:
        start, end = int(asked["start"]), int(asked["end"])
    except (KeyError, ValueError) as error:
        raise Refused(100, "start and end must be UNIX timestamps.") from error
    if end <= start:
        raise Refused(100, "end must be after start.")
    return start, end


def account_analytics(world: World, analytics: Analytics, account: Account, expression: str) -> dict[str, Any]:
    """Answer one of `analytics`, `conversation_analytics` and `pricing_analytics` of an account."""
    name = expression.partition(".")[0]
    asked = read_expression(expression, name)
    start, end = _span(asked)
    step = _STEP_S[asked["granularity"]]
    numbers = {one.id: one.digits for one in world.numbers.values() if one.waba_id == account.id}
    if name == "analytics":
        return {"phone_numbers": list(numbers.values()), "granularity": asked["granularity"]} | {
            "data_points": _volumes(analytics, set(numbers), start, end, step)
        }
    if name == "conversation_analytics":
        # Conversations ended with June 2025; there is nothing later to show.
        return {"data": [{"data_points": []}]}
    dimensions = set(_names(asked.get("dimensions", "[]")))
    return {"data": [{"data_points": _prices(analytics, numbers, start, end, step, dimensions)}]}


def _volumes(analytics: Analytics, numbers: set[str], start: int, end: int, step: int) -> list[dict[str, Any]]:
    found: dict[int, Counter[str]] = {}
    for state in ("sent", "delivered"):
        for cell, count in analytics.between(state, numbers, start, end):
            found.setdefault((cell[0] - start) // step, Counter())[state] += count
    return [
        {
            "start": start + at * step,
            "end": min(start + (at + 1) * step, end),
            "sent": counts["sent"],
            "delivered": counts["delivered"],
        }
        for at, counts in sorted(found.items())
    ]


def _prices(
    analytics: Analytics, numbers: dict[str, str], start: int, end: int, step: int, dimensions: set[str]
) -> list[dict[str, Any]]:
    volumes: Counter[tuple[Any, ...]] = Counter()
    costs: Counter[tuple[Any, ...]] = Counter()
    for (at, number, country, category, pricing_type, _), count in analytics.between(
        "delivered", set(numbers), start, end
    ):
        key = (
            (at - start) // step,
            country if "COUNTRY" in dimensions else None,
            numbers[number] if "PHONE" in dimensions else None,
            pricing_type.upper() if "PRICING_TYPE" in dimensions else None,
            category.upper() if "PRICING_CATEGORY" in dimensions else None,
            "0:100000" if "TIER" in dimensions and pricing_type == "regular" else None,
        )
        volumes[key] += count
        # Counted in millionths, for sums without rounding errors.
        costs[key] += round(count * _USD.get(category, 0) * 1_000_000) if pricing_type == "regular" else 0
    names = ("country", "phone_number", "pricing_type", "pricing_category", "tier")
    return [
        {"start": start + key[0] * step, "end": min(start + (key[0] + 1) * step, end)}
        | {name: value for name, value in zip(names, key[1:], strict=True) if value is not None}
        | {"volume": volume, "cost": costs[key] / 1_000_000}
        for key, volume in sorted(volumes.items(), key=str)
    ]


def _names(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        return [name.strip().strip("\"'") for name in text.strip("[]").split(",") if name.strip()]
    return [str(one) for one in found] if isinstance(found, list) else [str(found)]


def template_analytics(world: World, analytics: Analytics, account: Account, query: dict[str, str]) -> dict[str, Any]:
    """Answer `GET /<WABA>/template_analytics`. Raises: Refused 200007 until insights are switched on."""
    if not account.has_insights:
        raise Refused(200007)
    start, end = _span(query)
    if query.get("granularity", "DAILY") != "DAILY":
        raise Refused(100, "granularity must be DAILY.")
    if world.clock() - start > 91 * DAY_S:
        raise Refused(100, "start must be within the last 90 days.")
    ids = _names(query.get("template_ids", ""))
    if not 1 <= len(ids) <= 10:
        raise Refused(100, "template_ids must hold 1 to 10 ids.")
    numbers = {one.id for one in world.numbers.values() if one.waba_id == account.id}
    found: dict[tuple[int, str], Counter[str]] = {}
    for state in ("sent", "delivered", "read", "clicked"):
        for cell, count in analytics.between(state, numbers, start, end):
            if cell[5] in ids:
                counts = found.setdefault(((cell[0] - start) // DAY_S, cell[5]), Counter())
                counts[state] += count
                if state == "delivered" and cell[4] == "regular":
                    counts["cost"] += round(count * _USD.get(cell[3], 0) * 1_000_000)
    points = [
        {
            "template_id": template_id,
            "start": start + at * DAY_S,
            "end": min(start + (at + 1) * DAY_S, end),
            "sent": counts["sent"],
            "delivered": counts["delivered"],
            "read": counts["read"],
            "clicked": [{"type": "url_button", "button_content": "Button", "count": counts["clicked"]}]
            if counts["clicked"]
            else [],
            "cost": [
                {"type": "amount_spent", "value": counts["cost"] / 1_000_000},
                {
                    "type": "cost_per_delivered",
                    "value": round(counts["cost"] / 1_000_000 / max(counts["delivered"], 1), 4),
                },
            ],
        }
        for (at, template_id), counts in sorted(found.items())
    ]
    return {
        "data": [{"granularity": "DAILY", "product_type": "cloud_api", "data_points": points}],
        "paging": {"cursors": {"before": "MAZDZD", "after": "MAZDZD"}},
    }
