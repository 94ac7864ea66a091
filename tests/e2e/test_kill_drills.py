"""kill -9, one process at a time, in the middle of customers writing: nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Stack, until

MESSAGES = 30
CUSTOMERS = 6
PROMISED_S = 60.0  # from recovery to the last analysis


async def test_a_message_comes_out_analysed(stack: Stack) -> None:
    wamid = await stack.send(
        name="Ana", wa_id="5511955500001", user_id="BR.4400000001", text="Where is my order 4411? This is terrible!"
    )

    async def is_analysed() -> bool:
        return any(m["wamid"] == wamid and m["analysis"]["state"] == "done" for m in await stack.messages())

    await until(is_analysed, within_s=15, what="the message is analysed")
    message = next(m for m in await stack.messages() if m["wamid"] == wamid)
    assert (message["sentiment"], message["intent"], message["priority"]) == ("negative", "order_status", "high")
    assert message["ai_summary"]
    assert message["suggested_response"]
    assert message["analysis"]["cost_usd"] > 0


@pytest.mark.parametrize("victim", ["ingest", "recorder", "ai_worker", "redis", "postgres"])
async def test_kill_9_loses_nothing_and_doubles_nothing(stack: Stack, victim: str) -> None:
    run = secrets.token_hex(3)
    sent: dict[str, str] = {}
    killed_pid = 0

    for number in range(MESSAGES):
        if number == MESSAGES // 3:
            killed_pid = await stack.kill(victim)
        customer = number % CUSTOMERS
        text = f"{run} message {number}: where is my order?"
        wamid = await stack.send(
            name=f"Customer {customer}", wa_id=f"55119555{customer:05}", user_id=f"BR.55{run}{customer}", text=text
        )
        sent[wamid] = text
        await asyncio.sleep(0.02)  # the load's own pace: the kill falls among messages on their way

    async def is_back() -> bool:
        return stack.description["pids"].get(victim, killed_pid) != killed_pid

    async def is_delivered() -> bool:
        return await stack.undelivered() == 0

    await until(is_back, within_s=30, what=f"{victim} is restarted")
    await until(is_delivered, within_s=30, what="every webhook got its 200")

    async def all_analysed() -> bool:
        done = {m["wamid"] for m in await stack.messages() if m["analysis"]["state"] == "done"}
        return sent.keys() <= done

    await until(all_analysed, within_s=PROMISED_S, what="every message is stored and analysed")
    stored = Counter(m["content"] for m in await stack.messages() if m["wamid"] in sent)
    assert stored == Counter(sent.values())
    asked = await stack.analyses_of(sent.values())
    assert asked.keys() == set(sent.values())
    if victim in ("ingest", "recorder", "redis"):
        # Neither the worker nor what it records into died, so nothing was asked twice.
        assert set(asked.values()) == {1}


@pytest.mark.parametrize("victim", ["sender", "dispatcher"])
async def test_kill_9_sends_nothing_twice(stack: Stack, victim: str) -> None:
    run = secrets.token_hex(3)
    wamids = [
        await stack.send(
            name=f"Customer {n}", wa_id=f"55119556{n:05}", user_id=f"BR.56{run}{n}", text="Can you deliver today?"
        )
        for n in range(CUSTOMERS)
    ]
    conversations = [await stack.conversation_of(wamid) for wamid in wamids]
    killed_pid = 0

    replies = []
    for number in range(2 * CUSTOMERS):
        if number == CUSTOMERS:
            killed_pid = await stack.kill(victim)
        content = {"type": "text", "body": f"{run} reply {number}"}
        asked = {"conversation_id": conversations[number % CUSTOMERS], "content": content}
        replies.append(await reply_until_taken(stack, asked, key=f"{run}-{number}"))

    async def is_back() -> bool:
        return bool(stack.description["pids"].get(victim, killed_pid) != killed_pid)

    await until(is_back, within_s=30, what=f"{victim} is restarted")

    async def all_settled() -> bool:
        found = {m["id"]: m for m in await stack.messages()}
        return all(found[one]["status"] == "read" or is_in_doubt(found[one]) for one in replies)

    # What the dead one held is free once its lease has run out, and what stands behind it after that.
    await until(all_settled, within_s=PROMISED_S, what="every reply is read, or known to be in doubt")
    answer = await stack.http.get(f"{stack.address('sandbox')}/sandbox/accepted")
    accepted = Counter(one["biz_opaque_callback_data"].partition(".")[0] for one in answer.json()["accepted"])
    in_doubt = [m["id"] for m in await stack.messages() if m["id"] in replies and is_in_doubt(m)]
    assert {one: accepted[one] for one in replies} == {one: int(one not in in_doubt) for one in replies}
    assert len(set(replies)) == len(replies)
    assert not in_doubt or victim == "dispatcher"


def is_in_doubt(message: dict[str, Any]) -> bool:
    """What was on its way when its dispatcher died stays so for minutes: Meta's status may still come."""
    return (message["sending"] or {}).get("state") == "in_doubt"


async def reply_until_taken(stack: Stack, asked: dict[str, Any], *, key: str) -> str:
    """Send as a client does that lost an answer: again, under the same key. Return the message's id."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await stack.post("sender", "/api/whatsapp/send", asked, key=key)
                if answer.status_code == 202:
                    return str(answer.json()["id"])
                assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.2)
