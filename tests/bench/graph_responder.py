"""The least Meta could do: read a send, answer with a wamid of its own. `… graph_responder PORT`."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import uvicorn

_ANSWER = (
    b'{"messaging_product":"whatsapp","contacts":[{"input":"","wa_id":""}],"messages":[{"id":"wamid.bench.%012d"}]}'
)
_HEADERS = [(b"content-length", str(len(_ANSWER % 0)).encode()), (b"content-type", b"application/json")]
_numbers = itertools.count()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, accept it."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _ANSWER % next(_numbers)})


if __name__ == "__main__":
    uvicorn.run(
        app, port=int(sys.argv[1]), log_config=None, access_log=False, lifespan="off", interface="asgi3", loop="uvloop"
    )
