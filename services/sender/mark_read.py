"""Tell a customer that their messages were read, or that somebody types: the read mark carries both."""

from __future__ import annotations

from services.sender.chores import Again, Chore, Done, Failed, outcome_of
from services.sender.graph import Graph
from shared.store.channels import ChannelWork
from shared.whatsapp.errors import classify
from shared.whatsapp.outbound.receipts import read_receipt


async def mark_read(chore: Chore, *, graph: Graph, channels: ChannelWork) -> Done | Again | Failed:
    """Mark the newest message of the conversation, and so all before it, as the workspace wants it now."""
    return await _mark(chore, graph=graph, channels=channels, is_typing=False)


async def show_typing(chore: Chore, *, graph: Graph, channels: ChannelWork) -> Done | Again | Failed:
    """Show for 25 s that somebody types. There is no typing without the mark: who wants no marks shows no typing."""
    return await _mark(chore, graph=graph, channels=channels, is_typing=True)


async def _mark(chore: Chore, *, graph: Graph, channels: ChannelWork, is_typing: bool) -> Done | Again | Failed:
    if chore.lane is None:
        return Done()
    wamid, _ = await channels.read_mark_target(chore.workspace_id, chore.lane)
    if wamid is None:
        return Done()  # blocked, deleted, too old, or not wanted any more
    body = read_receipt(wamid, is_typing=is_typing)
    answer = await graph.post(f"{chore.phone_number_id}/messages", body, token=chore.token)
    verdict = classify(answer.status, answer.body, answer.failure, is_repeatable=True)
    return outcome_of(verdict, attempt=chore.attempt)
