"""Sums from a process's /metrics page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

Sums = Mapping[str, float]


async def sums(port: int) -> Sums:
    """Return each sample's value by name (`x_sum`, `x_count`, `x_total`), added up over its labels."""
    page = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/metrics", timeout=10)
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page.raise_for_status().text):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


async def is_ready(port: int) -> bool:
    """Tell whether a process's internal port says it is ready."""
    try:
        return (await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/ready", timeout=5)).status_code == 200
    except httpx.HTTPError:
        return False


def seconds_spent(before: Sums, after: Sums, metric: str) -> float | None:
    """Return what a histogram's or counter's seconds grew by; None when the process has no such metric."""
    for name in (f"{metric}_sum", metric):
        if name in after:
            return after[name] - before.get(name, 0.0)
    return None
