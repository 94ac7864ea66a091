"""The sandbox's Claude for a run without a key: started by the run itself, gone with it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
_READY_WITHIN_S = 20.0
# It wants a story of Meta's side, and a webhook; nobody uses them here.
_STORY: dict[str, list[object]] = {"users": [], "channels": [], "customers": []}


class SandboxDidNotStart(Exception):
    """The sandbox ended, or did not answer in time."""


@asynccontextmanager
async def sandbox(*, latency_ms: int = 0) -> AsyncIterator[str]:
    """Run the sandbox on a free port of this machine; yield its address. Raises: SandboxDidNotStart."""
    with tempfile.TemporaryDirectory(prefix="evals-") as folder:
        story = Path(folder) / "story.json"
        story.write_text(json.dumps(_STORY), "utf-8")
        port = _free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.sandbox"),
            cwd=ROOT,
            env=kept
            | {
                "SANDBOX_PORT": str(port),
                "SANDBOX_WEBHOOK_URL": "http://127.0.0.1:9/",  # nothing is delivered
                "SANDBOX_APP_SECRET": "unused",
                "SANDBOX_STORY": str(story),
                "SANDBOX_LATENCY_MS": str(latency_ms),
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            await _until_ready(url, process)
            yield url
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 5)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _until_ready(url: str, process: asyncio.subprocess.Process) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=2, trust_env=False) as http:
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                while process.returncode is None:
                    try:
                        if (await http.get("/live")).status_code == 200:
                            return
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
        except TimeoutError:
            raise SandboxDidNotStart(f"the sandbox did not answer within {_READY_WITHIN_S:.0f} s") from None
    raise SandboxDidNotStart(
        f"the sandbox ended with status {process.returncode}; try it alone: python -m deploy.sandbox"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
