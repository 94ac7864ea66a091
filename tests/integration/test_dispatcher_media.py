"""A customer's picture and an agent's, both the whole way, by a dispatcher as it runs."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID, uuid4

from services.sender.store_upload import Upload, store_upload
from shared.domain.person import Person
from shared.storage.folder import FolderStorage
from shared.store.media import Uploads
from shared.store.postgres import PostgresTransport
from shared.store.webhooks import Webhooks
from tests.integration.dispatching import Dispatching, until
from tests.integration.media_office import PNG, file_webhook, one_file_form, png
from tests.integration.sends import Sends
from tests.world import PHONE_A, received


async def test_pictures_go_both_ways(
    d: Dispatching, tmp_path: Path, api_store: PostgresTransport, service_store: PostgresTransport
) -> None:
    ours = png(colour="blue")
    await d.behave(keep_bodies=True)
    storage = FolderStorage(tmp_path, None)
    sends = Sends(d.admin, d.world, api_store, service_store)

    async with d.dispatcher():
        theirs = await d.meta.post(
            "/sandbox/media", params={"phone_number_id": PHONE_A}, content=PNG, headers={"content-type": "image/png"}
        )
        said = file_webhook("image", {"id": theirs.json()["id"], "mime_type": "image/png"})
        await Webhooks(service_store).record([received(said)], settle_s=0)
        await d.ring()

        async def fetched() -> object:
            return await d.rows(
                "select storage_key, conversation_id from public.media f"
                " join public.whatsapp_messages m on m.id = f.message_id where f.state = 'stored'"
            )

        key, conversation = (await until(fetched, what="the customer's picture is here"))[0]
        person = Person(d.world.owner_a, d.world.claims(d.world.owner_a))
        body, content_type = one_file_form(ours)
        upload = Upload(d.world.workspace_a, "image", False, content_type, None, str(uuid4()), person)
        stored = await store_upload(upload, body, uploads=Uploads(api_store), storage=storage)
        media_id = UUID(stored.split('"id":')[1].split('"')[1])
        await sends.send(
            conversation_id=conversation,
            message_type="image",
            payload={"type": "image", "image": {"id": f"parley:{media_id}", "caption": "here"}},
        )
        await d.ring()

        started = time.monotonic()
        await until(d.accepted, what="Meta has the agent's picture")
        took_s = time.monotonic() - started

    assert (tmp_path / key).read_bytes() == PNG
    meta_id = (await d.rows("select meta_id from app.media_uploads where media_id = %s", media_id))[0][0]
    said_to_meta = [call["request"] for call in await d.calls() if call["path"] == f"{PHONE_A}/messages"]
    assert [one["image"] for one in said_to_meta if "image" in one] == [{"id": meta_id, "caption": "here"}]
    assert took_s < 3  # nothing waited to be polled for, which takes up to five seconds
    assert (await d.meta.get(f"/sandbox/media/{meta_id}")).content == ours
