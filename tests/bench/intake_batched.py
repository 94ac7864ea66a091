"""Events per second from accept to committed rows, a hundred items a body; otherwise as `intake_end_to_end`."""

from __future__ import annotations

from tests.bench import intake_end_to_end
from tests.bench.figure import Figure
from tests.bench.sustained import BATCHED


async def measure() -> list[Figure]:
    """Run ingest and one recorder under this load."""
    return await intake_end_to_end.measure(BATCHED)
