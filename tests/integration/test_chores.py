"""Chores: claimed for those who can do them, repeated when they fail, recorded, and never done twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest

from services.sender.chores import Again, Chore, ChoreError, Chores, Done, Executor, Failed
from services.sender.leases import Leases
from services.sender.seal import TokenOpener
from shared.domain.errors import Unavailable
from shared.settings.clocks import Clocks
from shared.store.outbox import Outbox
from shared.store.postgres import PostgresTransport
from tests.integration.dispatching import until
from tests.outbox_seed import TOKEN, give_token, new_keys
from tests.world import PHONE_A, World

CLOCKS = replace(Clocks(), poll_every_s=0.05)


class Bench:
    """Numbers with tokens, chores to queue, and processes that do them."""

    def __init__(self, admin: psycopg.AsyncConnection, world: World, store: PostgresTransport, private: str) -> None:
        self.admin = admin
        self.world = world
        self._outbox = Outbox(store)
        self._private = private

    async def queue(self, kind: str, *, workspace: str = "a") -> None:
        ids = (self.world.workspace_a, self.world.channel_a)
        if workspace == "b":
            ids = (self.world.workspace_b, self.world.channel_b)
        await self.admin.execute(
            "select app.queue_chore(%s, %s, %s, '{\"media_id\": \"m\"}', 5::smallint, interval '1 hour')", (*ids, kind)
        )

    async def rows(self, query: str) -> list[tuple[object, ...]]:
        return await (await self.admin.execute(query.encode())).fetchall()

    @asynccontextmanager
    async def working(self, executors: dict[str, Executor], *, slots: int = 4) -> AsyncIterator[Chores]:
        chores = Chores(
            outbox=self._outbox, executors=executors, tokens=TokenOpener([self._private]),
            leases=Leases(self._outbox, CLOCKS), clocks=CLOCKS, slots=slots, deadline_s=0.5,
        )  # fmt: skip

        async def work() -> None:
            while True:
                await chores.do_due()

        task = asyncio.create_task(work())
        try:
            yield chores
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await chores.drain(1)


@pytest.fixture
async def bench(admin: psycopg.AsyncConnection, world: World, service_store: PostgresTransport) -> Bench:
    private, public = new_keys()
    await give_token(admin, world.workspace_a, world.channel_a, public_key=public)
    await give_token(admin, world.workspace_b, world.channel_b, public_key=public)
    return Bench(admin, world, service_store, private)


async def test_each_is_done_by_its_executor_and_those_of_others_are_left(bench: Bench) -> None:
    done: list[Chore] = []

    async def subscribe(chore: Chore) -> Done:
        done.append(chore)
        return Done()

    await bench.queue("channel_subscribe")
    await bench.queue("template_sync")
    async with bench.working({"channel_subscribe": subscribe}):

        async def is_done() -> bool:
            return bool(await bench.rows("select 1 from app.outbox where state = 'done'"))

        await until(is_done, what="it is done")

    assert [(one.kind, one.phone_number_id, one.token, one.attempt) for one in done] == [
        ("channel_subscribe", PHONE_A, TOKEN, 1)
    ]
    assert TOKEN not in repr(done[0])
    assert await bench.rows("select kind, state, attempts from app.outbox order by kind") == [
        ("channel_subscribe", "done", 1),
        ("template_sync", "due", 0),
    ]


async def test_what_fails_for_now_is_tried_again_and_what_breaks_too(bench: Bench) -> None:
    attempts: list[int] = []

    async def stumble(chore: Chore) -> Done | Again:
        attempts.append(chore.attempt)
        if chore.attempt == 1:
            return Again(60.0, ChoreError("transient", "Later."))
        if chore.attempt == 2:
            raise Unavailable("storage is out", code="storage_unavailable")
        if chore.attempt == 3:
            await asyncio.Event().wait()  # until its deadline
        return Done()

    await bench.queue("template_sync")
    async with bench.working({"template_sync": stumble}):
        for attempt in (1, 2, 3, 4):

            async def is_over(attempt: int = attempt) -> bool:
                return await bench.rows(
                    f"select attempts from app.outbox where attempts = {attempt} and lease_token is null"  # noqa: S608
                ) == [(attempt,)]

            await until(is_over, what=f"attempt {attempt} is over")
            await bench.rows("update app.outbox set next_attempt_at = now() where state = 'due' returning 1")

    assert attempts == [1, 2, 3, 4]
    assert await bench.rows("select state, error from app.outbox") == [("done", None)]


async def test_a_token_that_cannot_be_opened_fails_it_with_a_reason(bench: Bench) -> None:
    async def never(_: Chore) -> Failed:
        raise AssertionError("it has no token to do it with")

    await bench.queue("template_sync")
    await bench.rows(
        "update app.channel_tokens set key_id = 'another' where channel_id <> gen_random_uuid() returning 1"
    )
    async with bench.working({"template_sync": never}):

        async def has_failed() -> bool:
            return bool(await bench.rows("select 1 from app.outbox where state = 'failed'"))

        await until(has_failed, what="the unreadable token fails it")
    assert await bench.rows("select error ->> 'reason' from app.outbox") == [("token_unreadable",)]


async def test_workspaces_take_turns_and_slots_bound_what_is_in_hand(bench: Bench) -> None:
    together, most, order = 0, 0, []

    async def take_a_while(chore: Chore) -> Done:
        nonlocal together, most
        together += 1
        most = max(most, together)
        order.append(chore.workspace_id)
        await asyncio.sleep(0.02)
        together -= 1
        return Done()

    for _ in range(12):
        await bench.queue("media_fetch")
    await bench.queue("media_fetch", workspace="b")
    async with bench.working({"media_fetch": take_a_while}, slots=3):

        async def all_done() -> bool:
            return await bench.rows("select count(*) from app.outbox where state = 'done'") == [(13,)]

        await until(all_done, what="all are done")

    assert most == 3
    assert bench.world.workspace_b in order[:3]


async def test_two_processes_do_each_once(bench: Bench) -> None:
    done: list[Chore] = []

    async def note(chore: Chore) -> Done:
        done.append(chore)
        await asyncio.sleep(0.01)
        return Done()

    for _ in range(20):
        await bench.queue("media_fetch")
    async with bench.working({"media_fetch": note}), bench.working({"media_fetch": note}):

        async def all_done() -> bool:
            return await bench.rows("select count(*) from app.outbox where state = 'done'") == [(20,)]

        await until(all_done, what="all are done")

    assert len(done) == len({chore.id for chore in done}) == 20
