"""What Meta counts of templates, as its answer tells it."""

from __future__ import annotations

import json
from pathlib import Path

from services.sender.read_template_analytics import points_in

FIXTURES = Path(__file__).parents[2] / "fixtures" / "graph"


def test_the_answer_on_file_is_read() -> None:
    answer = json.loads((FIXTURES / "template_analytics_ok.json").read_text())["response"]["body"]

    points = list(points_in(answer))

    assert points
    for point, told in zip(points, answer["data"][0]["data_points"], strict=True):
        assert (point["meta_id"], point["sent"]) == (str(told["template_id"]), told["sent"])


def test_what_cannot_be_read_is_left_out() -> None:
    points = [
        {"template_id": "1", "start": 1_795_000_000, "sent": 2, "delivered": -1, "read": None, "clicked": "many",
         "cost": [{"type": "cost_per_delivered", "value": 1}, {"type": "amount_spent", "value": 0.1}]},
        {"template_id": 1, "start": 1_795_000_000, "clicked": [{"type": "button", "count": 3}, {"count": 1}, "odd"]},
        {"start": 1_795_000_000},
        {"template_id": "1", "start": "soon"},
        None,
    ]  # fmt: skip

    found = list(points_in({"data": [{"data_points": points}, "odd"]}))

    base = {"meta_id": "1", "day": "2026-11-18", "delivered": 0, "read": 0}
    assert [
        {name: value for name, value in point.items() if name not in ("clicks", "clicked", "cost", "sent")}
        for point in found
    ] == [base, base]
    assert [(point["sent"], point["clicked"], point["cost"]) for point in found] == [(2, 0, "0.100000"), (0, 4, None)]
