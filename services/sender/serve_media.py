"""Adds files to the sender's web app."""

from __future__ import annotations

from fastapi import FastAPI

from services.sender.routes import files, media
from shared.storage.folder import FolderStorage
from shared.storage.open_storage import file_urls_of
from shared.storage.port import Storage
from shared.storage.settings import ServedStorageSettings
from shared.store.media import Uploads


def serve_media(app: FastAPI, *, uploads: Uploads, storage: Storage, settings: ServedStorageSettings) -> None:
    """Take uploads and give out addresses; serve the addresses too, where files are in a folder.

    `app.state.verifier` is the app's own. Routes under /api/whatsapp/files are open: the address is the permission.
    """
    app.state.media = media.MediaDesk(uploads, storage, settings.url_lives_s)
    app.state.file_urls = file_urls_of(settings)
    app.state.file_folder = storage if isinstance(storage, FolderStorage) else None
    app.include_router(media.router)
    app.include_router(files.router)
