"""What integration tests add to the servers: the sandbox as a real process, for those who ask Claude."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.contract.conftest import STORY, free_port, start_sandbox, until


@dataclass(frozen=True)
class ClaudeSandbox:
    """The sandbox's Claude: its switches and its record of calls."""

    url: str
    http: httpx.Client

    def fault(self, mode: str = "none", **more: Any) -> None:
        """Switch a fault on, in place of the one before; without arguments: none, and no latency."""
        self.http.put("/sandbox/faults", json={"claude": {"mode": mode, **more}}).raise_for_status()

    def record(self) -> dict[str, Any]:
        return dict(self.http.get("/sandbox/claude/calls").raise_for_status().json())

    @property
    def calls(self) -> int:
        return int(self.record()["count"])

    @property
    def in_flight(self) -> int:
        return int(self.record()["in_flight"])

    @property
    def messages_per_call(self) -> list[int]:
        return [call["refs_seen"] for call in self.record()["calls"]]


@pytest.fixture(scope="session")
def claude_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClaudeSandbox]:
    """The sandbox, answering at once."""
    story = tmp_path_factory.mktemp("sandbox") / "story.json"
    story.write_text(json.dumps(STORY), "utf-8")
    port = free_port()
    process, output = start_sandbox(
        {
            "SANDBOX_PORT": str(port),
            "SANDBOX_WEBHOOK_URL": "http://127.0.0.1:9/nobody-listens",
            "SANDBOX_APP_SECRET": "integration-app-secret",
            "SANDBOX_STORY": str(story),
            "SANDBOX_LATENCY_MS": "0",
        }
    )
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as http:

        def is_up() -> bool:
            assert process.poll() is None, "\n".join(output)
            try:
                return http.get("/live").status_code == 200
            except httpx.TransportError:
                return False

        until(is_up, within_s=20, what="the sandbox answers")
        yield ClaudeSandbox(url, http)
    process.terminate()
    process.wait(5)


@pytest.fixture
def claude(claude_process: ClaudeSandbox) -> Iterator[ClaudeSandbox]:
    """The sandbox's Claude without a fault, nothing counted yet; nothing of the test before under way."""
    claude_process.fault()
    until(lambda: claude_process.in_flight == 0, what="no call under way")
    claude_process.http.delete("/sandbox/claude/calls").raise_for_status()
    yield claude_process
    claude_process.fault()
