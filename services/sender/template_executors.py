"""Executors of everything about templates."""

from __future__ import annotations

from datetime import UTC, datetime

from services.sender.chores import Executor
from services.sender.delete_template import DeleteTemplate
from services.sender.graph import Graph
from services.sender.read_template_analytics import ReadTemplateAnalytics
from services.sender.submit_template import SubmitTemplate
from services.sender.sync_templates import SyncTemplates
from services.sender.template_samples import TemplateSamples
from shared.storage.port import Storage
from shared.store.media import MediaWork
from shared.store.port import Store
from shared.store.templates import TemplateWork


def template_executors(*, graph: Graph, store: Store, storage: Storage, upload_timeout_s: float) -> dict[str, Executor]:
    """Return them by kind. upload_timeout_s: for one sample file of a header."""
    templates = TemplateWork(store)

    def now() -> datetime:
        return datetime.now(UTC)

    samples = TemplateSamples(graph=graph, media=MediaWork(store), storage=storage, timeout_s=upload_timeout_s)
    analytics = ReadTemplateAnalytics(graph=graph, templates=templates, now=now)
    return {
        "template_submit": SubmitTemplate(graph=graph, templates=templates, samples=samples, now=now),
        "template_delete": DeleteTemplate(graph=graph, templates=templates, now=now),
        "template_sync": SyncTemplates(graph=graph, templates=templates, analytics=analytics, now=now),
    }
