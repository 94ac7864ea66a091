"""Finding the messages in a prompt: every piece of JSON in it, and in those every list of messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

REF_KEYS = ("ref", "message_ref", "id", "key", "message_id")
TEXT_KEYS = ("text", "body", "content", "message", "caption")
_WHO_KEYS = ("direction", "from", "role", "author", "sender", "by")
_OURS = ("out", "agent", "assistant", "business", "us", "we", "staff", "bot", "system")
_TO_DO_KEYS = ("new", "is_new", "analyse", "analyze")
_TIME_KEYS = ("sent_at", "at", "timestamp", "time", "created_at")
_OPENING_TAG = re.compile(r"<([A-Za-z_][\w.-]*)[^<>]*>\s*$")
_OPENING_BRACKET = re.compile(r"[\[{]")
_DECODER = json.JSONDecoder(strict=False)


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message as the caller shows it."""

    ref: str
    text: str
    inbound: bool = True
    to_do: bool = False  # marked by itself as one to analyse
    sent_at: str | None = None


@dataclass(frozen=True, slots=True)
class MessageList:
    """A list of messages and what it is called: its key, or the tag it stands in."""

    name: str
    messages: tuple[PromptMessage, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the stand-in for Claude works from."""

    text: str  # the last user turn as it was sent
    to_analyse: tuple[PromptMessage, ...]  # those that want an entry each
    everything: tuple[PromptMessage, ...]  # with the history, in the order given

    @property
    def inbound_text(self) -> str:
        """Return all the customer wrote, newest part included; the whole turn when it holds no messages."""
        shown = self.to_analyse or self.everything
        return "\n".join(message.text for message in shown if message.inbound) if shown else self.text

    @property
    def latest_at(self) -> str | None:
        return next((message.sent_at for message in reversed(self.everything) if message.sent_at), None)


def _message(value: object) -> PromptMessage | None:
    """Read one message; None when this is something else."""
    if not isinstance(value, dict):
        return None
    if any(isinstance(child, list) and any(_message(item) for item in child) for child in value.values()):
        return None  # a conversation that holds messages, not a message
    ref = next((value[key] for key in REF_KEYS if isinstance(value.get(key), str | int)), None)
    named = next((value[key] for key in TEXT_KEYS if key in value), None)
    if ref is None or (named is None and not ({"type", "kind", *TEXT_KEYS} & set(value))):
        return None
    if isinstance(named, dict):
        named = named.get("body") or named.get("text")
    who = next((str(value[key]).casefold() for key in _WHO_KEYS if isinstance(value.get(key), str)), "inbound")
    sent_at = next((value[key] for key in _TIME_KEYS if isinstance(value.get(key), str)), None)
    return PromptMessage(
        ref=str(ref),
        text=named if isinstance(named, str) else "",
        inbound=not who.startswith(_OURS),
        to_do=any(value.get(key) is True for key in _TO_DO_KEYS),
        sent_at=sent_at,
    )


def _lists_in(value: object, name: str) -> Iterator[MessageList]:
    if isinstance(value, list):
        messages = tuple(message for item in value if (message := _message(item)))
        if messages:
            yield MessageList(name, messages)
        else:
            for item in value:
                yield from _lists_in(item, name)
    elif isinstance(value, dict):
        for key, child in value.items():
            single = _message(child)
            if single:
                yield MessageList(str(key), (single,))
            else:
                yield from _lists_in(child, str(key))


def _lists(text: str) -> Iterator[MessageList]:
    """Find every list of messages in a text; objects one under the other in the same tag are one list."""
    at, name = 0, ""
    loose: dict[str, list[PromptMessage]] = {}
    while (found := _OPENING_BRACKET.search(text, at)) is not None:
        if tag := _OPENING_TAG.search(text, max(0, found.start() - 200), found.start()):
            name = tag.group(1)
        elif before := text[at : found.start()].strip():
            name = before.splitlines()[-1][-60:]  # a heading such as "New messages:" names the list as well
        try:
            value, at = _DECODER.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            at = found.end()
            continue
        if single := _message(value):
            loose.setdefault(name, []).append(single)
        else:
            yield from _lists_in(value, name)
    for tag_name, messages in loose.items():
        yield MessageList(tag_name, tuple(messages))


def _worth(name: str) -> int:
    """Say how much a list's name speaks for being the one to analyse."""
    name = name.casefold()
    if any(
        word in name for word in ("history", "context", "previous", "earlier", "past", "recent", "known", "example")
    ):
        return -5
    return (
        3 * ("new" in name)
        + 3 * ("analy" in name)
        + 2 * any(word in name for word in ("unread", "pending", "todo", "to_", "due"))
        + ("message" in name)
    )


def read_prompt(user_text: str, refs_wanted: frozenset[str] = frozenset()) -> Prompt:
    """Find what has to be analysed in the last user turn.

    Refs that the schema lists win over names of lists; among equals the later list wins.
    """
    lists = list(_lists(user_text))
    everything = tuple(message for one in lists for message in one.messages)
    if wanted := tuple(message for message in everything if message.ref in refs_wanted):
        return Prompt(user_text, wanted, everything)
    best = max(enumerate(lists), key=lambda pair: (_worth(pair[1].name), pair[0]), default=None)
    if best is None or (_worth(best[1].name) < 0):
        return Prompt(user_text, (), everything)
    chosen = best[1].messages
    marked = tuple(message for message in chosen if message.to_do)
    inbound = tuple(message for message in chosen if message.inbound)
    return Prompt(user_text, marked or inbound or chosen, everything)
