"""Whatever is sent to the sandbox's Graph API gets an answer of Meta's kind: it must not fall over before we do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .meta_graph import Meta, meta, running
from .test_sandbox_graph import exchanges

__all__ = ["meta", "running"]  # fixtures

ODD: list[Any] = [None, True, 0, -1, 1e999, "", "x", "\ud83d", "w" * 5000, [], [None], [[]], {}, {"id": []}]


def mangled(found: Any) -> Iterator[Any]:
    """Yield this value with each of its parts missing, and replaced by each odd thing."""
    yield from ODD
    if isinstance(found, dict):
        for key, value in found.items():
            yield {name: other for name, other in found.items() if name != key}
            yield from (found | {key: other} for other in mangled(value))
    elif isinstance(found, list):
        for at, value in enumerate(found):
            yield from ([*found[:at], other, *found[at + 1 :]] for other in mangled(value))


def _with_bodies() -> list[Any]:
    """List the exchanges that send JSON; those about errors send the same bodies as others."""
    return [
        one
        for one in exchanges()
        if not one.id.startswith("error_")
        and one.values[0]["request"]["method"] != "GET"
        and "_multipart" not in one.values[0]["request"].get("body", {"_multipart": None})
    ]


@pytest.mark.parametrize("exchange", _with_bodies())
def test_mangled_request_gets_an_answer_and_breaks_no_list(meta: Meta, exchange: dict[str, Any]) -> None:
    meta.behave(window="off", pair_limit="off", throughput=False, statuses=False, template_creates_per_hour=100_000)
    asked = exchange["request"]
    if "name" in asked["body"]:
        asked["body"]["name"] += "_again"  # the one on file is there already, which would be all that is looked at
    path = asked["url"].removeprefix("https://graph.facebook.com/v26.0/")

    broken = []
    for body in mangled(asked["body"]):
        answer = meta.ask(asked["method"], path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        if answer.status_code >= 500 or not isinstance(answer.json(), dict):
            broken.append((answer.status_code, body))

    assert broken == []
    assert meta.http.get("/sandbox/state").status_code == 200
    assert meta.http.get("/sandbox/accepted").status_code == 200
