"""Templates over both transports: nulls, lists, dates and times arrive as they should."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from shared.domain.errors import Conflict
from shared.domain.ids import new_id
from shared.store.templates import Templates, TemplateWork
from tests.contract.test_store import Side, over_postgres, over_supabase, side
from tests.world import WABA_A

__all__ = ["over_postgres", "over_supabase", "side"]  # fixtures


async def test_templates_are_written_read_and_worked_on(side: Side) -> None:
    world, person = side.world, side.person(side.world.owner_a)
    templates, work = Templates(side.api), TemplateWork(side.service)
    written = {
        "id": str(new_id()),
        "waba_id": None,
        "name": "note",
        "language": "en",
        "category": "UTILITY",
        "components": [{"type": "BODY", "text": "We are open."}],
        "parameter_format": None,
        "ttl_s": None,
    }

    made = json.loads(
        await templates.create(world.workspace_a, written, request_id="1", digest="ab" * 32, as_user=person)
    )
    with pytest.raises(Conflict):
        await templates.edit(world.workspace_a, made["id"], None, version=1, as_user=person)
    at = datetime.now(UTC)
    shown = {"id": "1", "name": "other", "language": "en", "status": "APPROVED"}
    await work.merge(world.workspace_a, WABA_A, [shown], at=at)
    unseen = await work.unseen(world.workspace_a, WABA_A, ["2"], at=datetime.now(UTC))
    await work.forget(world.workspace_a, WABA_A, ["3"], at=at)
    due = await work.finish_sync(world.workspace_a, WABA_A, read_at=at, calls=1, error=None)
    listed = json.loads(
        await templates.list_templates(
            world.workspace_a, limit=10, cursor=None, filters={"status": "approved"}, as_user=person
        )
    )
    counted = await templates.analytics(world.workspace_a, made["id"], first=at.date(), last=at.date(), as_user=person)

    assert (made["status"], made["version"]) == ("pending", 1)
    assert await work.to_submit(world.workspace_a, made["id"]) is None
    assert (unseen, due) == (["1"], None)
    assert [one["template_name"] for one in listed["items"]] == ["other"]
    assert [one["waba_id"] for one in listed["accounts"]] == [WABA_A]
    assert json.loads(counted)["days"] == []
