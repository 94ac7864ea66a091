"""What a refusal of Meta's asks for besides the message's own fate: pause the number, opt the contact out, …"""

from __future__ import annotations

from services.sender.chores import Again, Chore, Done, Failed
from shared.store.outbox import Outbox


class Aftermath:
    """Asks nothing of Meta: it changes rows. payload: {then, reason}, of shared.whatsapp.errors."""

    def __init__(self, *, outbox: Outbox) -> None:
        self._outbox = outbox

    async def __call__(self, chore: Chore) -> Done | Again | Failed:
        """Do it. Raises: Unavailable."""
        await self._outbox.apply_then(
            chore.workspace_id,
            chore.channel_id,
            chore.message_id,
            then=str(chore.payload.get("then")),
            reason=str(chore.payload.get("reason")),
        )
        return Done()
