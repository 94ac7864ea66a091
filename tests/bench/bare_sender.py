"""A bare loop over the dispatcher's own client: `python -m tests.bench.bare_sender PORT REQUESTS CONNECTIONS`.

What sending would cost were there no outbox: the same body, the same `Graph.post`, nothing claimed, paced or recorded.
Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from services.sender.graph import open_graph
from shared.settings.clocks import Clocks
from tests.world import PHONE_A

_BODY = {
    "messaging_product": "whatsapp",
    "recipient_type": "individual",
    "to": "+12025000001",
    "type": "text",
    "text": {"body": "Message 1234.1"},
    "biz_opaque_callback_data": "0195a7c2-1111-7222-8333-444455556666.1",
}


async def main(port: int, requests: int, connections: int) -> None:
    """Post over and over; the first tenth warms up."""
    async with open_graph(f"http://127.0.0.1:{port}/v26.0", clocks=Clocks(), connections=connections) as graph:

        async def all_of(count: int) -> float:
            left, started = iter(range(count)), time.perf_counter()

            async def one_after_another() -> None:
                for _ in left:
                    answer = await graph.post(f"{PHONE_A}/messages", _BODY, token="sandbox-token")
                    if answer.status != 200:
                        raise SystemExit(f"not accepted: {answer}")

            await asyncio.gather(*(one_after_another() for _ in range(connections)))
            return time.perf_counter() - started

        await all_of(requests // 10)
        cpu_s = time.process_time()
        seconds = await all_of(requests)
        cpu_us = (time.process_time() - cpu_s) / requests * 1e6
    print(json.dumps({"per_s": requests / seconds, "cpu_us": cpu_us}))  # noqa: T201  its output is its answer


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*map(int, sys.argv[1:])))
