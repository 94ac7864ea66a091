"""Signed webhooks at full speed, each of its own: `python -m tests.bench.webhook_load`, driven by `load_process.py`.

Reads one line of JSON (`Plan`), makes the requests, says "ready", waits for a line, sends, prints one JSON object.
Keep-alive, one request in flight on each connection, only ever to loopback, bounded in seconds and in requests.

It is not an open tap: were it, accepting would take both cores, the recorder would be buried, and the rate would be
that of neither. Every 10 ms it asks Redis how many entries the stream holds, and holds requests back while there are
more than `most_entries`. So the rate is the one the whole path sustains, with a backlog that stays what it is.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import cast

import redis.asyncio
import uvloop

from shared.queue.streams import STREAM
from tests.bench import bodies

_LOOPBACK = "127.0.0.1"
_LOOK_EVERY_S = 0.01
_MAKE: dict[str, bodies.Make] = {"single": bodies.single, "batched": bodies.batched}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send: bodies `first`, `first` + 1, …, for `seconds` or until `requests` are answered.

    `most_entries`: hold back while the stream is longer; 0: never. `are_made_first`: before the clock starts, in
    memory; otherwise one by one, which costs this process some 5 µs each but serves for any length of time.
    """

    port: int
    redis_url: str = field(repr=False)
    kind: str
    first: int
    seconds: float
    requests: int
    connections: int = 64
    most_entries: int = 0
    are_made_first: bool = True


@dataclass(slots=True)
class Sent:
    """What happened. Times of CLOCK_MONOTONIC, which all processes of a machine share; seconds."""

    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    first_request_at: float = 0.0
    last_answer_at: float = 0.0
    held_s: float = 0.0  # while the stream was too long
    cpu_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    ran_out: bool = False  # the requests did, before the time


class Gate:
    """Open, or shut with those who wait."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self._shut_at: float | None = None
        self.held_s = 0.0

    def pass_or_wait(self, go_on: Callable[[], None]) -> bool:
        """Say whether it is open; `go_on` is called once it is, otherwise."""
        if self._shut_at is None:
            return True
        self._waiting.append(go_on)
        return False

    def set(self, *, is_open: bool) -> None:
        """Open or shut it; opening lets all go on."""
        if not is_open:
            self._shut_at = self._shut_at or time.monotonic()
        elif self._shut_at is not None:
            self.held_s += time.monotonic() - self._shut_at
            self._shut_at = None
            waiting, self._waiting = self._waiting, []
            for go_on in waiting:
                go_on()


class Connection(asyncio.Protocol):
    """One connection with one request in flight: the answer brings the next request."""

    def __init__(
        self, requests: Iterator[bytes], gate: Gate, sent: Sent, latencies: list[float], ends_at: float
    ) -> None:
        self._requests = requests
        self._gate = gate
        self._sent = sent
        self._latencies = latencies
        self._ends_at = ends_at
        self._got = b""
        self._asked_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is not a subclass of it

    def ask(self) -> None:
        """Send the next request, or wait at the gate, or be done."""
        if time.monotonic() >= self._ends_at:
            self._finish()
            return
        if not self._gate.pass_or_wait(self.ask):
            return
        request = next(self._requests, None)
        if request is None:
            self._sent.ran_out = True
            self._finish()
            return
        assert self._transport is not None
        self._asked_at = time.monotonic()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Count an answer. A 200 of ours has no body, so its head is all of it; anything else ends the connection."""
        self._got += data
        if not self._got.endswith(b"\r\n\r\n"):
            if not self._got.startswith(b"HTTP/1.1 200") and b"\r\n\r\n" in self._got:
                self._refuse()
            return
        if not self._got.startswith(b"HTTP/1.1 200"):
            self._refuse()
            return
        self._got = b""
        now = time.monotonic()
        self._latencies.append(now - self._asked_at)
        self._sent.accepted += 1
        self._sent.last_answer_at = now
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever hangs up on us has refused us."""
        if not self.done.done():
            self._refuse()

    def _refuse(self) -> None:
        status = self._got[9:12].decode("latin-1") or "gone"
        self._sent.refused[status] = self._sent.refused.get(status, 0) + 1
        self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        if self._transport is not None:
            self._transport.close()


async def send(plan: Plan, requests: Iterator[bytes]) -> Sent:
    """Send it all and say what happened."""
    sent, gate, latencies = Sent(), Gate(), [0.0]
    loop = asyncio.get_running_loop()
    async with redis.asyncio.Redis.from_url(plan.redis_url) as client:
        await client.ping()
        ends_at = time.monotonic() + plan.seconds
        connections = [
            (
                await loop.create_connection(
                    lambda: Connection(requests, gate, sent, latencies, ends_at), _LOOPBACK, plan.port
                )
            )[1]
            for _ in range(plan.connections)
        ]
        watching = asyncio.create_task(_watch(client, gate, plan.most_entries)) if plan.most_entries else None
        cpu_s = time.process_time()
        sent.first_request_at = time.monotonic()
        for connection in connections:
            connection.ask()
        await asyncio.gather(*(connection.done for connection in connections))
        sent.cpu_s = time.process_time() - cpu_s
        if watching:
            watching.cancel()
            await asyncio.wait({watching})  # before its connection goes
    gate.set(is_open=True)
    latencies.sort()
    sent.held_s = gate.held_s
    sent.p50_ms, sent.p99_ms = (latencies[len(latencies) * share // 100] * 1000 for share in (50, 99))
    return sent


async def _watch(client: redis.asyncio.Redis, gate: Gate, most_entries: int) -> None:
    while True:
        gate.set(is_open=await client.xlen(STREAM) <= most_entries)
        await asyncio.sleep(_LOOK_EVERY_S)


def main() -> None:
    """Do as the plan on stdin says."""
    plan = Plan(**json.loads(sys.stdin.readline()))
    make = _MAKE[plan.kind]
    lazily = (bodies.request(make(number)) for number in range(plan.first, plan.first + plan.requests))
    requests = iter(list(lazily)) if plan.are_made_first else lazily
    gc.disable()  # nothing here is in a cycle, and a pause would look like the server's
    print("ready", flush=True)  # noqa: T201  its output is its answer
    sys.stdin.readline()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sent = runner.run(send(plan, requests))
    print(json.dumps(asdict(sent)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
