"""Which verb does which kind of chore. A kind that is not here is not claimed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from services.sender.aftermath import Aftermath
from services.sender.chores import Executor
from services.sender.download import Downloads
from services.sender.fetch_media import FetchMedia
from services.sender.graph import Graph
from services.sender.number_executors import number_executors
from services.sender.settings import DispatcherSettings
from services.sender.template_executors import template_executors
from services.sender.upload_media import UploadMedia
from shared.storage.port import Storage
from shared.store.channels import ChannelWork
from shared.store.media import MediaWork
from shared.store.outbox import Outbox
from shared.store.port import Store

# They take as long as a line is slow: they have slots of their own, so that a typing mark never waits for a film.
SLOW = frozenset({"media_fetch", "media_upload", "template_submit", "template_sync"})


def executors(
    *, graph: Graph, store: Store, storage: Storage, settings: DispatcherSettings, released: Callable[[], None]
) -> dict[str, Executor]:
    """Return every executor by the kind it does; each is given what it needs and no more.

    released: told when messages that waited for a file may go.
    """
    outbox = Outbox(store)
    media, transfer_timeout_s = MediaWork(store), settings.media.transfer_timeout_s
    return {
        "aftermath": Aftermath(outbox=outbox),
        **number_executors(graph=graph, channels=ChannelWork(store), outbox=outbox),
        "media_fetch": FetchMedia(
            media=media,
            storage=storage,
            downloads=Downloads(graph, hosts=settings.media.hosts, folder=storage.spool_dir),
            timeout_s=transfer_timeout_s,
            now=lambda: datetime.now(UTC),
        ),
        "media_upload": UploadMedia(
            media=media, storage=storage, graph=graph, timeout_s=transfer_timeout_s, released=released
        ),
        **template_executors(graph=graph, store=store, storage=storage, upload_timeout_s=transfer_timeout_s),
    }
