"""What the stack costs while nothing happens, and how long it takes to be there."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from deploy.local.ports import any_free_port
from deploy.local.postgres import embedded_postgres
from deploy.local.stack import started_stack
from tests.bench.figure import Figure
from tests.bench.memory import proportional_mib


async def measure() -> list[Figure]:
    """Start the whole stack from nothing, let it rest, read each process's resident memory."""
    with tempfile.TemporaryDirectory() as folder:
        bare_mb = await _bare_python_mb()
        started = time.perf_counter()
        async with embedded_postgres(Path(folder) / "alone", port=any_free_port()):
            postgres_s = time.perf_counter() - started
        started = time.perf_counter()
        async with started_stack(Path(folder) / "stack", ("--quiet",)) as stack:
            ready_s = time.perf_counter() - started
            await asyncio.sleep(10)  # resting: caches filled, pools at their least
            resting = {name: proportional_mib(pid) for name, pid in stack["pids"].items()}
    figures = [Figure("idle.ready_s", ready_s, "s", postgres_s, "initdb and start of PostgreSQL alone")]
    figures += [Figure(f"idle.{n}_mb", mb, "MiB", bare_mb, "a bare Python process") for n, mb in resting.items()]
    return figures


async def _bare_python_mb() -> float:
    bare = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "print(flush=True); input()",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert bare.stdout is not None
    await bare.stdout.readline()
    mb = proportional_mib(bare.pid)
    bare.kill()
    await bare.wait()
    return mb
