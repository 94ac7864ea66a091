"""`make compose-smoke`: build the image, start everything as docker-compose.yml says, use it, break it, look at it.

Uses the container engine that is there. Where there is none, and this is Debian as root, makes one of its own from
Debian's packages with stand-ins for the base images (see `engine`, `stand_ins`), in namespaces that vanish with it.
It works on a copy of the checkout in a folder of its own, talks to nothing but loopback, and stops by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import hashlib
import hmac
import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from PIL import Image
from rich.console import Console
from rich.markup import escape

from deploy.compose import engine, stand_ins
from deploy.local.story import CASA_VERDE, INES, PASSWORD

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".local" / "compose-smoke"  # packages and stand-ins; kept for the next run
PROJECT = "parley-smoke"
HTTPS, HTTP = 18443, 18080
BASE = f"https://localhost:{HTTPS}"
WEBHOOK = "/api/webhooks/whatsapp"
RELOAD_EVERY_S = 10
BODY_DEADLINE_S = RELOAD_EVERY_S + 120 + 5  # plus nginx's worker_shutdown_timeout, and slack
MOST_S = 900  # of everything together
NO_ENGINE = 3  # exit status

PROCESSES = ("ingest", "recorder", "ai_worker", "api", "sender", "dispatcher")
ONE_SHOT = ("migrate", "logins")
SCALED = tuple(
    part
    for copies in ("ingest=2", "recorder=2", "ai_worker=3", "sender=2", "dispatcher=2")
    for part in ("--scale", copies)
)


class Failed(Exception):
    """A promise is not kept."""


def check(holds: object, what: str) -> None:
    """Raise Failed unless it holds."""
    if not holds:
        raise Failed(what)


@dataclass
class Report:
    """What a person sees."""

    console: Console = field(default_factory=lambda: Console(highlight=False))
    started_at: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Show a step while the block runs; the block may add a note."""
        began = time.monotonic()
        notes: list[str] = []
        status = self.console.status(f"{title} …") if self.console.is_terminal else contextlib.nullcontext()
        mark = "[red]✗[/]"
        try:
            with status:
                yield notes.append
            mark = "[green]✓[/]"
        finally:
            took = f"[dim]{time.monotonic() - began:6.1f} s[/]"
            self.console.print(f"{mark} {title:<34} {took}  [dim]{escape(', '.join(notes))}[/]", soft_wrap=True)


@dataclass(frozen=True)
class Compose:
    """Runs `docker compose` on the project's copy."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str, timeout_s: float = 300, may_fail: bool = False) -> str:
        """Return what a compose command printed. Raises: Failed."""
        return self.docker("compose", "-p", PROJECT, *arguments, timeout_s=timeout_s, may_fail=may_fail)

    def docker(self, *arguments: str, timeout_s: float = 300, may_fail: bool = False) -> str:
        """Return what a docker command printed. Raises: Failed."""
        said = subprocess.run(
            ["docker", *arguments],
            cwd=self.folder,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if said.returncode != 0 and not may_fail:
            raise Failed(f"docker {' '.join(arguments[:6])}: {(said.stdout + said.stderr).strip()[-2500:]}")
        return said.stdout

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """Return what the engine knows of the project's containers."""
        filters = [f"label=com.docker.compose.project={PROJECT}", "label=com.docker.compose.oneoff=False"]
        if service:
            filters.append(f"label=com.docker.compose.service={service}")
        ids = self.docker("ps", "-aq", *(part for one in filters for part in ("--filter", one))).split()
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *ids)) if ids else []
        return sorted(found, key=lambda container: str(container["Name"]))

    def kill(self, container: Mapping[str, Any]) -> None:
        """kill -9 a container's first process, as a crash does: `docker kill` would count as stopped on purpose."""
        pid = int(container["State"]["Pid"])
        if os.geteuid() == 0 and Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)
        else:  # the engine is in a machine of its own
            self.docker("restart", "-t", "0", str(container["Id"]))


@dataclass
class Meta:
    """Posts webhooks through nginx, signed as Meta signs them."""

    client: httpx.Client
    secret: bytes
    sent: dict[str, str] = field(default_factory=dict)  # wamid → text
    answers: dict[int, int] = field(default_factory=dict)

    def post(self, body: bytes, *, secret: bytes | None = None, **headers: str) -> httpx.Response:
        signature = hmac.new(secret or self.secret, body, hashlib.sha256).hexdigest()
        return self.client.post(
            f"{BASE}{WEBHOOK}", content=body, headers={"x-hub-signature-256": f"sha256={signature}", **headers}
        )

    def say(self, text: str, *, customer: int, padding: int = 0) -> None:
        """Deliver a customer's message; try again until 200, as Meta does. Raises: Failed after a minute."""
        wamid = f"wamid.smoke.{time.time_ns()}.{customer}"
        body = _body(text, wamid=wamid, customer=customer, padding=padding)
        give_up_at = time.monotonic() + 60
        while True:
            try:
                status = self.post(body).status_code
            except httpx.TransportError:
                status = 0
            self.answers[status] = self.answers.get(status, 0) + 1
            if status == 200:
                self.sent[wamid] = text
                return
            check(status in (0, 503), f"a signed webhook was answered {status}")
            check(time.monotonic() < give_up_at, "a signed webhook was not accepted for a minute")
            time.sleep(0.3)


def _body(text: str, *, wamid: str, customer: int, padding: int = 0) -> bytes:
    channel = CASA_VERDE.channels[0]
    user = f"US.77{customer:04d}"
    value = {
        "messaging_product": "whatsapp",
        "metadata": {
            "display_phone_number": channel.display_phone_number,
            "phone_number_id": channel.phone_number_id,
        },
        "contacts": [{"profile": {"name": f"Smoke {customer}"}, "user_id": user, "wa_id": f"1202555{customer:04d}"}],
        "messages": [
            {
                "from": f"1202555{customer:04d}",
                "from_user_id": user,
                "id": wamid,
                "timestamp": str(int(time.time())),
                "type": "text",
                "text": {"body": text},
            }
        ],
    }
    body = {
        "object": "whatsapp_business_account",
        "entry": [{"id": channel.waba_id, "changes": [{"field": "messages", "value": value}]}],
    }
    return json.dumps(body).encode() + b" " * padding


@dataclass
class Agent:
    """Reads the API through nginx, signed in."""

    client: httpx.Client
    token: str = ""

    def sign_in(self) -> None:
        answer = self.client.post(
            f"{BASE}/auth/v1/token",
            params={"grant_type": "password"},
            json={"email": INES.email, "password": PASSWORD},
        )
        check(answer.status_code == 200, f"signing in was answered {answer.status_code}")
        self.token = answer.json()["access_token"]

    def get(self, path: str, **query: str) -> Any:
        """Read as the signed-in person; 503 and broken connections are tried again for a while."""
        give_up_at = time.monotonic() + 45
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self.client.get(
                    f"{BASE}{path}",
                    params={"workspace_id": CASA_VERDE.id, **query},
                    headers={"authorization": f"Bearer {self.token}"},
                )
                if answer.status_code == 200:
                    return answer.json()
                check(answer.status_code in (502, 503, 504), f"GET {path} was answered {answer.status_code}")
            check(time.monotonic() < give_up_at, f"GET {path} was not answered for 45 s")
            time.sleep(0.3)

    def post(self, path: str, *, body: Any = None, file: bytes | None = None, **query: str) -> Any:
        """Ask for something as the signed-in person, once."""
        answer = self.client.post(
            f"{BASE}{path}",
            params={"workspace_id": CASA_VERDE.id, **query},
            headers={"authorization": f"Bearer {self.token}", "idempotency-key": str(uuid.uuid4())},
            json=body,
            files={"file": ("leaf.png", file, "image/png")} if file else None,
        )
        check(answer.is_success, f"POST {path} was answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()

    def until_read(self, sent: Sequence[str], *, within_s: float) -> float:
        """Wait until each message of ours is read; return the seconds it took."""
        began = time.monotonic()
        while True:
            found = {m["id"]: m["status"] for m in self.messages()}
            waiting = [found.get(one) for one in sent if found.get(one) != "read"]
            if not waiting:
                return time.monotonic() - began
            check(time.monotonic() - began < within_s, f"replies are not read after {within_s:.0f} s: {waiting}")
            time.sleep(0.5)

    def messages(self) -> list[dict[str, Any]]:
        """Every message of every conversation."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.get("/api/whatsapp/conversations", limit="100", **({"cursor": cursor} if cursor else {}))
            for conversation in page["items"]:
                before: str | None = None
                while True:
                    part = self.get(
                        f"/api/whatsapp/conversations/{conversation['id']}/messages",
                        limit="100",
                        **({"before": before} if before else {}),
                    )
                    found += part["items"]
                    before = part["next_cursor"]
                    if before is None:
                        break
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def wait_for(self, sent: Mapping[str, str], *, within_s: float) -> float:
        """Wait until each message is there once and analysed; return the seconds it took."""
        began = time.monotonic()
        while True:
            messages = self.messages()
            wamids = [message["wamid"] for message in messages if message["wamid"] in sent]
            check(len(wamids) == len(set(wamids)), "a message is there twice")
            done = {m["wamid"] for m in messages if (m.get("analysis") or {}).get("state") == "done" and m["sentiment"]}
            missing = set(sent) - done
            if not missing:
                return time.monotonic() - began
            if time.monotonic() - began > within_s:
                states = {m["wamid"]: (m.get("analysis") or {}).get("state") for m in messages}
                told = sorted({str(states.get(wamid, "no row")) for wamid in missing})
                raise Failed(f"{len(missing)} of {len(sent)} messages are not analysed after {within_s:.0f} s: {told}")
            time.sleep(0.5)


# ── what is checked ──


class Smoke:
    """The whole test, on an engine that runs."""

    def __init__(self, report: Report, environment: Mapping[str, str], *, folder: Path) -> None:
        self._report = report
        self._folder = folder
        self._compose = Compose(folder, environment)
        self._meta: Meta
        self._agent: Agent
        self._env: dict[str, str] = {}

    def run(self) -> None:
        """Raises: Failed."""
        step = self._report.step
        with step("Settings (make env)") as note:
            self._write_env()
            note(".env is private, and not written over")
        with step("Image") as note:
            self._compose.run("--progress", "plain", "build", timeout_s=600)
            note(self._image_size())
        with step("docker compose up --wait") as note:
            self._up()
            note(f"{len(self._compose.containers())} containers")
        with step("Sign in, write, analyse") as note:
            self._connect()
            for number in range(10):
                self._meta.say(f"Where is my order? It is late. {number}", customer=number % 3)
            note(f"10 messages in {self._agent.wait_for(self._meta.sent, within_s=60):.1f} s")
        with step("Answer, with a picture") as note:
            note(self._answer())
        with step("Doctor") as note:
            note(self._doctor())
        with step("Hardening, by inspection") as note:
            note(self._look_at_containers())
        slow = threading.Thread(target=self._slow_bodies, daemon=True)
        slow.start()
        with step("nginx refuses what it should") as note:
            note(self._try_nginx())
        with step("A header byte a second") as note:
            note(f"cut after {self._slow_header():.0f} s")
        with step("Meta's client certificate") as note:
            note(self._ask_for_certificate())
        with step("migrate again") as note:
            note(self._compose.run("run", "--rm", "--no-deps", "migrate").strip().splitlines()[-1])
        with step("At rest") as note:
            note("; ".join(f"{name} {size}" for name, size in self._memory().items()))
        with step("Scale out") as note:
            self._up("--no-recreate", *SCALED)
            note(", ".join(SCALED[1::2]))
        with step("Kill and restart under load") as note:
            note(self._break_things())
        with step("Every message once, analysed") as note:
            took = self._agent.wait_for(self._meta.sent, within_s=90)
            note(f"{len(self._meta.sent)} messages, the last {took:.1f} s after the last webhook")
        with step("Answer through the copies") as note:
            note(self._answer())
        with step("Both copies of ingest serve") as note:
            note(self._shares())
        with step("A body byte a second") as note:
            slow.join(BODY_DEADLINE_S)
            check(self._body_cut_s, f"a slow body was not cut within {BODY_DEADLINE_S} s")
            note(f"cut after {self._body_cut_s:.0f} s")
        with step("Logs") as note:
            note(self._look_at_logs())
        with step("docker compose stop") as note:
            note(self._stop())

    _body_cut_s: float | None = None

    def _write_env(self) -> None:
        command = [sys.executable, "-m", "deploy.compose.env"]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)
        again = subprocess.run(command, cwd=self._folder, capture_output=True)
        check(again.returncode == 1, "`make env` wrote over an .env that was there")
        file = self._folder / ".env"
        check(file.stat().st_mode & 0o077 == 0, ".env can be read by others")
        self._env = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line and line[0] != "#")

    def _image_size(self) -> str:
        image = json.loads(self._compose.docker("image", "inspect", self._compose.environment["PARLEY_IMAGE"]))[0]
        base = json.loads(self._compose.docker("image", "inspect", "python:3.11-slim-bookworm", may_fail=True) or "[]")
        size = f"{image['Size'] / 1e6:.0f} MB"
        return f"{size}, {(image['Size'] - base[0]['Size']) / 1e6:.0f} MB of it ours" if base else size

    def _up(self, *arguments: str) -> None:
        try:
            self._compose.run("up", "-d", "--no-build", "--wait", "--wait-timeout", "120", *arguments, timeout_s=180)
        except Failed:
            for container in self._compose.containers():
                state = container["State"]
                bad = state["Status"] != "running" and state["ExitCode"] != 0
                if bad or (state.get("Health") or {}).get("Status") == "unhealthy" or state["Restarting"]:
                    logs = subprocess.run(
                        ["docker", "logs", "--tail", "15", container["Id"]],
                        env=dict(self._compose.environment),
                        capture_output=True,
                        text=True,
                    )
                    self._report.console.print(f"[red]{container['Name']}[/]\n{escape(logs.stdout + logs.stderr)}")
            raise

    def _connect(self) -> None:
        trusted = ssl.create_default_context(cafile=self._folder / "deploy" / "nginx" / "tls" / "fullchain.pem")
        client = httpx.Client(verify=trusted, timeout=20, trust_env=False)
        self._meta = Meta(client, self._env["SANDBOX_APP_SECRET"].encode())
        self._agent = Agent(httpx.Client(verify=trusted, timeout=20, trust_env=False))
        self._agent.sign_in()

    def _answer(self) -> str:
        """Reply to each customer; upload a file through nginx, send it, and get it back by its address."""
        conversations = [one["id"] for one in self._agent.get("/api/whatsapp/conversations", limit="100")["items"]]
        picture = self._agent.post("/api/whatsapp/media", file=_leaf(), kind="image")
        contents = [{"type": "text", "body": "It is on its way."}, {"type": "image", "media_id": picture["id"]}]
        sent = [
            self._agent.post("/api/whatsapp/send", body={"conversation_id": conversation, "content": content})["id"]
            for conversation in conversations
            for content in contents
        ]
        took = self._agent.until_read(sent, within_s=60)
        address = urlsplit(self._agent.get(f"/api/whatsapp/media/{picture['id']}")["url"])
        served = self._agent.client.get(f"{BASE}{address.path}?{address.query}")
        check(served.content == _leaf(), f"the file's address was answered {served.status_code} with something else")
        return f"{len(sent)} messages sent and read in {took:.1f} s"

    def _doctor(self) -> str:
        """As the runbook says: the dispatcher's settings, and what the webhook is tried with."""
        tried = {
            "WHATSAPP_WEBHOOK_URL": "http://ingest:8000/api/webhooks/whatsapp",
            "WHATSAPP_APP_SECRETS": self._env["WHATSAPP_APP_SECRETS"],
            "WHATSAPP_VERIFY_TOKEN": self._env["WHATSAPP_VERIFY_TOKEN"],
        }
        options = [part for name, value in tried.items() for part in ("-e", f"{name}={value}")]
        command = ("dispatcher", "python", "-m", "services.sender", "doctor", "--json")
        told = json.loads(self._compose.run("run", "--rm", "--no-deps", "-T", *options, *command, may_fail=True))
        amiss = {one["name"]: one["says"] for one in told["checks"] if one["status"] != "ok"}
        # Inside, the webhook is plain HTTP; from outside its certificate is self-signed.
        check(set(amiss) == {"callback"}, f"the doctor says {amiss}")
        return f"{len(told['checks'])} checks; amiss: the webhook is not HTTPS inside"

    def _look_at_containers(self) -> str:
        published, looked_at = [], 0
        for container in self._compose.containers():
            service = container["Config"]["Labels"]["com.docker.compose.service"]
            host, name = container["HostConfig"], container["Name"]
            ended = service in ONE_SHOT
            check(container["Config"]["User"] not in ("", "0", "root", "0:0"), f"{name} runs as root")
            check(host["ReadonlyRootfs"], f"{name} may write to its root file system")
            check(host["CapDrop"] == ["ALL"] and not host["CapAdd"], f"{name} has capabilities")
            check("no-new-privileges:true" in host["SecurityOpt"], f"{name} may gain privileges")
            check(not host["Privileged"] and host["PidMode"] == "" and host["IpcMode"] == "private", f"{name} is open")
            check(host["Memory"] > 0 and host["PidsLimit"], f"{name} has no limits")
            check(host["LogConfig"]["Config"].get("max-size"), f"{name}'s log grows for ever")
            check(container["Config"].get("StopTimeout") == 30, f"{name} is not given 30 s to stop")
            check(not any("docker.sock" in str(mount) for mount in container["Mounts"]), f"{name} holds the engine")
            if ended:
                check(container["State"]["ExitCode"] == 0, f"{name} failed")
            else:
                check(container["State"]["Health"]["Status"] == "healthy", f"{name} is not healthy")
                check(host["RestartPolicy"]["Name"] == "unless-stopped", f"{name} stays down")
                self._look_inside(container)
            if host["PortBindings"]:
                published.append(service)
            looked_at += 1
        check(published == ["nginx"], f"ports are published by {published}")
        for network in ("edge", "data"):
            told = json.loads(self._compose.docker("network", "inspect", f"{PROJECT}_{network}"))[0]
            check(told["Internal"], f"network {network} leads out")
        self._look_at_environments()
        return f"{looked_at} containers: user, caps, read-only, limits, networks, who holds which secret"

    def _look_inside(self, container: Mapping[str, Any]) -> None:
        """Ask the kernel, not the engine, what the first process may do."""
        said = self._compose.docker("exec", str(container["Id"]), "cat", "/proc/1/status")
        facts = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
        name = container["Name"]
        check(int(facts["CapEff"], 16) == 0 and int(facts["CapPrm"], 16) == 0, f"{name}: capabilities are in force")
        check(facts["NoNewPrivs"].strip() == "1", f"{name}: new privileges can be had")
        check(set(facts["Uid"].split()) != {"0"}, f"{name}: runs as root")
        written = self._compose.docker(
            "exec", str(container["Id"]), "sh", "-c", "touch /written 2>/dev/null && echo yes || echo no"
        )
        check(written.strip() == "no", f"{name}: its root file system can be written")

    def _look_at_environments(self) -> None:
        """Each process holds its own secrets and nobody else's."""
        may_hold = {
            "SANDBOX_APP_SECRET": {"ingest", "sandbox"},  # here it is ingest's app secret too
            "WHATSAPP_VERIFY_TOKEN": {"ingest"},
            "ANTHROPIC_API_KEY": {"ai_worker"},
            "MIGRATE_DATABASE_URL": {"migrate", "logins"},
            "INGEST_DATABASE_URL": {"ingest", "logins"},
            "SERVICE_DATABASE_URL": {"recorder", "ai_worker", "dispatcher", "logins"},
            "API_DATABASE_URL": {"api", "logins"},
            "SENDER_DATABASE_URL": {"sender", "logins"},
            "WHATSAPP_TOKEN_KEYS": {"dispatcher"},
            "STORAGE_URL_SECRET": {"sender"},
            "POSTGRES_PASSWORD": {"postgres", "migrate", "logins"},
            "REDIS_PASSWORD": {
                *("ingest", "recorder", "ai_worker", "sender", "dispatcher"),
                *("redis-queue", "redis-cache"),
            },
        }
        for container in self._compose.containers():
            service = container["Config"]["Labels"]["com.docker.compose.service"]
            holds = "\n".join(container["Config"]["Env"])
            for secret, services in may_hold.items():
                check(service in services or self._env[secret] not in holds, f"{service} holds {secret}")
            holds += str(container["Config"]["Cmd"]) + str(container["Args"])
        for image in json.loads(self._compose.docker("image", "inspect", self._compose.environment["PARLEY_IMAGE"])):
            check(not any(self._env[secret] in json.dumps(image) for secret in may_hold), "the image holds a secret")

    def _try_nginx(self) -> str:
        meta, client = self._meta, self._agent.client
        plain = f"http://localhost:{HTTP}"

        def status(expected: int, method: str, url: str, **options: Any) -> httpx.Response:
            answer = client.request(method, url, **options)
            told = f"{method} {url} ({len(options.get('content', b''))} bytes) was answered {answer.status_code}"
            check(answer.status_code == expected, f"{told}, not {expected}")
            return answer

        answer = status(404, "GET", f"{BASE}/metrics")
        for name in ("strict-transport-security", "x-content-type-options", "x-frame-options", "referrer-policy"):
            check(len(answer.headers.get_list(name)) == 1, f"{name} is not there once")
        check(answer.headers["content-type"] == "application/problem+json", "nginx's own 404 is not a problem")
        check(not re.search(r"\d", answer.headers.get("server", "")), f"version shown: {answer.headers.get('server')}")
        for path in (
            "/ready",
            "/live",
            "/api/../metrics",
            "/metrics/",
            "/nginx_status",
            "/.env",
            "/sandbox/../metrics",
        ):
            status(404, "GET", f"{BASE}{path}")
        check(client.get(f"{BASE}/api/metrics").status_code in (401, 404), "/api/metrics is open")

        # Sizes: 4 MB for webhooks, 101 MB for files, 1 MB for the rest; refused by nginx, before a process sees them.
        status(413, "POST", f"{BASE}{WEBHOOK}", content=b"x" * (4 * 1024 * 1024 + 1))
        status(413, "POST", f"{BASE}/api/me", content=b"x" * (1024 * 1024 + 1))
        status(413, "POST", f"{BASE}/api/whatsapp/send", content=b"x" * (1024 * 1024 + 1))
        status(401, "POST", f"{BASE}/api/whatsapp/media", content=b"x" * (2 * 1024 * 1024))
        meta.say("A large one", customer=9, padding=3_900_000)
        check(meta.post(b"{}", secret=b"not the secret").status_code == 401, "a forged webhook was not refused")
        verified = client.get(
            f"{BASE}{WEBHOOK}",
            params={
                "hub.mode": "subscribe",
                "hub.verify_token": self._env["WHATSAPP_VERIFY_TOKEN"],
                "hub.challenge": "1158201444",
            },
        )
        check(verified.text == "1158201444", "Meta's verification does not get its challenge back")

        # What a client says about itself is not believed, in either direction.
        lies = {"x-forwarded-proto": "https", "x-forwarded-for": "10.9.9.9", "forwarded": "proto=https"}
        answer = status(403, "GET", f"{plain}/api/me", headers=lies)
        check(answer.json()["code"] == "https_required", "plain HTTP is not refused for being plain")
        status(308, "GET", f"{plain}/", headers=lies)
        status(401, "GET", f"{BASE}/api/me", headers={"x-forwarded-proto": "http"})
        check(self._agent.get("/api/me"), "a signed-in person is not known")
        # Nor is another container believed: only nginx's address is trusted.
        said = self._compose.run("exec", "-T", "sandbox", "python", "-c", _LIE)
        check(said.strip() == "403", f"api believed X-Forwarded-Proto of another container: {said.strip()}")
        return "413, /metrics, plain HTTP, lies about the protocol, forged signature"

    def _slow_header(self) -> float:
        with self._tls() as connection:
            connection.sendall(f"GET /api/me HTTP/1.1\r\nHost: localhost\r\nX-{'a' * 8}: ".encode())
            return _until_cut(connection, within_s=25)

    def _slow_bodies(self) -> None:
        with contextlib.suppress(Failed, OSError), self._tls() as connection:
            head = f"POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
            connection.sendall(head.encode())
            self._body_cut_s = _until_cut(connection, within_s=BODY_DEADLINE_S)

    def _ask_for_certificate(self) -> str:
        """Switch the optional check on as the runbook says, with a CA of our own in place of Meta's."""
        nginx, clients = self._folder / "deploy" / "nginx", self._folder / "clients"
        enabled = nginx / "enabled" / "meta-client-certificate.conf"
        authority = write_clients(clients, ["client.webhooks.fbclientcerts.com", "client.example"])
        (nginx / "tls" / "meta-ca.pem").write_bytes(authority)
        shutil.copy(nginx / "optional" / enabled.name, enabled)
        give_up_at = time.monotonic() + RELOAD_EVERY_S + 15
        while self._post_as(None) != 403:
            check(time.monotonic() < give_up_at, "a webhook without a client certificate is still taken")
            time.sleep(0.5)
        check(self._post_as(clients / "client.example.pem") == 403, "another client's certificate was taken for Meta's")
        check(self._post_as(clients / "client.webhooks.fbclientcerts.com.pem") == 401, "Meta's was not taken")
        check(self._agent.get("/api/me"), "people need a certificate now")
        enabled.unlink()
        while self._post_as(None) != 401:
            check(time.monotonic() < give_up_at + RELOAD_EVERY_S, "the check cannot be switched off")
            time.sleep(0.5)
        return "switched on and off by a file; none 403, another's 403, Meta's name passes"

    def _post_as(self, certificate: Path | None) -> int:
        """Post a forged webhook on a new connection: 401 means nginx let it through."""
        trusted = ssl.create_default_context(cafile=self._folder / "deploy" / "nginx" / "tls" / "fullchain.pem")
        if certificate:
            trusted.load_cert_chain(certificate)
        with httpx.Client(verify=trusted, timeout=10, trust_env=False) as client:
            try:
                return client.post(f"{BASE}{WEBHOOK}", content=b"{}").status_code
            except httpx.TransportError:  # the worker it met was being replaced
                return 0

    def _tls(self) -> ssl.SSLSocket:
        trusted = ssl.create_default_context(cafile=self._folder / "deploy" / "nginx" / "tls" / "fullchain.pem")
        return trusted.wrap_socket(socket.create_connection(("127.0.0.1", HTTPS), 10), server_hostname="localhost")

    def _memory(self) -> dict[str, str]:
        said = self._compose.docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}")
        found = {}
        for line in said.splitlines():
            name, size, *_ = line.split()
            found[name.removeprefix(f"{PROJECT}-").rsplit("-", 1)[0]] = size
        return dict(sorted(found.items()))

    def _break_things(self) -> str:
        """Customers write all the while; each 200 is a promise."""
        stop = threading.Event()
        errors: list[BaseException] = []

        def write(customer: int) -> None:
            number = 0
            try:
                while not stop.is_set():
                    self._meta.say(f"Message {number}, please help", customer=customer)
                    number += 1
                    time.sleep(0.4)
            except (Failed, httpx.HTTPError) as error:
                errors.append(error)

        writers = [threading.Thread(target=write, args=(20 + n,)) for n in range(4)]
        for writer in writers:
            writer.start()
        try:
            for service in PROCESSES:
                self._kill_one(service)
            self._compose.run("restart", "-t", "10", "redis-queue")
            time.sleep(2)
            self._compose.run("restart", "-t", "10", "postgres")
            time.sleep(2)
            self._compose.run("restart", "recorder", "ingest", "nginx")
            time.sleep(2)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        if errors:
            raise errors[0]
        self._up("--no-recreate", *SCALED)
        again = {str(status or "no answer"): n for status, n in sorted(self._meta.answers.items()) if status != 200}
        return f"{sum(self._meta.answers.values())} webhooks, to be sent again: {again or None}"

    def _kill_one(self, service: str) -> None:
        """Kill a copy, and see it come back by itself."""
        killed = self._compose.containers(service)[0]
        self._compose.kill(killed)
        give_up_at = time.monotonic() + 20
        while True:
            now = next(one for one in self._compose.containers(service) if one["Id"] == killed["Id"])
            if now["State"]["Running"] and now["State"]["StartedAt"] != killed["State"]["StartedAt"]:
                return
            check(time.monotonic() < give_up_at, f"{killed['Name']} was killed and did not come back by itself")
            time.sleep(0.5)

    def _shares(self) -> str:
        before = self._served()
        for number in range(40):
            self._meta.say(f"Thanks {number}", customer=60 + number % 5)
        after = self._served()
        shares = [after[name] - before.get(name, 0) for name in after]
        check(len(shares) == 2 and all(shares), f"the copies of ingest share the work as {shares}")
        self._agent.wait_for(self._meta.sent, within_s=60)
        return " and ".join(map(str, shares))

    def _served(self) -> dict[str, int]:
        """How many webhooks each copy of ingest has accepted, by its own metrics."""
        found = {}
        for container in self._compose.containers("ingest"):
            said = self._compose.docker("exec", str(container["Id"]), "python", "-c", _METRICS)
            values = re.findall(
                r"^webhook_accept_seconds_count\{[^}]*\}\s+(\S+)|^webhook_accept_seconds_count\s+(\S+)",
                said,
                re.MULTILINE,
            )
            found[str(container["Name"])] = int(sum(float(one or other) for one, other in values))
        return found

    def _look_at_logs(self) -> str:
        said = self._compose.run("logs", "--no-color", "--no-log-prefix", timeout_s=60)
        check(said, "nothing was logged")
        for name in (
            *("SANDBOX_APP_SECRET", "WHATSAPP_VERIFY_TOKEN", "WHATSAPP_TOKEN_KEYS"),
            *("REDIS_PASSWORD", "POSTGRES_PASSWORD"),
        ):
            check(self._env[name] not in said, f"{name} is in the logs")
        for text in ("please help", "hub.verify_token", "1202555", "Smoke 2"):
            check(text not in said, f"the logs say {text!r}")
        lines = self._compose.docker("logs", str(self._compose.containers("nginx")[0]["Id"])).splitlines()
        proxied = [json.loads(line) for line in lines if line.startswith("{")]
        check(
            any(line["path"] == WEBHOOK and line["status"] == 200 for line in proxied),
            f"nginx logs no webhook, but: {lines[-3:]}",
        )
        return f"{len(said.splitlines())} lines, no secret, text, number or query string"

    def _stop(self) -> str:
        began = time.monotonic()
        self._compose.run("stop", timeout_s=120)
        took = time.monotonic() - began
        for container in self._compose.containers():
            status = container["State"]["ExitCode"]
            check(status == 0, f"{container['Name']} ended with {status} on SIGTERM")
            check(not container["State"]["OOMKilled"], f"{container['Name']} ran out of memory")
        check(took < 60, f"stopping took {took:.0f} s")  # two layers at most: those who depend, then the rest
        return "every container ended by itself, with status 0"

    def down(self) -> None:
        """Remove containers, networks, volumes and the image of this run."""
        self._compose.run("--profile", "local", "down", "-v", "--remove-orphans", "-t", "5", may_fail=True)
        self._compose.docker("image", "rm", self._compose.environment["PARLEY_IMAGE"], may_fail=True)


def _leaf() -> bytes:
    """Return a small green picture."""
    kept = io.BytesIO()
    Image.new("RGB", (64, 48), "#2d6a4f").save(kept, "PNG")
    return kept.getvalue()


# From the sandbox's container, which is on the same network as api: says it came over HTTPS.
_LIE = """
import http.client
c = http.client.HTTPConnection("api", 8000, timeout=5)
c.request("GET", "/api/me", headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"})
print(c.getresponse().status)
"""
_METRICS = """
import http.client
c = http.client.HTTPConnection("127.0.0.1", 9000, timeout=5)
c.request("GET", "/metrics")
print(c.getresponse().read().decode())
"""


def write_clients(folder: Path, names: Sequence[str]) -> bytes:
    """Write a certificate with its key for each name, of a new authority; return the authority's certificate."""
    folder.mkdir()
    authority_key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)

    def certificate(name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> x509.Certificate:
        def named(common_name: str) -> x509.Name:
            organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Smoke, Inc.")
            return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])

        builder = x509.CertificateBuilder().subject_name(named(name)).issuer_name(named("Smoke CA"))
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        return builder.sign(authority_key, hashes.SHA256())

    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        shown = certificate(name, key, is_authority=False).public_bytes(serialization.Encoding.PEM)
        (folder / f"{name}.pem").write_bytes(pem + shown)
    return certificate("Smoke CA", authority_key, is_authority=True).public_bytes(serialization.Encoding.PEM)


def _until_cut(connection: ssl.SSLSocket, *, within_s: float) -> float:
    """Send a byte a second until the server closes; return the seconds. Raises: Failed."""
    began = time.monotonic()
    connection.settimeout(1.0)
    while time.monotonic() - began < within_s:
        try:
            connection.sendall(b"a")
            if connection.recv(1024) == b"":
                return time.monotonic() - began
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - began
    raise Failed(f"a client that sends a byte a second was not cut within {within_s:.0f} s")


# ── where it runs ──


def copy_checkout(folder: Path) -> None:
    """Copy what git knows or would add: a clean checkout, whatever else lies about here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def compose_environment(environment: Mapping[str, str], *, pip_conf: Path | None) -> dict[str, str]:
    """Return what compose is told besides .env."""
    ours = {
        "PARLEY_IMAGE": "parley:smoke",
        "PUBLISH_HTTPS": f"127.0.0.1:{HTTPS}",
        "PUBLISH_HTTP": f"127.0.0.1:{HTTP}",
        "NGINX_RELOAD_EVERY_S": str(RELOAD_EVERY_S),
        "COMPOSE_ANSI": "never",
    }
    if pip_conf:
        ours["PIP_CONF"] = str(pip_conf)
    return {**environment, **ours}


@contextlib.contextmanager
def wheel_server(wheels: Path, pip_conf: Path) -> Iterator[None]:
    """Serve downloaded wheels to builds on the engine's bridge, inside the namespaces; pip checks their hashes."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer((engine.BRIDGE, 0), functools.partial(Quiet, directory=str(wheels)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pip_conf.write_text(
        f"[global]\nno-index = true\nfind-links = http://{engine.BRIDGE}:{server.server_port}/\n"
        f"trusted-host = {engine.BRIDGE}\n"
    )
    try:
        yield
    finally:
        server.shutdown()


_VERSION_MARKER = r"python_(?:full_)?version (<|<=|>|>=) '(\d+)\.(\d+)(\.\d+)?'"


def _for_every_3_11(marker: re.Match[str]) -> str:
    """Rewrite a marker so that it holds if it does for some 3.11.

    Pip follows markers by its own version; the stand-in's Python may be another, and another 3.11 at that.
    """
    ours, said = (3, 11), (int(marker[2]), int(marker[3]))
    holds = {"<": ours < said, "<=": ours <= said, ">": ours > said, ">=": ours >= said}[marker[1]]
    among_ours = ours == said and marker[4] is not None
    return "python_version > '3'" if holds or among_ours else "python_version < '3'"


def download_wheels(folder: Path) -> str:
    """Let pip download what the image installs, as this machine's pip is set up."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = ROOT / "requirements" / "runtime.txt"
    stamp = folder / ".lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == digest):
        any_version = folder / "any-version.txt"
        any_version.write_text(re.sub(_VERSION_MARKER, _for_every_3_11, lock.read_text()))
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ]
        target = ["--python-version", "3.11", "--implementation", "cp", "-d", str(folder), "-r", str(any_version)]
        said = subprocess.run([*command, *target], capture_output=True, text=True)
        if said.returncode != 0:
            raise engine.NoEngine(f"pip download failed: {said.stderr.strip()[-600:]}")
        stamp.write_text(digest)
    files = list(folder.glob("*.whl"))
    return f"{len(files)} wheels, {sum(file.stat().st_size for file in files) / 1e6:.0f} MB"


def on_existing(report: Report) -> None:
    """Run on the engine that is there."""
    with tempfile.TemporaryDirectory(prefix="parley-smoke-") as folder:
        _smoke(report, dict(os.environ), folder=Path(folder), pip_conf=None)


def inside(report: Report) -> None:
    """Run on an engine of our own; we are in its namespaces already."""
    tools = engine.Tools(CACHE / "tools")
    with tempfile.TemporaryDirectory(prefix="parley-smoke-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        with report.step("Engine of its own"):
            environment = stack.enter_context(engine.running(tools, folder=CACHE / "engine", sockets=folder))
        with report.step("Stand-ins for the base images"):
            stand_ins.import_all(CACHE, environment)
        stack.enter_context(wheel_server(CACHE / "wheels", folder / "pip.conf"))
        _smoke(report, environment, folder=folder / "checkout", pip_conf=folder / "pip.conf")


def _smoke(report: Report, environment: Mapping[str, str], *, folder: Path, pip_conf: Path | None) -> None:
    copy_checkout(folder)
    smoke = Smoke(report, compose_environment(environment, pip_conf=pip_conf), folder=folder)
    try:
        smoke.run()
    finally:
        with report.step("Clean up"):
            smoke.down()


def on_own(report: Report, arguments: Sequence[str]) -> int:
    """Prepare what needs the network, then run the rest in namespaces of its own; return its status."""
    before = engine.network()
    tools = engine.Tools(CACHE / "tools")
    with report.step("Debian's packages for an engine") as note:
        note(tools.fetch())
    with report.step("Stand-in roots, Python packages") as note, ThreadPoolExecutor() as pool:
        roots = [pool.submit(stand_ins.make_root, root, tools, CACHE) for root in (stand_ins.PYTHON, stand_ins.SERVERS)]
        wheels = pool.submit(download_wheels, CACHE / "wheels")
        note(", ".join(made.result() for made in (*roots, wheels)))
    command = [sys.executable, "-m", "deploy.compose.smoke", "--inside", *arguments]
    # The shell is the first process in there: it waits for orphans, and everything ends with it.
    shell = ["bash", "-c", '"$@" & wait $!', "smoke", *command]
    scratch = tempfile.mkdtemp(prefix="ps-")  # short: sockets lie below it
    child = subprocess.Popen(["unshare", *engine.NAMESPACES, *shell], cwd=ROOT, env={**os.environ, "TMPDIR": scratch})
    try:
        status = child.wait(MOST_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        report.console.print("[red]Stopped.[/]")
        status = 1
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    with report.step("The machine is as it was") as note:
        engine.remove_cgroups()
        for folder in (CACHE / "engine", scratch):
            shutil.rmtree(folder, ignore_errors=True)
        after = engine.network()
        changed = [name for name in before if before[name] != after.get(name)]
        check(not changed, f"changed: {', '.join(changed)}")
        note(f"same {', '.join(before)}")
    return status


def main() -> int:
    """Run from the command line. Returns: 0, 1 when a promise is not kept, 3 when there is no engine."""
    parser = argparse.ArgumentParser(prog="make compose-smoke", description=__doc__)
    parser.add_argument("--own", action="store_true", help="use an engine of its own even if there is one")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    report = Report()
    try:
        if arguments.inside:
            inside(report)
            return 0
        missing = "told so" if arguments.own else engine.existing_problem()
        if missing is None:
            on_existing(report)
            status = 0
        else:
            cannot = engine.own_problem()
            if cannot is not None:
                sys.stderr.write(
                    f"No container engine: {missing}, and {cannot}, so none can be made of Debian's packages.\n"
                    "Install Docker Engine 25 and Compose 2.24 or newer, then run this again.\n"
                )
                return NO_ENGINE
            report.console.print(f"[dim]No engine to use here: {missing}. Making one.[/]")
            status = on_own(report, [])
        if status == 0:
            report.console.print(f"[green]All of it holds[/] ({time.monotonic() - report.started_at:.0f} s).")
        return status
    except (Failed, engine.NoEngine) as error:
        report.console.print(f"[red]{type(error).__name__}:[/] {escape(str(error))}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
