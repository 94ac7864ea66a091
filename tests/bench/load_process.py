"""The other end of `webhook_load`: start it, let it go, hear what happened."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict

from deploy.local.places import ROOT
from tests.bench.webhook_load import Plan, Sent

_MAKING_S = 300.0  # a minute's worth takes seconds


class LoadProcess:
    """A load generator that has its requests ready and waits for the word."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def ready(self, plan: Plan) -> None:
        """Hand it the plan and wait until its requests are made."""
        await self._say(json.dumps(asdict(plan)))
        async with asyncio.timeout(_MAKING_S):
            if await self._hear() != "ready":
                raise RuntimeError("the load generator did not get ready")

    async def go(self) -> None:
        """Start its clock."""
        await self._say("go")

    async def sent(self, *, within_s: float) -> Sent:
        """Return what happened. Raises: RuntimeError if not every answer was 200; TimeoutError."""
        async with asyncio.timeout(within_s):
            said = await self._hear()
        if not said:
            raise RuntimeError("the load generator died")
        sent = Sent(**json.loads(said))
        if sent.refused:
            raise RuntimeError(f"not every webhook got 200: {sent.refused}")
        return sent

    async def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    async def _hear(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()


@contextlib.asynccontextmanager
async def load_process(plan: Plan) -> AsyncIterator[LoadProcess]:
    """Start one, ready to go; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.webhook_load",
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        load = LoadProcess(process)
        await load.ready(plan)
        yield load
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
