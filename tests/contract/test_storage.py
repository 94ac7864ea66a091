"""The same promises from both places for files: a folder of ours, and Supabase's Storage API as `@supabase/lite` has.

Not tried here: a hosted project, with its limits of size and its content delivery network.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from deploy.local.ports import HOST, any_free_port
from services.sender.routes import files
from shared.domain.errors import NotFound, Unavailable
from shared.storage.folder import FolderStorage
from shared.storage.open_storage import file_urls_of, open_storage
from shared.storage.port import Storage
from shared.storage.settings import ServedStorageSettings
from shared.web.app import new_app
from shared.web.serve import serving
from tests.contract.lite import HERE, JWT_SECRET, PUBLISHABLE_KEY, SECRET_KEY, install

CONTENT = bytes(range(256)) * 5_000  # more than one piece


@pytest.fixture(scope="module")
def supabase_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A project with a private bucket `media`."""
    install()
    port = any_free_port()
    url = f"http://{HOST}:{port}"
    keys = {"jwtSecret": JWT_SECRET, "publishableKey": PUBLISHABLE_KEY, "secretKey": SECRET_KEY}
    options = keys | {"url": url, "port": port, "bucket": "media"}
    said = tmp_path_factory.mktemp("storage") / "lite.log"
    with said.open("w") as log:
        process = subprocess.Popen(
            ["env", "EXPERIMENTAL_STORAGE=1", "node", "storage.mjs", json.dumps(options)],
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    giving_up = threading.Timer(60, process.kill)
    giving_up.start()
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        giving_up.cancel()
        assert first, said.read_text()[-4000:]
        yield url
    finally:
        giving_up.cancel()
        process.kill()
        process.wait(10)


@dataclass(frozen=True)
class Place:
    """A storage, and a browser that opens its addresses without being signed in."""

    storage: Storage
    http: httpx.AsyncClient
    folder: Path

    async def put(self, content: bytes = CONTENT, *, key: str | None = None, mime_type: str = "image/png") -> str:
        key = key or f"{uuid4()}/2026/11/{uuid4()}"
        file = self.folder / "incoming"
        file.write_bytes(content)
        await self.storage.put(key, file, mime_type=mime_type)
        return key

    async def read(self, key: str) -> tuple[int, bytes]:
        async with self.storage.open(key) as stored:
            return stored.size_bytes, b"".join([piece async for piece in stored.pieces])

    async def get(self, key: str, *, mime_type: str = "image/png", lives_s: int = 60) -> httpx.Response:
        now = datetime.now(UTC)
        signed = await self.storage.signed_url(
            key, filename="Grüße & mehr.png", mime_type=mime_type, now=now, lives_s=lives_s
        )
        assert timedelta(seconds=-1) <= signed.expires_at - now - timedelta(seconds=lives_s) <= timedelta(seconds=1)
        return await self.http.get(signed.url)


@asynccontextmanager
async def _of_folder(folder: Path) -> AsyncIterator[Place]:
    settings = ServedStorageSettings(dir=folder / "files", url_secret="s" * 32)  # type: ignore[arg-type]
    port = any_free_port()
    async with open_storage(settings, supabase_url=None) as storage:
        assert isinstance(storage, FolderStorage)
        app: FastAPI = new_app(summary="", description="")
        app.state.file_urls, app.state.file_folder = file_urls_of(settings), storage
        app.include_router(files.router)
        async with serving(app, host=HOST, port=port, drain_s=1), _browser(f"http://{HOST}:{port}") as http:
            yield Place(storage, http, folder)


@asynccontextmanager
async def _of_supabase(folder: Path, url: str, *, key: str = SECRET_KEY, bucket: str = "media") -> AsyncIterator[Place]:
    settings = ServedStorageSettings(service_key=key, bucket=bucket)  # type: ignore[arg-type]
    async with open_storage(settings, supabase_url=url) as storage, _browser(url) as http:
        yield Place(storage, http, folder)


def _browser(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False)


@pytest.fixture(params=["folder", "supabase"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "folder":
        async with _of_folder(tmp_path) as made:
            yield made
    else:
        async with _of_supabase(tmp_path, request.getfixturevalue("supabase_url")) as made:
            yield made


async def test_file_comes_back_as_it_was_until_it_is_deleted(place: Place) -> None:
    key = await place.put(b"first")
    await place.put(key=key)  # again: replaced

    assert await place.read(key) == (len(CONTENT), CONTENT)
    await place.storage.delete([key, f"{key}-thumbnail"])  # one of them was never there
    await place.storage.delete([])
    await place.storage.delete(["../../etc/passwd"])  # under which nothing is kept
    with pytest.raises(NotFound):
        await place.read(key)


async def test_address_serves_the_file_as_an_attachment_under_its_name(place: Place) -> None:
    key = await place.put()

    answer = await place.get(key)

    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, CONTENT, "image/png")
    if isinstance(place.storage, FolderStorage):
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert "Gr%C3%BC%C3%9Fe%20%26%20mehr.png" in answer.headers["content-disposition"]
    else:
        # lite 0.10.0 does not know `download`; of Supabase's Storage its documentation says so (2026-11-24).
        assert answer.request.url.params["download"] == "Grüße & mehr.png"


async def test_address_is_no_good_once_it_is_too_old_or_changed(place: Place) -> None:
    key, other = await place.put(), await place.put(b"other")

    good = (await place.get(key)).request.url
    old = await place.get(key, lives_s=-5) if urlsplit(str(good)).path.startswith("/api") else None
    moved = await place.http.get(str(good).replace(key, other))

    assert old is None or old.status_code == 404  # Supabase refuses to sign for the past
    assert moved.status_code in (400, 403, 404)
    assert b"other" not in moved.content


async def test_key_that_is_none_of_ours_is_no_file(place: Place) -> None:
    with pytest.raises(NotFound):
        await place.read("../../etc/passwd")


@pytest.mark.parametrize(("key", "bucket"), [("sb_secret_wrong", "media"), (SECRET_KEY, "nowhere")])
async def test_wrong_key_or_bucket_is_ours_to_mend_and_loses_nothing(
    supabase_url: str, tmp_path: Path, key: str, bucket: str
) -> None:
    async with _of_supabase(tmp_path, supabase_url, key=key, bucket=bucket) as place:
        with pytest.raises(Unavailable) as put:
            await place.put()
        if bucket == "nowhere":
            with pytest.raises(Unavailable):
                await place.read(f"{uuid4()}/2026/11/{uuid4()}")

    assert put.value.code == "storage_unavailable"


async def test_storage_that_cannot_be_reached_is_asked_later(tmp_path: Path) -> None:
    async with _of_supabase(tmp_path, "http://127.0.0.1:9") as place:
        with pytest.raises(Unavailable):
            await place.put()
