"""What tests of files share: an agent's side of them over HTTP, a customer's on rows, and Meta's sandbox."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from PIL import Image
from structlog.testing import capture_logs

from deploy.local.ports import HOST, any_free_port
from services.sender.chores import Chore
from services.sender.download import Downloads
from services.sender.fetch_media import FetchMedia
from services.sender.graph import open_graph
from services.sender.media_shapes import MediaFile, MediaUrl
from services.sender.serve_media import serve_media
from shared.auth.tokens import TokenVerifier
from shared.settings.clocks import Clocks
from shared.storage.file_urls import FileUrls
from shared.storage.folder import FolderStorage
from shared.storage.settings import ServedStorageSettings
from shared.store.media import MediaWork, Uploads
from shared.store.postgres import PostgresTransport
from shared.store.webhooks import Webhooks
from shared.web.app import Observe, new_app
from shared.web.serve import serving
from tests.contract.conftest import free_port, start_sandbox, until
from tests.integration.test_api import ISSUER, SECRET, Client
from tests.world import PHONE_A, WABA_A, World, received, text_message, webhook

MEDIA = "/api/whatsapp/media"
STORY = {
    "channels": [{"waba_id": WABA_A, "phone_number_id": PHONE_A, "display_phone_number": "12025550143"}],
    "meta": {"tokens": [{"token": "good"}]},
}
HTML = b"<!DOCTYPE html><script>alert(1)</script>"


def png(size: tuple[int, int] = (640, 320), colour: str = "red") -> bytes:
    packed = io.BytesIO()
    Image.new("RGB", size, colour).save(packed, "PNG")
    return packed.getvalue()


PNG = png()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The sandbox's Meta, at its base address."""
    story = tmp_path_factory.mktemp("sandbox") / "story.json"
    story.write_text(json.dumps(STORY), "utf-8")
    port = free_port()
    process, output = start_sandbox(
        {
            "SANDBOX_PORT": str(port),
            "SANDBOX_WEBHOOK_URL": "http://127.0.0.1:9/nobody-listens",
            "SANDBOX_APP_SECRET": "integration-app-secret",
            "SANDBOX_STORY": str(story),
        }
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:

        def is_up() -> bool:
            assert process.poll() is None, "\n".join(output)
            try:
                return http.get("/live").status_code == 200
            except httpx.TransportError:
                return False

        until(is_up, within_s=20, what="the sandbox answers")
        yield http
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()


@dataclass(frozen=True)
class Office:
    """An agent's side of files, over HTTP, and the folder they are in."""

    client: Client
    http: httpx.AsyncClient
    folder: Path
    storage: FolderStorage
    user: UUID
    workspace: UUID

    async def post(self, content: Any, *, kind: str = "image", name: str = "a.png", **more: Any) -> httpx.Response:
        """Upload a file. more: user, key, workspace, and further query parameters."""
        user = more.pop("user", self.user)
        headers = {"idempotency-key": more.pop("key")} if "key" in more else {}
        params = {"workspace_id": str(more.pop("workspace", self.workspace)), "kind": kind} | more
        return await self.client.ask(
            MEDIA,
            method="POST",
            user=user,
            params=params,
            headers=headers,
            files={"file": (name, content, "application/octet-stream")},
        )

    async def upload(self, content: bytes, **more: Any) -> MediaFile:
        answer = await self.post(content, **more)
        assert answer.status_code == 201, answer.text
        return MediaFile.model_validate_json(answer.content)

    async def url(self, media_id: UUID, **more: Any) -> MediaUrl:
        answer = await self.ask(media_id, **more)
        assert answer.status_code == 200, answer.text
        return MediaUrl.model_validate_json(answer.content)

    async def ask(self, media_id: UUID, *, user: UUID | None = None) -> httpx.Response:
        params = {"workspace_id": str(self.workspace)}
        return await self.client.ask(f"{MEDIA}/{media_id}", user=user or self.user, params=params)

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
async def office(api_store: PostgresTransport, world: World, tmp_path: Path) -> AsyncIterator[Office]:
    settings = ServedStorageSettings(dir=tmp_path, url_secret="s" * 32)  # type: ignore[arg-type]
    storage = FolderStorage(tmp_path, FileUrls(b"s" * 32))
    port = any_free_port()
    async with httpx.AsyncClient(trust_env=False) as nowhere:
        app = new_app(summary="", description="")
        app.state.verifier = TokenVerifier(issuer=ISSUER, hs256_secret=SECRET, http=nowhere)
        serve_media(app, uploads=Uploads(api_store), storage=storage, settings=settings)
        async with (
            serving(Observe(app), host=HOST, port=port, drain_s=1),
            httpx.AsyncClient(base_url=f"http://{HOST}:{port}", trust_env=False) as http,
        ):
            with capture_logs():
                yield Office(Client(http), http, tmp_path, storage, world.owner_a, world.workspace_a)


@dataclass(frozen=True)
class Fetching:
    """A customer's file on a row of ours, and what fetches it."""

    admin: psycopg.AsyncConnection
    store: PostgresTransport
    fetch: FetchMedia
    world: World

    async def arrive(
        self, meta_id: str, *, kind: str = "image", mime_type: str = "image/png", sha256: str | None = None
    ) -> Chore:
        """Record the webhook of a file; return the chore that asked for it."""
        file = {"id": meta_id, "mime_type": mime_type} | ({"sha256": sha256} if sha256 else {})
        await Webhooks(self.store).record([received(file_webhook(kind, file))], settle_s=0)
        row = await self.one(
            "select id, channel_id, payload, message_id, expires_at from app.outbox where kind = 'media_fetch'"
            " order by created_at desc limit 1"
        )
        return Chore(
            workspace_id=self.world.workspace_a,
            id=row[0],
            channel_id=row[1],
            phone_number_id=PHONE_A,
            waba_id=WABA_A,
            token="good",
            kind="media_fetch",
            payload=row[2],
            lane=None,
            message_id=row[3],
            attempt=1,
            expires_at=row[4],
        )

    async def one(self, query: str, *args: object) -> tuple[Any, ...]:
        row = await (await self.admin.execute(query.encode(), args)).fetchone()
        assert row is not None
        return tuple(row)

    async def media(self, chore: Chore, columns: str = "state") -> tuple[Any, ...]:
        return await self.one(f"select {columns} from public.media where id = %s", chore.payload["media_id"])  # noqa: S608  ours


@asynccontextmanager
async def fetching(
    base_url: str, office: Office, admin: psycopg.AsyncConnection, store: PostgresTransport, world: World, **more: Any
) -> AsyncIterator[Fetching]:
    async with open_graph(base_url, clocks=Clocks(), connections=4) as graph:
        hosts = more.pop("hosts", ("127.0.0.1",))
        fetch = FetchMedia(
            media=MediaWork(store),
            storage=office.storage,
            downloads=Downloads(graph, hosts=hosts, folder=office.storage.spool_dir),
            timeout_s=more.pop("timeout_s", 10.0),
            now=lambda: datetime.now(UTC),
        )
        yield Fetching(admin, store, fetch, world)


@pytest.fixture
async def from_meta(
    sandbox: httpx.Client,
    office: Office,
    admin: psycopg.AsyncConnection,
    service_store: PostgresTransport,
    world: World,
) -> AsyncIterator[Fetching]:
    await asyncio.to_thread(sandbox.post, "/sandbox/graph/reset")
    async with fetching(f"{sandbox.base_url}/graph/v26.0", office, admin, service_store, world) as made:
        yield made


def file_webhook(kind: str, file: dict[str, str]) -> bytes:
    """What Meta posts when a customer sends a file."""
    said = text_message("", wamid=f"wamid.{uuid4()}")
    said["message"] |= {"type": kind, kind: file}
    said["message"].pop("text")
    return webhook(said)


def one_file_form(content: bytes) -> tuple[AsyncIterator[bytes], str]:
    """A form with one file in it, and its content type."""

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        yield content
        yield b"\r\n--b--\r\n"

    return body(), "multipart/form-data; boundary=b"
