"""Files from customers: fetched while Meta has them, whatever goes wrong; and gone when their message is."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from PIL import Image

from services.sender.chores import Again, Done, Failed
from services.sender.delete_files import delete_files
from services.sender.download import MOST_BYTES
from services.sender.fetch_media import RETRY_AFTER_S
from shared.storage.folder import FolderStorage
from shared.store.postgres import PostgresTransport
from tests.integration import erasing
from tests.integration.bad_meta import BadMeta, bad_meta, moved, ok
from tests.integration.media_office import HTML, PNG, Fetching, Office, fetching, from_meta, office, sandbox
from tests.integration.test_api import as_problem
from tests.world import PHONE_A, World

__all__ = ["from_meta", "office", "sandbox"]  # fixtures


def _sent_by_customer(sandbox: httpx.Client, content: bytes, mime_type: str = "image/png") -> str:
    answer = sandbox.post(
        "/sandbox/media", params={"phone_number_id": PHONE_A}, content=content, headers={"content-type": mime_type}
    )
    return str(answer.raise_for_status().json()["id"])


async def test_customers_picture_is_fetched_checked_and_shown(
    sandbox: httpx.Client, from_meta: Fetching, office: Office
) -> None:
    digest = hashlib.sha256(PNG).hexdigest()
    chore = await from_meta.arrive(_sent_by_customer(sandbox, PNG), sha256=digest)
    media_id = UUID(chore.payload["media_id"])
    assert as_problem(await office.ask(media_id)) == (409, "media_pending")

    assert await from_meta.fetch(chore) == Done()
    assert await from_meta.fetch(chore) == Done()  # again: nothing more to do

    facts = await from_meta.media(chore, "state, size_bytes, sniffed_type, is_mismatched, width, height, sha256")
    assert facts == ("stored", len(PNG), "image/png", False, 640, 320, digest)
    had = await office.url(media_id)
    assert (await office.http.get(had.url)).content == PNG
    assert Image.open(io.BytesIO((await office.http.get(had.thumbnail_url or "")).content)).size == (320, 160)


async def test_file_that_is_not_what_it_says_is_kept_marked_and_harmless(
    sandbox: httpx.Client, from_meta: Fetching, office: Office
) -> None:
    chore = await from_meta.arrive(
        _sent_by_customer(sandbox, HTML, "application/pdf"), kind="document", mime_type="application/pdf"
    )

    assert await from_meta.fetch(chore) == Done()

    assert await from_meta.media(chore, "state, sniffed_type, is_mismatched") == ("stored", "text/html", True)
    had = await office.url(UUID(chore.payload["media_id"]))
    file = await office.http.get(had.url)
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["content-disposition"].startswith('attachment; filename="file.txt"')


async def test_file_meta_no_longer_has_is_given_up_after_hours_not_at_once(
    sandbox: httpx.Client, from_meta: Fetching, office: Office
) -> None:
    chore = await from_meta.arrive("7301884420199999")

    first = await from_meta.fetch(chore)
    assert isinstance(first, Again)
    assert (first.in_s, first.error.reason) == (RETRY_AFTER_S[0], "media_gone")
    assert await from_meta.media(chore) == ("pending",)
    last = await from_meta.fetch(replace(chore, attempt=len(RETRY_AFTER_S) + 1))

    assert isinstance(last, Failed)
    assert await from_meta.media(chore) == ("gone",)
    answer = await office.ask(UUID(chore.payload["media_id"]))
    assert as_problem(answer) == (409, "media_gone")
    assert answer.json()["hint"] == "WhatsApp no longer has this file; ask the customer to send it again."


async def test_file_is_tried_until_metas_id_runs_out(sandbox: httpx.Client, from_meta: Fetching) -> None:
    await asyncio.to_thread(sandbox.put, "/sandbox/graph/behaviour", json={"media_url_s": 0})
    chore = await from_meta.arrive(_sent_by_customer(sandbox, PNG))

    late = replace(chore, attempt=20)
    assert isinstance(await from_meta.fetch(late), Again)
    last = await from_meta.fetch(replace(late, expires_at=datetime.now(UTC) + timedelta(hours=1)))

    assert isinstance(last, Failed)
    assert await from_meta.media(chore, "state, problem ->> 'reason'") == ("gone", "media_expired")


# What goes wrong, as (change to a good Meta, kept reason); None: it is stored after all.
WRONG: dict[str, tuple[dict[str, Any], str | None]] = {
    "address expired once": ({"answers": [ok(b"", status="404 Not Found"), ok(PNG)]}, None),
    "address refused for ever": ({"answers": [ok(b"", status="403 Forbidden")]}, "media_url_expired"),
    "redirect to another host": ({"answers": [moved("https://evil.example/file")]}, "media_host_refused"),
    "redirect to a private address": ({"answers": [moved("http://169.254.169.254/latest")]}, "media_host_refused"),
    "redirect to a file": ({"answers": [moved("file:///etc/passwd")]}, "media_host_refused"),
    "redirect to itself": ({"answers": [moved("/file")]}, "transient"),
    "address at another host": ({"address": "https://evil.example/file"}, "media_host_refused"),
    "fewer bytes than it says": ({"answers": [ok(PNG[:100], length=len(PNG))]}, "transient"),
    "other bytes than it says": ({"answers": [ok(PNG[:-1] + b"x")]}, "media_corrupt"),
    "longer than it may be": (
        {"answers": [ok(b"", length=MOST_BYTES * 2)], "piece": b"\0" * 1_000_000},
        "media_too_large",
    ),
    "server error": ({"answers": [ok(b"oops", status="500 Oops")]}, "transient"),
    "not HTTP": ({"answers": [b"nonsense\r\n\r\n"]}, "transient"),
}


@pytest.fixture
async def from_bad_meta(
    office: Office, admin: psycopg.AsyncConnection, service_store: PostgresTransport, world: World
) -> AsyncIterator[tuple[Fetching, BadMeta]]:
    async with bad_meta() as meta:
        meta.content, meta.answers = PNG, [ok(PNG)]
        async with fetching(f"{meta.url}/graph", office, admin, service_store, world) as made:
            yield made, meta


@pytest.mark.parametrize("what", list(WRONG))
async def test_file_that_goes_wrong_on_its_way(
    what: str, from_bad_meta: tuple[Fetching, BadMeta], office: Office
) -> None:
    made, meta = from_bad_meta
    change, reason = WRONG[what]
    for name, value in change.items():
        setattr(meta, name, value)
    chore = await made.arrive("77")

    outcome = await made.fetch(chore)

    if reason is None:
        assert (outcome, await made.media(chore)) == (Done(), ("stored",))
    elif reason == "media_too_large":
        assert isinstance(outcome, Failed)
        assert await made.media(chore, "state, problem ->> 'reason'") == ("failed", reason)
        assert meta.sent < MOST_BYTES * 1.5
    else:
        assert isinstance(outcome, Again)
        assert outcome.error.reason == reason
        assert await made.media(chore) == ("pending",)
    assert {told.split()[-1] for told in meta.asked} == {"good"}
    assert [name for name in office.files() if "incoming" in name] == []


async def test_file_whose_digest_the_webhook_told_otherwise_is_not_taken(
    from_bad_meta: tuple[Fetching, BadMeta],
) -> None:
    made, _ = from_bad_meta
    chore = await made.arrive("77", sha256=hashlib.sha256(b"other").hexdigest())

    outcomes = [await made.fetch(replace(chore, attempt=attempt)) for attempt in (1, 4)]

    assert [type(outcome) for outcome in outcomes] == [Again, Failed]
    assert await made.media(chore, "state, problem ->> 'reason'") == ("failed", "media_corrupt")


async def test_file_that_comes_too_slowly_is_tried_again(
    office: Office, admin: psycopg.AsyncConnection, service_store: PostgresTransport, world: World
) -> None:
    async with bad_meta() as meta:
        meta.content, meta.answers, meta.hangs = PNG, [ok(b"", length=MOST_BYTES)], True
        async with fetching(f"{meta.url}/graph", office, admin, service_store, world, timeout_s=0.3) as made:
            outcome = await made.fetch(await made.arrive("77"))

    assert isinstance(outcome, Again)
    assert outcome.error.reason == "media_too_slow"


@pytest.mark.parametrize("how", ["revoked", "erased"])
async def test_file_of_a_message_that_goes_is_deleted_everywhere(
    how: str, from_bad_meta: tuple[Fetching, BadMeta], office: Office, admin: psycopg.AsyncConnection
) -> None:
    made, _ = from_bad_meta
    chore = await made.arrive("77")
    assert await made.fetch(chore) == Done()
    assert len(office.files()) == 2

    if how == "revoked":
        await admin.execute("update public.whatsapp_messages set revoked_at = now(), content = null, payload = '{}'")
    else:
        contact = await made.one("select contact_id from public.whatsapp_messages")
        await erasing.ask(admin, made.world.workspace_a, contact[0], made.world.owner_a)
        await erasing.work_off(made.store)
    swept = await delete_files(media=made.fetch.media, storage=office.storage, now_s=0)

    assert (swept, office.files()) == (1, [])
    if how == "revoked":
        assert await made.media(chore, "state, storage_key, thumbnail_key, file_deleted_at is null") == (
            "gone",
            None,
            None,
            False,
        )
    else:
        assert await made.one("select files from app.erasures") == ([],)


async def test_file_of_a_message_deleted_while_it_comes_is_not_kept(
    from_bad_meta: tuple[Fetching, BadMeta], office: Office, admin: psycopg.AsyncConnection
) -> None:
    made, _ = from_bad_meta
    chore = await made.arrive("77")

    class Deleting(FolderStorage):
        async def put(self, key: str, file: Path, *, mime_type: str) -> None:
            await super().put(key, file, mime_type=mime_type)
            await admin.execute("update public.whatsapp_messages set revoked_at = now()")

    fetch = replace(made.fetch, storage=Deleting(office.folder, None))
    assert await fetch(chore) == Done()

    assert await made.media(chore) == ("gone",)
    assert office.files() == []
