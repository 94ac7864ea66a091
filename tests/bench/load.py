"""A small HTTP/1.1 load generator: `python -m tests.bench.load URL REQUESTS CONNECTIONS HEADER < body`.

Keep-alive, one request at a time on each connection. Only ever for addresses on loopback. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

import uvloop


async def main(url: str, requests: int, connections: int, header: str) -> None:
    """Send `requests` POSTs over `connections` connections; print per second, latencies and statuses."""
    target = urlsplit(url)
    if target.hostname != "127.0.0.1":
        raise SystemExit("load goes to loopback only")
    body = sys.stdin.buffer.read()
    head = f"POST {target.path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{header}\r\n\r\n"
    request = head.encode() + body
    left = iter(range(requests))
    latencies: list[float] = []
    statuses: dict[str, int] = {}

    async def client() -> None:
        reader, writer = await asyncio.open_connection(target.hostname, target.port)
        for _ in left:
            started = time.perf_counter()
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            latencies.append(time.perf_counter() - started)
            status = answer[9:12].decode()
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(connections)))
    seconds = time.perf_counter() - started
    latencies.sort()
    print(  # noqa: T201  its output is its answer
        json.dumps(
            {
                "per_s": requests / seconds,
                "p50_ms": latencies[len(latencies) // 2] * 1000,
                "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
                "statuses": statuses,
            }
        )
    )


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
