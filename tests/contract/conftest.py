"""What contract tests share: the sandbox as a real process, and a webhook of ours for it to post to."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.contract import lite

ROOT = Path(__file__).resolve().parents[2]
APP_SECRET = "contract-app-secret"
VERIFY_TOKEN = "contract-verify-token"
STORY: dict[str, Any] = {
    "users": [
        {
            "id": "0f3a9c7e-1111-4222-8333-444455556666",
            "email": "maya@casaverde.example",
            "password": "open sesame",
            "name": "Maya",
        }
    ],
    "channels": [
        {
            "workspace": "Casa Verde",
            "waba_id": "318204775196043",
            "phone_number_id": "402776318915527",
            "display_phone_number": "12025550143",
        }
    ],
    "customers": [{"name": "Ana Souza", "wa_id": "5511987650001", "user_id": "BR.1234567890123456"}],
}


@dataclass(frozen=True)
class Received:
    """One request as our webhook saw it."""

    raw: bytes
    signature: str
    content_type: str
    at: float

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def signed(self) -> bool:
        expected = hmac.new(APP_SECRET.encode(), self.raw, hashlib.sha256).hexdigest()
        return hmac.compare_digest(self.signature, f"sha256={expected}")


@dataclass
class Webhook:
    """A webhook that keeps what it gets and answers what it is told to."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)  # used up one by one; 200 when there is none

    def about(self, wamid: str) -> list[Received]:
        return [one for one in list(self.received) if json.dumps(wamid).encode().replace(b"/", b"\\/") in one.raw]


@dataclass(frozen=True)
class Sandbox:
    """The sandbox under test and what surrounds it."""

    url: str
    webhook: Webhook
    http: httpx.Client
    process: subprocess.Popen[str]
    output: list[str]

    def faults(self, **faults: Any) -> None:
        self.http.put("/sandbox/faults", json=faults).raise_for_status()

    def calls(self) -> dict[str, Any]:
        return dict(self.http.get("/sandbox/claude/calls").raise_for_status().json())

    def deliveries(self, wamid: str) -> list[dict[str, Any]]:
        shown = self.http.get("/sandbox/deliveries").raise_for_status().json()["deliveries"]
        return [one for one in shown if one["wamid"] == wamid]

    def type(self, text: str, **more: Any) -> str:
        asked = {"from": STORY["customers"][0], "phone_number_id": "402776318915527", "text": text} | more
        answer = self.http.post("/sandbox/messages", json=asked)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["wamid"])


def until(condition: Callable[[], Any], *, within_s: float = 10.0, what: str = "") -> Any:
    """Ask again and again until the answer is true; fails with a sentence when time is up."""
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"still not so after {within_s} s: {what or condition}")
        threading.Event().wait(0.01)
    return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    kept = Webhook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            kept.received.append(
                Received(
                    raw,
                    self.headers.get("X-Hub-Signature-256", ""),
                    self.headers.get("Content-Type", ""),
                    time.monotonic(),
                )
            )
            self.send_response(kept.answers.pop(0) if kept.answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            """Meta verifies a callback: the challenge goes back to who knows the token."""
            asked = dict(parse_qsl(urlsplit(self.path).query))
            known = asked.get("hub.mode") == "subscribe" and asked.get("hub.verify_token") == VERIFY_TOKEN
            self.send_response(200 if known else 403)
            self.send_header("Content-Length", str(len(asked["hub.challenge"]) if known else 0))
            self.end_headers()
            if known:
                self.wfile.write(asked["hub.challenge"].encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Stay quiet: what matters is kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    kept.url = f"http://127.0.0.1:{server.server_address[1]}/api/webhooks/whatsapp"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield kept
    server.shutdown()
    server.server_close()
    thread.join(5)


def start_sandbox(environment: dict[str, str]) -> tuple[subprocess.Popen[str], list[str]]:
    """Start `python -m deploy.sandbox` with exactly these SANDBOX_ variables; its output is gathered as it comes."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.sandbox"],
        cwd=ROOT,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output: list[str] = []

    def gather() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line.rstrip("\n"))
        process.stdout.close()

    threading.Thread(target=gather, daemon=True).start()
    return process, output


@pytest.fixture(scope="session")
def sandbox(webhook: Webhook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The sandbox as `make run` starts it, with one story, posting to `webhook`."""
    story = tmp_path_factory.mktemp("sandbox") / "story.json"
    story.write_text(json.dumps(STORY), "utf-8")
    port = free_port()
    process, output = start_sandbox(
        {
            "SANDBOX_PORT": str(port),
            "SANDBOX_WEBHOOK_URL": webhook.url,
            "SANDBOX_APP_SECRET": APP_SECRET,
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
        yield Sandbox(url, webhook, http, process, output)
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


@pytest.fixture
def calm(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The sandbox with no fault switched on and nothing counted, before the test and after it."""

    def settle() -> None:
        sandbox.faults()
        # A delivery of the test before must not use up an answer meant for this one.
        until(lambda: sandbox.http.get("/sandbox/deliveries").json()["pending"] == 0, what="nothing under way")
        sandbox.webhook.answers.clear()
        sandbox.http.delete("/sandbox/claude/calls").raise_for_status()

    settle()
    yield sandbox
    settle()


@pytest.fixture(scope="session")
def supabase_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lite.SupabaseLite]:
    """Supabase's REST and Auth APIs with our migrations."""
    yield from lite.start(tmp_path_factory.mktemp("supabase"))


@pytest.fixture
def supabase(supabase_process: lite.SupabaseLite) -> lite.SupabaseLite:
    """The same, with nobody and nothing in it."""
    return supabase_process.clear()
