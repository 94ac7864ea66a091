"""Read what Meta counts of an account's templates: sent, delivered, read, clicked, cost, by day.

Source: Meta, "Template analytics", as in fact sheet 6.4, read 2026-11-22.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from services.sender.chores import Chore
from services.sender.graph import Graph
from services.sender.template_reader import as_list, error_of, verdict_of
from shared.store.templates import AnalyticsDue, TemplateWork
from shared.whatsapp.errors import Kind, Verdict
from shared.whatsapp.wire import Json, elements, identifier, mapping, text

_METRICS = ["SENT", "DELIVERED", "READ", "CLICKED", "COST"]

# code → the account's state from then on, and what an admin reads.
_REFUSALS = {
    200005: (
        "unavailable",
        "Meta counts no templates for this account: it is owned by or shared with a business in the EU, the United "
        "Kingdom or Japan, or has a number of one of these countries.",
    ),
    200006: ("on", "Template statistics are on, and Meta does not switch them off again."),
    200007: (
        "off",
        "Template statistics are not switched on for this account. An owner or admin can switch them on; Meta does not "
        "take it back.",
    ),
}


@dataclass(frozen=True, slots=True)
class ReadTemplateAnalytics:
    """A part of a sync: what fails here is shown with the account, and tried again with the next."""

    graph: Graph
    templates: TemplateWork
    now: Callable[[], datetime]

    async def read(self, chore: Chore, waba_id: str, due: AnalyticsDue) -> None:
        """Switch counting on if somebody asked for it, then read what is due."""
        calls = 0
        if due.enable:
            calls += 1
            answer = await self.graph.post(waba_id, {"is_enabled_for_insights": True}, token=chore.token)
            verdict = verdict_of(answer)
            if verdict.kind is not Kind.ACCEPTED:
                await self._finish(chore, waba_id, "asked", calls, verdict)
                return
        for meta_ids in due.groups:
            calls += 1
            answer = await self.graph.get(
                f"{waba_id}/template_analytics", token=chore.token, params=self._params(meta_ids, due.since)
            )
            verdict = verdict_of(answer)
            if verdict.kind is not Kind.ACCEPTED:
                await self._finish(chore, waba_id, "on", calls, verdict)
                return
            points = list(points_in(mapping(answer.body)))
            await self.templates.store_analytics(chore.workspace_id, waba_id, points)
        await self.templates.finish_analytics(chore.workspace_id, waba_id, state="on", calls=calls, error=None)

    def _params(self, meta_ids: list[str], since: int) -> dict[str, str]:
        return {
            "start": str(since),
            "end": str(int(self.now().timestamp())),
            "granularity": "DAILY",
            "template_ids": as_list(meta_ids),
            "metric_types": as_list(_METRICS),
        }

    async def _finish(self, chore: Chore, waba_id: str, state: str, calls: int, verdict: Verdict) -> None:
        error = error_of(verdict)
        known = _REFUSALS.get(verdict.meta_code or 0)
        if known is not None:
            state, error["sentence"] = known
        await self.templates.finish_analytics(chore.workspace_id, waba_id, state=state, calls=calls, error=error)


def points_in(body: Json) -> Iterator[Json]:
    """Yield the days in an answer, as `store_template_analytics` takes them; what cannot be read is left out."""
    for series in map(mapping, elements(body.get("data"))):
        for point in map(mapping, elements(series.get("data_points"))):
            meta_id, start = identifier(point.get("template_id")), point.get("start")
            if meta_id is None or not isinstance(start, int):
                continue
            clicks = [
                {"type": text(one.get("type")), "button_content": text(one.get("button_content")), "count": _count(one)}
                for one in map(mapping, elements(point.get("clicked")))
            ]
            yield {
                "meta_id": meta_id,
                "day": datetime.fromtimestamp(start, UTC).date().isoformat(),
                "sent": _whole(point.get("sent")),
                "delivered": _whole(point.get("delivered")),
                "read": _whole(point.get("read")),
                "clicked": sum(click["count"] for click in clicks),
                "clicks": clicks,
                "cost": _spent(map(mapping, elements(point.get("cost")))),
            }


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _count(click: Json) -> int:
    return _whole(click.get("count"))


def _spent(costs: Iterable[Json]) -> str | None:
    """Return the amount, written out: floats do not add up."""
    amounts = [one.get("value") for one in costs if one.get("type") == "amount_spent"]
    amount = next((one for one in amounts if isinstance(one, int | float)), None)
    return None if amount is None else f"{amount:.6f}"
