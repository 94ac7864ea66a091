"""Reading templates from Meta: all of an account, one by name and language, one by id."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime

from services.sender.graph import Answer, Graph
from shared.whatsapp.errors import Kind, Verdict, classify
from shared.whatsapp.wire import Json, elements, mapping, text

FIELDS = (
    "id,name,language,status,category,sub_category,parameter_format,components,quality_score,rejected_reason,"
    "previous_category,correct_category,message_send_ttl_seconds"
)
_PAGE = 100
_MOST_PAGES = 100  # an account has at most 6,000 templates; more than this would be a paging that does not end
_NO_SUCH_OBJECT = (100, 33)  # code and sub-code; Meta does not tell missing from not permitted


class ReadRefused(Exception):
    """Meta did not let us read: `verdict` says whose move it is."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.rule.reason)
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Page:
    """Templates as Meta writes them, and when they were asked for."""

    at: datetime
    templates: list[Json]


class TemplateReader:
    """Reads on behalf of one chore: `calls` counts what it cost of the account's budget."""

    def __init__(self, graph: Graph, *, token: str, now: Callable[[], datetime]) -> None:
        self._graph = graph
        self._token = token
        self._now = now
        self.calls = 0

    async def pages(self, waba_id: str, filters: dict[str, str] | None = None) -> AsyncIterator[Page]:
        """Read page after page. Raises: ReadRefused, also with reason `invalid_cursor`: begin again."""
        after: str | None = None
        for _ in range(_MOST_PAGES):
            params = {"fields": FIELDS, "limit": str(_PAGE), **(filters or {})}
            if after:
                params["after"] = after
            at = self._now()
            body = await self._get(f"{waba_id}/message_templates", params)
            yield Page(at, [mapping(one) for one in elements(body.get("data"))])
            paging = mapping(body.get("paging"))
            after = text(mapping(paging.get("cursors")).get("after"))
            if not paging.get("next") or not after:
                return

    async def find(self, waba_id: str, name: str, language: str) -> Page | None:
        """Return the one of that name and language; None: there is none. Raises: ReadRefused."""
        async for page in self.pages(waba_id, {"name": name, "language": language}):  # `name` finds parts of names, too
            for one in page.templates:
                if one.get("name") == name and one.get("language") == language:
                    return Page(page.at, [one])
        return None

    async def one(self, meta_id: str) -> Page | None:
        """Return a template by Meta's id; None: Meta does not have it. Raises: ReadRefused."""
        at = self._now()
        try:
            return Page(at, [await self._get(meta_id, {"fields": FIELDS})])
        except ReadRefused as refused:
            if (refused.verdict.meta_code, refused.verdict.meta_subcode) == _NO_SUCH_OBJECT:
                return None
            raise

    async def _get(self, path: str, params: dict[str, str]) -> Json:
        self.calls += 1
        answer = await self._graph.get(path, token=self._token, params=params)
        verdict = verdict_of(answer)
        if verdict.kind is not Kind.ACCEPTED:
            raise ReadRefused(verdict)
        return mapping(answer.body)


def verdict_of(answer: Answer, *, is_repeatable: bool = True) -> Verdict:
    return classify(answer.status, answer.body, answer.failure, is_repeatable=is_repeatable)


def error_of(verdict: Verdict, body: object = None) -> Json:
    """Return what people read of a refusal. details: Meta's own words about the template, for whoever wrote it."""
    error = mapping(mapping(body).get("error"))
    said = [text(error.get(key)) for key in ("error_user_title", "error_user_msg")]
    details = ": ".join(part for part in said if part)
    return {
        "code": verdict.meta_subcode or verdict.meta_code,
        "reason": verdict.rule.reason,
        "sentence": verdict.rule.sentence,
        "details": details[:500] or None,
    }


def as_list(values: list[str]) -> str:
    """Write a list as Graph takes it in a query."""
    return json.dumps(values, separators=(",", ":"))
