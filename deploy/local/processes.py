"""Every process of the local stack in one table: to add one, add an entry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deploy.local.places import ROOT
from deploy.local.ports import HOST
from deploy.local.real import RealParts
from deploy.local.supervisor import ProcessSpec

# All a process may take from the caller's environment besides its own variables: least privilege, here too.
BASICS = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LOG_LEVEL")
# How the outside is reached from here; only for a process that talks to a real service.
OUTSIDE = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the processes need to know of each other."""

    ports: Mapping[str, int]  # public ones, by process
    database_urls: Mapping[str, str] = field(repr=False)  # by login role
    redis_url: str = field(repr=False)
    story_path: str
    app_secret: str = field(repr=False)  # the sandbox's
    verify_token: str = field(repr=False)
    token_key: str = field(repr=False)  # opens the tokens of numbers
    token_public_key: str  # seals them
    storage_dir: str
    storage_url_secret: str = field(repr=False)
    real: RealParts = field(repr=False)

    def address(self, process: str) -> str:
        return f"http://{HOST}:{self.ports[process]}"

    @property
    def webhook_url(self) -> str:
        return f"{self.address('ingest')}/api/webhooks/whatsapp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One kind of process.

    `port`: what the world calls; `internal_port`: /live, /ready and /metrics. Defaults; another is taken if taken.
    `copies`: may run several times (it listens on no public port).
    """

    name: str
    command: tuple[str, ...]  # after `python -m`
    environment: Callable[[Wiring], dict[str, str]]
    port: int | None = None
    internal_port: int | None = None
    ready_path: str = "/ready"
    copies: bool = False
    is_outside: Callable[[RealParts], bool] = lambda _real: False


def _ingest(wiring: Wiring) -> dict[str, str]:
    return {
        **_public("ingest", wiring),
        "DATABASE_URL": wiring.database_urls["parley_ingest_login"],
        "REDIS_URL": wiring.redis_url,
        # Meta's real secrets beside the sandbox's own: it must never be given theirs to sign with.
        "WHATSAPP_APP_SECRETS": ",".join(filter(None, (wiring.real.app_secrets, wiring.app_secret))),
        "WHATSAPP_VERIFY_TOKEN": wiring.real.verify_token or wiring.verify_token,
    }


def _recorder(wiring: Wiring) -> dict[str, str]:
    return {"DATABASE_URL": wiring.database_urls["parley_service_login"], "REDIS_URL": wiring.redis_url}


def _ai_worker(wiring: Wiring) -> dict[str, str]:
    claude = wiring.real.anthropic or {
        "ANTHROPIC_API_KEY": "the-sandbox-takes-any-key",
        "ANTHROPIC_BASE_URL": wiring.address("sandbox"),
    }
    return {
        "DATABASE_URL": wiring.database_urls["parley_service_login"],
        "REDIS_URL": wiring.redis_url,
        "STORAGE_DIR": wiring.storage_dir,
        **claude,
    }


def _api(wiring: Wiring) -> dict[str, str]:
    return {
        **_public("api", wiring),
        "DATABASE_URL": wiring.database_urls["parley_api_login"],
        "WHATSAPP_TOKEN_PUBLIC_KEY": wiring.token_public_key,
        **_sign_in(wiring),
    }


def _sender(wiring: Wiring) -> dict[str, str]:
    return {
        **_public("sender", wiring),
        "DATABASE_URL": wiring.database_urls["parley_sender_login"],
        "REDIS_URL": wiring.redis_url,
        "STORAGE_DIR": wiring.storage_dir,
        "STORAGE_URL_SECRET": wiring.storage_url_secret,
        "STORAGE_PUBLIC_URL": wiring.address("sender"),
        **_sign_in(wiring),
    }


def _dispatcher(wiring: Wiring) -> dict[str, str]:
    real = wiring.real.graph
    # Meta's own addresses are the defaults of these settings.
    sandbox = {"WHATSAPP_GRAPH_URL": f"{wiring.address('sandbox')}/graph/v26.0", "MEDIA_HOSTS": HOST}
    return {
        "DATABASE_URL": wiring.database_urls["parley_service_login"],
        "REDIS_URL": wiring.redis_url,
        "STORAGE_DIR": wiring.storage_dir,
        "WHATSAPP_TOKEN_KEYS": wiring.token_key,
        **({name: real[name] for name in ("WHATSAPP_GRAPH_URL", "MEDIA_HOSTS") if name in real} if real else sandbox),
    }


def _sign_in(wiring: Wiring) -> dict[str, str]:
    return dict(wiring.real.supabase or {"SUPABASE_URL": wiring.address("sandbox")})


def _sandbox(wiring: Wiring) -> dict[str, str]:
    return {
        "SANDBOX_HOST": HOST,
        "SANDBOX_PORT": str(wiring.ports["sandbox"]),
        "SANDBOX_WEBHOOK_URL": wiring.webhook_url,
        "SANDBOX_APP_SECRET": wiring.app_secret,
        "SANDBOX_STORY": wiring.story_path,
    }


def _public(name: str, wiring: Wiring) -> dict[str, str]:
    return {"HTTP_HOST": HOST, "HTTP_PORT": str(wiring.ports[name]), "HTTP_REQUIRE_HTTPS": "false"}


PROCESSES = (
    Process(name="ingest", command=("services.ingest",), environment=_ingest, port=8001, internal_port=9001),
    Process(
        name="recorder",
        command=("services.ingest", "recorder"),
        environment=_recorder,
        internal_port=9002,
        copies=True,
    ),
    Process(
        name="ai_worker",
        command=("services.ai_worker",),
        environment=_ai_worker,
        internal_port=9003,
        copies=True,
        is_outside=lambda real: bool(real.anthropic),
    ),
    Process(
        name="api",
        command=("services.api",),
        environment=_api,
        port=8002,
        internal_port=9004,
        is_outside=lambda real: bool(real.supabase),
    ),
    Process(
        name="sender",
        command=("services.sender",),
        environment=_sender,
        port=8004,
        internal_port=9005,
        is_outside=lambda real: bool(real.supabase),
    ),
    Process(
        name="dispatcher",
        command=("services.sender", "dispatcher"),
        environment=_dispatcher,
        internal_port=9006,
        copies=True,
        is_outside=lambda real: bool(real.graph),
    ),
    Process(name="sandbox", command=("deploy.sandbox",), environment=_sandbox, port=8003, ready_path="/live"),
)


def spec_of(
    process: Process, wiring: Wiring, *, name: str, internal_port: int | None, caller: Mapping[str, str]
) -> ProcessSpec:
    """Return how to start one (copy of a) process: with its own variables and nothing else of the caller's."""
    passed = BASICS + (OUTSIDE if process.is_outside(wiring.real) else ())
    env = {key: caller[key] for key in passed if key in caller}
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    if internal_port is not None:
        env["HTTP_INTERNAL_PORT"] = str(internal_port)
    env |= process.environment(wiring)
    return ProcessSpec(name=name, argv=(sys.executable, "-m", *process.command), env=env, cwd=ROOT)
