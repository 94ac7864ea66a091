"""Files from agents: taken, refused, served by addresses that are their own permission."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from PIL import Image

from services.sender.delete_files import delete_files
from shared.store.media import MediaWork
from shared.store.postgres import PostgresTransport
from tests.integration.lifecycle_rows import add_member
from tests.integration.media_office import HTML, MEDIA, PNG, Office, from_meta, office, png, sandbox
from tests.integration.test_api import as_problem
from tests.world import World

__all__ = ["from_meta", "office", "sandbox"]  # fixtures


async def test_upload_is_stored_and_served_as_an_attachment(office: Office) -> None:
    sent = await office.upload(PNG, name="Férias?.png")
    had = await office.url(sent.id)
    file = await office.http.get(had.url)
    part = await office.http.get(had.url, headers={"range": "bytes=8-15"})
    small = await office.http.get(had.thumbnail_url or "")

    assert (sent.mime_type, sent.size_bytes, sent.width, sent.height) == ("image/png", len(PNG), 640, 320)
    assert (sent.state, sent.filename, sent.has_thumbnail, sent.is_mismatched) == ("stored", "Férias?.png", True, False)
    assert file.content == PNG
    assert {
        name: file.headers[name] for name in ("content-type", "x-content-type-options", "content-security-policy")
    } == {
        "content-type": "image/png",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    }
    assert file.headers["content-disposition"] == (
        "attachment; filename=\"F_rias_.png\"; filename*=UTF-8''F%C3%A9rias_.png"
    )
    assert (part.status_code, part.content) == (206, PNG[8:16])
    assert Image.open(io.BytesIO(small.content)).size == (320, 160)
    key = f"{office.workspace}/{sent.created_at:%Y/%m}/{sent.id}"
    assert office.files() == [key, f"{key}-thumbnail"]


async def test_address_that_was_tampered_with_serves_nothing(office: Office) -> None:
    had = await office.url((await office.upload(PNG)).id)

    for url in (
        had.url.replace("type=image%2Fpng", "type=text%2Fhtml"),
        had.url[:-1],
        had.url.split("?")[0],
        had.url.replace(str(office.workspace), str(uuid4())),
    ):
        assert as_problem(await office.http.get(url)) == (404, "file_not_found")


async def test_only_members_who_may_write_upload_and_only_members_read(
    office: Office, world: World, admin: psycopg.AsyncConnection
) -> None:
    sent = await office.upload(PNG)
    viewer = await add_member(admin, world.workspace_a, "viewer")

    assert as_problem(await office.post(PNG, user=viewer)) == (403, "role_may_not_write")
    assert as_problem(await office.post(PNG, user=world.owner_b)) == (404, "workspace_not_found")
    assert as_problem(await office.post(PNG, user=None)) == (401, "token_missing")
    assert (await office.url(sent.id, user=viewer)).filename == "a.png"
    for user in (world.owner_b, world.stranger):
        assert as_problem(await office.ask(sent.id, user=user)) == (404, "media_not_found")
    assert len(office.files()) == 2  # what was refused left no byte


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (HTML, "image", "file_unsupported_format"),
        (b"MZ\x90\x00".ljust(300, b"\0"), "document", "file_unsupported_format"),
        (png((8001, 8001)), "image", "file_too_many_pixels"),
        (b"", "document", "file_unsupported_format"),
        (b"x" * (5 * 1024 * 1024 + 1), "image", "file_too_large"),
    ],
)
async def test_file_whatsapp_would_refuse_is_refused_and_leaves_nothing(
    office: Office, admin: psycopg.AsyncConnection, content: bytes, kind: str, code: str
) -> None:
    answer = await office.post(content, kind=kind, name="photo.jpg")

    assert as_problem(answer) == (422, code)
    assert answer.json()["hint"]
    assert office.files() == []
    assert await (await admin.execute("select id from public.media")).fetchall() == []


async def test_stream_that_does_not_say_how_long_it_is_is_cut_off_at_the_limit(office: Office) -> None:
    most_kept = 0

    async def long() -> AsyncIterator[bytes]:
        nonlocal most_kept
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.webp"\r\n\r\n'
        for _ in range(160):
            for path in office.storage.spool_dir.iterdir():
                with contextlib.suppress(FileNotFoundError):  # dropped just now
                    most_kept = max(most_kept, path.stat().st_size)
            yield b"\0" * 65536

    answer = await office.client.ask(
        MEDIA,
        method="POST",
        user=office.user,
        params={"workspace_id": str(office.workspace), "kind": "sticker"},
        content=long(),
        headers={"content-type": "multipart/form-data; boundary=b"},
    )

    assert as_problem(answer) == (422, "file_too_large")
    assert most_kept <= 500 * 1024
    assert office.files() == []


async def test_same_key_is_the_same_file_and_another_file_is_refused(office: Office) -> None:
    first, second = await asyncio.gather(office.upload(PNG, key="k1"), office.upload(PNG, key="k1"))
    again = await office.upload(PNG, key="k1")
    other = await office.post(png(colour="blue"), key="k1")
    unrelated = await office.upload(PNG)

    assert first.id == second.id == again.id != unrelated.id
    assert as_problem(other) == (409, "idempotency_key_reused")
    assert (await office.http.get((await office.url(first.id)).url)).content == PNG


async def test_upload_given_up_is_deleted_within_the_hour(
    office: Office, admin: psycopg.AsyncConnection, service_store: PostgresTransport
) -> None:
    kept = await office.upload(PNG, key="k1")
    await office.upload(PNG, key="k1")  # stored once more, and not wanted
    stale = office.storage.spool_dir / "parley-incoming-dead"
    stale.write_bytes(b"half a file")
    assert len(office.files()) == 5

    async def sweep(now: datetime) -> int:
        return await delete_files(media=MediaWork(service_store), storage=office.storage, now_s=now.timestamp())

    assert await sweep(datetime.now(UTC)) == 0
    await admin.execute("update app.uploads set created_at = now() - interval '61 minutes'")
    assert await sweep(datetime.now(UTC) + timedelta(hours=1, minutes=1)) == 1

    key = f"{office.workspace}/{kept.created_at:%Y/%m}/{kept.id}"
    assert office.files() == [key, f"{key}-thumbnail"]
    assert (await office.http.get((await office.url(kept.id)).url)).content == PNG
    await admin.execute("update app.uploads set created_at = now() - interval '8 days'")
    assert await sweep(datetime.now(UTC)) == 0
    assert await (await admin.execute("select id from app.uploads")).fetchall() == []  # its key counts no more
