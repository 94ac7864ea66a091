"""What routes are given: who is asking, and the stores of this process."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from shared.auth.person import SignedIn
from shared.store.channels import Channels
from shared.store.conversations import Conversations
from shared.store.inbox import Inbox

__all__ = ["ChannelsDependency", "ConversationsDependency", "InboxDependency", "SignedIn"]


def inbox_of(request: Request) -> Inbox:
    """Return the store of this process."""
    inbox: Inbox = request.app.state.inbox
    return inbox


InboxDependency = Annotated[Inbox, Depends(inbox_of)]


def conversations_of(request: Request) -> Conversations:
    """Return the store of this process."""
    conversations: Conversations = request.app.state.conversations
    return conversations


ConversationsDependency = Annotated[Conversations, Depends(conversations_of)]


def channels_of(request: Request) -> Channels:
    """Return the store of this process."""
    channels: Channels = request.app.state.channels
    return channels


ChannelsDependency = Annotated[Channels, Depends(channels_of)]
