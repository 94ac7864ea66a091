"""The Idempotency-Key header: what makes a request that was sent twice one thing done."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from fastapi import Depends, Header

from shared.domain.errors import Rejected

_MOST = 255


async def idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(description="Required. A new one for each thing you mean to do once, the same one to repeat it"),
    ] = None,
) -> str:
    """Return the key. Raises: Rejected without one."""
    if not idempotency_key or len(idempotency_key) > _MOST:
        raise Rejected(
            "an idempotency key is needed",
            code="idempotency_key_missing",
            hint=f"Send the header Idempotency-Key, of 1 to {_MOST} characters: a new one (a UUID, say) for each thing "
            "you mean to do once, the same one to repeat it after a lost answer.",
        )
    return idempotency_key


IdempotencyKey = Annotated[str, Depends(idempotency_key)]


def digest_of(call: str, asked: object) -> str:
    """Return what tells a request from another under the same key: hex sha256.

    `call`: which one. `asked`: its body and whatever else it is about, as JSON values; blanks and order do not count.
    """
    written = json.dumps([call, asked], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()
