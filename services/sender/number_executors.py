"""Which verb does which kind of chore about numbers, read marks and blocks."""

from __future__ import annotations

from functools import partial

from services.sender.block_contact import block_contact
from services.sender.check_channel import check_channel
from services.sender.chores import Executor
from services.sender.graph import Graph
from services.sender.mark_read import mark_read, show_typing
from services.sender.subscribe_account import subscribe_account
from shared.store.channels import ChannelWork
from shared.store.outbox import Outbox


def number_executors(*, graph: Graph, channels: ChannelWork, outbox: Outbox) -> dict[str, Executor]:
    """Return them by kind."""
    return {
        "mark_read": partial(mark_read, graph=graph, channels=channels),
        "typing": partial(show_typing, graph=graph, channels=channels),
        "block": partial(block_contact, graph=graph, channels=channels),
        "unblock": partial(block_contact, graph=graph, channels=channels),
        "channel_subscribe": partial(subscribe_account, graph=graph, channels=channels),
        "channel_check": partial(check_channel, graph=graph, channels=channels, outbox=outbox),
    }
