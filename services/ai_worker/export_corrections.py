"""Write what agents corrected as labelled examples for the evaluation: lines of JSON with nothing personal in them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import Field

from services.ai_worker.analyse_conversation import intents_of
from services.ai_worker.examples import Correction, Example, example_from_correction
from services.ai_worker.message_analysis import Turn
from services.ai_worker.redaction import Redactor
from shared.settings.groups import DatabaseUnlessRest, ProcessSettings, SupabaseServiceSettings
from shared.store.choose import open_store
from shared.store.corrections import every_correction
from shared.store.port import Store

_UNLABELLED = {"sentiment_score"}  # how strong a feeling is, is not judged


class ExportSettings(ProcessSettings):
    """`python -m services.ai_worker export-corrections`: asks nobody but the database."""

    supabase: SupabaseServiceSettings = SupabaseServiceSettings()
    database: DatabaseUnlessRest = Field(default_factory=dict, validate_default=True)


@dataclass(frozen=True, slots=True)
class Exported:
    """How many examples were written, and how many corrections make none: a gone intent, a text nobody can redact."""

    examples: int
    left_out: int


async def export(settings: ExportSettings, *, workspace_id: UUID, out: Path) -> Exported:
    """Write the examples of one workspace. Raises: Unavailable; OSError when the file cannot be written."""
    async with open_store(settings.database, settings.supabase.rest(), service_role="service_role") as store:
        return await write_corrections(store, workspace_id=workspace_id, out=out)


async def write_corrections(store: Store, *, workspace_id: UUID, out: Path) -> Exported:
    """Write them to a file, which is replaced; the same conversation corrected twice is one example."""
    examples: dict[str, Example] = {}
    left_out = 0
    async for row in every_correction(store, workspace_id):
        try:
            # One redactor for each: a number is the same placeholder wherever it stands in a conversation.
            example = example_from_correction(_correction(row), redact=Redactor().text)
        except ValueError:  # pydantic's, and NotRedacted
            left_out += 1
        else:
            examples[example.id] = example
    lines = "".join(f"{example.line()}\n" for example in examples.values())
    await asyncio.to_thread(out.write_text, lines, "utf-8")
    return Exported(len(examples), left_out)


def _correction(row: Mapping[str, Any]) -> Correction:
    return Correction(
        text=row["content"],
        history=tuple(Turn(h["direction"] == "inbound", h["content"]) for h in row["history"] if h["content"]),
        fields={name: value for name, value in row["fields"].items() if name not in _UNLABELLED},
        intents=intents_of(row["intents"]) or None,
        tone=row["tone"] if isinstance(row["tone"], str) else None,
        is_reply_window_open=row["is_reply_window_open"],
    )
