"""The least a uvicorn app can do with a POST: read it, answer 200. `python -m tests.bench.bare PORT`.

uvicorn is as it comes, but for the loop (ours) and its log of every request (off, as ours).
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, say 200."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(
        app, port=int(sys.argv[1]), log_config=None, access_log=False, lifespan="off", interface="asgi3", loop="uvloop"
    )
