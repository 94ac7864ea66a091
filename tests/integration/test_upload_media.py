"""Files to Meta: brought there once, and the messages that wait for them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import httpx
import psycopg
import pytest

from services.sender.chores import Again, Chore, Done, Failed
from services.sender.graph import Graph, open_graph
from services.sender.upload_media import UploadMedia
from shared.settings.clocks import Clocks
from shared.store.media import MediaWork
from shared.store.postgres import PostgresTransport
from tests.integration.media_office import PNG, Office, from_meta, office, sandbox
from tests.integration.sends import Sends
from tests.world import PHONE_A, WABA_A, World

__all__ = ["from_meta", "office", "sandbox"]  # fixtures


@asynccontextmanager
async def uploading(
    base_url: str, office: Office, store: PostgresTransport
) -> AsyncIterator[tuple[UploadMedia, Graph]]:
    async with open_graph(base_url, clocks=Clocks(), connections=4) as graph:
        yield (
            UploadMedia(
                media=MediaWork(store), storage=office.storage, graph=graph, timeout_s=10, released=lambda: None
            ),
            graph,
        )


async def _queue(sends: Sends, media_id: UUID) -> Chore:
    """Let an agent send a picture; return the chore that is to bring it to Meta."""
    conversation = await sends.customer()
    await sends.send(
        conversation_id=str(conversation),
        message_type="image",
        payload={"type": "image", "image": {"id": f"parley:{media_id}"}},
    )
    rows = await sends.rows("select id, payload, expires_at from app.outbox where kind = 'media_upload'")
    assert len(rows) == 1
    return Chore(
        workspace_id=sends.world.workspace_a,
        id=rows[0][0],
        channel_id=sends.world.channel_a,
        phone_number_id=PHONE_A,
        waba_id=WABA_A,
        token="good",
        kind="media_upload",
        payload=rows[0][1],
        lane=None,
        message_id=None,
        attempt=1,
        expires_at=rows[0][2],
    )


@pytest.fixture
async def sends(
    admin: psycopg.AsyncConnection, world: World, api_store: PostgresTransport, service_store: PostgresTransport
) -> Sends:
    made = Sends(admin, world, api_store, service_store)
    await made.prepare()
    return made


async def test_file_is_brought_to_meta_once_and_its_message_goes(
    sandbox: httpx.Client, office: Office, sends: Sends, service_store: PostgresTransport
) -> None:
    chore = await _queue(sends, (await office.upload(PNG)).id)
    assert await sends.rows("select state, wait_reason from app.outbox where kind = 'message'") == [
        ("waiting", "media")
    ]

    async with uploading(f"{sandbox.base_url}/graph/v26.0", office, service_store) as (upload, graph):
        assert await upload(chore) == Done()
        kept = await sends.rows("select meta_id, expires_at - now() from app.media_uploads")
        assert await upload(chore) == Done()  # again: Meta is not asked
        known = await graph.get(kept[0][0], token="good")

    assert await sends.rows("select meta_id from app.media_uploads") == [(kept[0][0],)]
    assert timedelta(days=28) < kept[0][1] <= timedelta(days=29)
    assert isinstance(known.body, dict)
    assert (known.body["sha256"], known.body["mime_type"]) == (hashlib.sha256(PNG).hexdigest(), "image/png")
    assert await sends.rows("select state from app.outbox where kind = 'message'") == [("due",)]


@pytest.mark.parametrize("how", ["refused by Meta", "lost by us", "tried too often"])
async def test_message_whose_file_cannot_go_fails_with_a_sentence(
    how: str, sandbox: httpx.Client, office: Office, sends: Sends, service_store: PostgresTransport
) -> None:
    chore = await _queue(sends, (await office.upload(PNG)).id)
    base_url = f"{sandbox.base_url}/graph/v26.0"
    if how == "refused by Meta":
        chore = replace(chore, phone_number_id="1")
    elif how == "lost by us":
        for name in office.files():
            (office.folder / name).unlink()
    else:
        base_url, chore = "http://127.0.0.1:9/graph", replace(chore, attempt=7)

    async with uploading(base_url, office, service_store) as (upload, _):
        outcome = await upload(chore)

    assert isinstance(outcome, Failed)
    rows = await sends.rows("select status, error from public.whatsapp_messages where direction = 'outbound'")
    assert rows[0][0] == "failed"
    assert rows[0][1]["sentence"] == outcome.error.sentence
    assert await sends.rows("select state from app.outbox where kind = 'message'") == [("failed",)]


async def test_file_meta_cannot_take_now_is_tried_again(
    office: Office, sends: Sends, service_store: PostgresTransport
) -> None:
    chore = await _queue(sends, (await office.upload(PNG)).id)

    async with uploading("http://127.0.0.1:9/graph", office, service_store) as (upload, _):
        outcome = await upload(chore)

    assert isinstance(outcome, Again)
    assert outcome.error.reason == "not_reached"
    assert await sends.rows("select state from app.outbox where kind = 'message'") == [("waiting",)]
