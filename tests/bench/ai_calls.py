"""Claude calls per 100 customer messages in bursts of five, and what a message's input comes to, as the usage tells.

The whole path, from webhooks: ingest and recorder let a conversation settle, the worker asks. Counted are all calls,
those about whole conversations too, which are read from their third message on. Each customer has several bursts, the
next when the last is analysed, as history makes prompts longer. Once typed within the time that a conversation settles,
once slower than that, as people type.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx

from services.ai_worker.pricing import PRICES
from services.ai_worker.settings import AnthropicSettings
from shared.settings.clocks import Clocks
from tests.bench import ai_stack
from tests.bench.figure import Figure
from tests.bench.progress import say
from tests.bench.size import sized

_PEOPLE = 40
_ROUNDS = 3
_BURST = 5
_FAST_S, _SLOW_S = 0.15, 1.5  # from message to message
_MOST_CALLS = 40
_WITHIN_S = 120
_CALLS = """
select
  count(*), count(*) filter (where task = 'conversation_analysis'), count(*) filter (where outcome <> 'ok'),
  sum(input_tokens), sum(cache_read_tokens), sum(cache_write_tokens)
from app.analysis_attempts
where id > %s
"""
_LEFT = """
select
  (select count(*) from public.whatsapp_messages), (select count(*) from app.conversation_work),
  (select count(*) from public.whatsapp_messages where ai_state <> 'done')
"""


@dataclass(frozen=True, slots=True)
class _Run:
    """What some bursts came to. Tokens of all calls; `billed`: what is paid for, in tokens at the full price."""

    messages: int
    calls: int
    about_conversations: int
    uncached: int
    cache_read: int
    cache_write: int

    @property
    def shown(self) -> int:
        return self.uncached + self.cache_read + self.cache_write

    @property
    def billed(self) -> float:
        price = PRICES[AnthropicSettings.model_fields["model"].default]
        paid: Decimal = self.cache_read * price.cache_read + self.cache_write * price.cache_write
        return float(self.uncached + paid / price.input)


async def measure() -> list[Figure]:
    """Let people write in bursts, fast ones and slow ones."""
    people = sized(_PEOPLE, least=10)
    async with ai_stack.ai_servers() as made, ai_stack.whole_path(made) as client:
        fast = await _bursts(made, client, people, first=0, every_s=_FAST_S)
        slow = await _bursts(made, client, people, first=people, every_s=_SLOW_S)
    return _figures(fast, slow)


async def _bursts(
    made: ai_stack.AiServers, client: httpx.AsyncClient, people: int, *, first: int, every_s: float
) -> _Run:
    (last,) = await made.row("select coalesce(max(id), 0) from app.analysis_attempts")
    (there,) = await made.row("select count(*) from public.whatsapp_messages")
    for number in range(_ROUNDS):
        say(f"bursts of {_BURST}, {every_s} s apart: {number + 1} of {_ROUNDS}")
        async with asyncio.TaskGroup() as group:
            for person in range(first, first + people):
                group.create_task(_burst(client, person, number * _BURST, every_s=every_s))
                await asyncio.sleep(every_s / people)  # not all at once
        there += people * _BURST
        await _all_analysed(made, there)
    calls, about_conversations, failed, *tokens = await made.row(_CALLS, last)
    if failed:
        raise RuntimeError(f"{failed} of {calls} calls went wrong")
    return _Run(people * _ROUNDS * _BURST, calls, about_conversations, *map(int, tokens))


async def _burst(client: httpx.AsyncClient, person: int, first: int, *, every_s: float) -> None:
    for message in range(first, first + _BURST):
        await ai_stack.post(client, ai_stack.body(person, message))
        await asyncio.sleep(every_s)


async def _all_analysed(made: ai_stack.AiServers, messages: int) -> None:
    """Wait until so many are there and nothing is left to do about any. Raises: TimeoutError."""
    wanted: tuple[Any, ...] = (messages, 0, 0)
    async with asyncio.timeout(_WITHIN_S):
        while await made.row(_LEFT) != wanted:
            await asyncio.sleep(0.1)


def _figures(fast: _Run, slow: _Run) -> list[Figure]:
    settle_s = Clocks().settle_s
    cached = fast.billed / fast.messages
    return [
        Figure(
            "ai.calls", _per_100(fast), "1/100 messages", 100, "a call a message, no coalescing",
            at_most=_MOST_CALLS, note=_said(fast, _FAST_S) + f"; a conversation settles {settle_s:g} s",
        ),
        Figure(
            "ai.calls.slowly_typed", _per_100(slow), "1/100 messages", 100, "a call a message, no coalescing",
            note=_said(slow, _SLOW_S),
        ),
        Figure("ai.calls.input_tokens", fast.shown / fast.messages, "1/message", note="all that Claude is shown"),
        Figure(
            "ai.calls.input_tokens_cached", cached, "1/message", fast.shown / fast.messages, "the same without caching",
            note=f"at the full price, by the price table: {fast.uncached / fast.messages:.0f} uncached, "
            f"{fast.cache_read / fast.messages:.0f} read, {fast.cache_write / fast.messages:.0f} written; the sandbox "
            "counts four characters a token, and caches prefixes of any length, which Anthropic does not",
        ),
    ]  # fmt: skip


def _per_100(run: _Run) -> float:
    return run.calls / run.messages * 100


def _said(run: _Run, every_s: float) -> str:
    about_messages = run.calls - run.about_conversations
    return (
        f"{run.messages} messages {every_s:g} s apart in bursts of {_BURST}: {about_messages} calls about messages, "
        f"{run.about_conversations} about conversations"
    )
