"""One AI worker with default settings on servers of its own, and the sandbox's Claude, which takes a second."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from deploy.local.ports import any_free_port
from shared.store.webhooks import Webhooks
from tests.bench import bodies, sender_stack, stack
from tests.world import PHONE_A, PHONE_B, WABA_A, WABA_B, received, text_message, webhook

CLAUDE_S = 1.0
SHARED = "measured on a shared machine with {cores} cores, on which PostgreSQL, Redis and the sandbox run too"
_NOBODY = "http://127.0.0.1:9/nobody-listens"
_NUMBERS = ((PHONE_A, WABA_A), (PHONE_B, WABA_B))
_BATCH = 200
# What customers of a nursery write: none is small talk, which may be skipped, and no two are answered alike.
_TEXTS = (
    "Good morning! Where is my order {n}? I have been waiting for the two plants since Monday.",
    "The olive tree arrived with broken branches, I would like my money back please. Order {n}.",
    "Bom dia, vocês entregam no sábado? Preciso de {n} vasos para uma festa.",
    "Guten Tag, ich möchte meine Bestellung {n} ändern. Geht das noch heute?",
    "¿Tienen limoneros? Quisiera comprar {n} para la terraza, ¿cuánto cuesta el envío?",
)


@dataclass(frozen=True, slots=True)
class AiServers:
    """Servers, and Claude."""

    servers: stack.Servers
    claude: httpx.AsyncClient
    sandbox_pid: int

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs that analyses; everything else stays at its default."""
        return {
            "DATABASE_URL": self.servers.postgres.url("bench_recorder", "bench"),
            "REDIS_URL": self.servers.redis.url(),
            "ANTHROPIC_API_KEY": "bench",
            "ANTHROPIC_BASE_URL": str(self.claude.base_url),
        }

    async def row(self, query: str, *values: object) -> tuple[Any, ...]:
        """Return the first row of a query."""
        row = await (await self.servers.admin.execute(query.encode(), values)).fetchone()
        assert row is not None
        return row

    async def analysed(self) -> int:
        """Count the stored analyses of messages."""
        return int((await self.row("select count(*) from public.message_analyses"))[0])

    async def backlog(self, people: int, *, first: int) -> None:
        """Record a message each of so many people, of both workspaces alike, due at once."""
        async with stack.recorder_store(self.servers.postgres) as store:
            for start in range(first, first + people, _BATCH):
                some = range(start, min(start + _BATCH, first + people))
                await Webhooks(store).record([received(body(n)) for n in some], settle_s=0)
        await self.servers.admin.execute("vacuum analyze")


@contextlib.asynccontextmanager
async def ai_servers() -> AsyncIterator[AiServers]:
    """Start them."""
    async with (
        stack.fresh_servers() as servers,
        sender_stack.sandbox(webhook_url=_NOBODY, throughput=80) as (claude, pid),
    ):
        faults = {"claude": {"latency_ms": round(CLAUDE_S * 1000)}}
        (await claude.put("/sandbox/faults", json=faults)).raise_for_status()
        yield AiServers(servers, claude, pid)


@contextlib.asynccontextmanager
async def worker(made: AiServers) -> AsyncIterator[stack.Running]:
    """Run one; it works as soon as it is there."""
    internal_port = any_free_port()
    environment = made.environment | {"HTTP_INTERNAL_PORT": str(internal_port)}
    async with stack.python("services.ai_worker", env=environment) as process:
        running = stack.Running(process.pid, internal_port, process=process)
        await sender_stack.is_ready(running)
        yield running


@contextlib.asynccontextmanager
async def whole_path(made: AiServers) -> AsyncIterator[httpx.AsyncClient]:
    """Run ingest, a recorder and a worker; yields a client of the webhook endpoint."""
    async with stack.ingest(made.servers) as ingest, stack.recorder(made.servers), worker(made):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ingest.port}", timeout=10, trust_env=False) as client:
            yield client


async def post(client: httpx.AsyncClient, raw: bytes) -> None:
    """Post a webhook, signed. Raises: httpx.HTTPError."""
    signature = hmac.new(bodies.SECRET.encode(), raw, hashlib.sha256).hexdigest()
    headers = {"content-type": "application/json", "x-hub-signature-256": f"sha256={signature}"}
    (await client.post(bodies.PATH, content=raw, headers=headers)).raise_for_status()


def body(person: int, message: int = 0) -> bytes:
    """Return a webhook with a text of a person; odd ones write to the second workspace."""
    phone_number_id, waba_id = _NUMBERS[person % 2]
    text = _TEXTS[(person // 2 + message) % len(_TEXTS)].format(n=person * 100 + message)
    said = text_message(text, wamid=wamid(person, message), user_id=f"US.{person}", wa_id=f"1202{person:07}")
    return webhook(said, phone_number_id=phone_number_id, waba_id=waba_id)


def wamid(person: int, message: int = 0) -> str:
    """Return the id of that message; later ones sort behind earlier ones."""
    return f"wamid.{person:07}.{message:03}"


def shared_machine() -> str:
    """Return what a reader must know of the machine."""
    return SHARED.format(cores=stack.cores())
