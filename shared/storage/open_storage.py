"""Which storage a process gets: the folder where STORAGE_DIR is set, Supabase Storage otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from shared.storage.file_urls import FileUrls
from shared.storage.folder import FolderStorage
from shared.storage.port import Storage
from shared.storage.settings import ReadStorageSettings, ServedStorageSettings, StorageSettings
from shared.storage.supabase import SupabaseStorage

# Between two pieces of a file; the whole has the deadline of whoever moves it.
_TIMEOUT = httpx.Timeout(30.0, connect=5.0, pool=10.0)
_CONNECTIONS = httpx.Limits(max_connections=16, max_keepalive_connections=8)


@asynccontextmanager
async def open_storage(settings: StorageSettings, *, supabase_url: str | None) -> AsyncIterator[Storage]:
    """Return the storage for the life of a process. Opening waits for nobody."""
    if settings.dir is not None:
        yield FolderStorage(settings.dir, file_urls_of(settings))
        return
    if settings.service_key is None or supabase_url is None:
        raise ValueError("neither STORAGE_DIR nor STORAGE_SERVICE_KEY is set")  # the settings saw to it
    async with httpx.AsyncClient(timeout=_TIMEOUT, limits=_CONNECTIONS, trust_env=False) as http:
        yield SupabaseStorage(
            http, url=supabase_url, key=settings.service_key.get_secret_value(), bucket=settings.bucket
        )


@asynccontextmanager
async def open_storage_if_any(
    settings: ReadStorageSettings, *, supabase_url: str | None
) -> AsyncIterator[Storage | None]:
    """Return the storage, or None for a process that was given none."""
    if not settings.is_set:
        yield None
        return
    async with open_storage(settings, supabase_url=supabase_url) as storage:
        yield storage


def file_urls_of(settings: StorageSettings) -> FileUrls | None:
    """Return what signs and reads addresses of files in the folder; None in a process that gives out none."""
    if not isinstance(settings, ServedStorageSettings) or settings.dir is None or settings.url_secret is None:
        return None
    return FileUrls(settings.url_secret.get_secret_value().encode(), public_url=settings.public_url)
