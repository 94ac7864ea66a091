"""Merging facts is a join: commutative, associative, idempotent."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


fact_values = (
    st.lists(st.integers(0, 3) | st.sampled_from(["a", "b", "B", "é", "", None, 1.5, {"k": [1]}]), max_size=3)
    | st.integers(0, 2)
    | st.none()
)
fact_sets = st.dictionaries(st.sampled_from(["name", "quality", "x"]), fact_values, max_size=3)


@SETTINGS
@given(sets=st.lists(fact_sets, min_size=3, max_size=12))
async def test_later_facts_is_a_join(admin: psycopg.AsyncConnection, sets: list[dict[str, Any]]) -> None:
    cursor = await admin.execute(
        """
        with s as (select x::jsonb as f from unnest(%s::text[]) x)
        select a.f, b.f, c.f from s a, s b, s c
        where app.later_facts(a.f, a.f)::text <> a.f::text
           or app.later_facts(a.f, b.f)::text <> app.later_facts(b.f, a.f)::text
           or app.later_facts(app.later_facts(a.f, b.f), c.f)::text
             <> app.later_facts(a.f, app.later_facts(b.f, c.f))::text
        limit 1
        """,
        ([json.dumps(facts) for facts in sets],),
    )

    assert await cursor.fetchall() == []


LATER: list[tuple[Any, Any, Any]] = [
    ({}, {}, {}),
    (None, None, {}),
    (None, {"k": [1]}, {"k": [1]}),
    ({"k": [1]}, None, {"k": [1]}),
    ({"k": [1, "a"]}, {"k": [2, "a"]}, {"k": [2, "a"]}),
    ({"k": [10, "a"]}, {"k": [9, "b"]}, {"k": [10, "a"]}),  # as numbers
    ({"k": [1, "a"]}, {"k": [1, "b"]}, {"k": [1, "b"]}),
    ({"k": [1, "a", "x"]}, {"k": [1, "a", "y"]}, {"k": [1, "a", "y"]}),
    ({"k": [1, "é"]}, {"k": [1, "z"]}, {"k": [1, "é"]}),  # bytewise
    ({"k": [1, "a"]}, {"k": [1, "B"]}, {"k": [1, "a"]}),
    ({"k": [1, ""]}, {"k": [1, None]}, {"k": [1, None]}),
    ({"k": [0, "a"]}, {"k": "no fact"}, {"k": [0, "a"]}),
    ({"k": [-(10**30), "a"]}, {"k": ["z"]}, {"k": [-(10**30), "a"]}),
    ({"a": [1]}, {"b": [1]}, {"a": [1], "b": [1]}),
    ({"a": [2, "x"], "b": [1]}, {"a": [1, "y"], "b": [2]}, {"a": [2, "x"], "b": [2]}),
]


async def test_the_later_fact_holds(admin: psycopg.AsyncConnection) -> None:
    for a, b, expected in LATER:
        for one, other in ((a, b), (b, a)):
            cursor = await admin.execute(
                "select app.later_facts(%s::jsonb, %s::jsonb), app.latest_facts(array[%s, %s]::jsonb[])",
                [None if x is None else json.dumps(x) for x in (one, other)] * 2,
            )

            assert await cursor.fetchone() == (expected, expected), (one, other)


async def test_numbers_written_differently_still_have_an_order(admin: psycopg.AsyncConnection) -> None:
    cursor = await admin.execute(
        "select app.later_facts(a::jsonb, b::jsonb)::text, app.later_facts(b::jsonb, a::jsonb)::text"
        " from (values ('{\"k\": [1, 2]}', '{\"k\": [1.0, 2]}'), ('{\"k\": [1, 2]}', '{\"k\": [1, 2.0]}')) v(a, b)"
    )

    for one, other in await cursor.fetchall():
        assert one == other
