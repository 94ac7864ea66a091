"""Numbers are connected, checked, paused and let go: over HTTP, in PostgreSQL, at the sandbox's Graph."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from services.api.shapes import Channel, ChannelList, WorkspaceSettings
from services.sender.chores import Done, Failed
from shared.domain.ids import new_id
from shared.store.channels import ChannelWork
from shared.store.postgres import PostgresTransport
from tests.integration.chore_runs import KEYS, TOKEN, ChoreRun, chore_run, give_token
from tests.integration.conftest import ClaudeSandbox
from tests.integration.lifecycle_rows import add_member
from tests.integration.test_api import Client, as_problem, client_of
from tests.world import PHONE_A, WABA_A, World

CHANNELS = "/api/whatsapp/channels"
NUMBER = {"waba_id": WABA_A, "phone_number_id": PHONE_A, "access_token": TOKEN}


@pytest.fixture
async def client(api_store: PostgresTransport) -> AsyncIterator[Client]:
    async with client_of(api_store, token_public_key=KEYS.public_key) as made:
        yield made


@pytest.fixture
async def run(service_store: PostgresTransport, claude_process: ClaudeSandbox) -> AsyncIterator[ChoreRun]:
    async with chore_run(service_store, claude_process) as made:
        yield made


class Manager:
    """Somebody who runs a workspace's numbers."""

    def __init__(self, client: Client, workspace_id: UUID, user: UUID) -> None:
        self._client, self._user, self.params = client, user, {"workspace_id": str(workspace_id)}

    async def ask(self, method: str, path: str = "", body: Any = None, where: str = CHANNELS) -> Any:
        return await self._client.ask(where + path, method=method, user=self._user, params=self.params, json=body)

    async def do(self, method: str, path: str = "", body: Any = None) -> Channel:
        answer = await self.ask(method, path, body)
        assert answer.status_code in (200, 202), answer.text
        return Channel.model_validate_json(answer.content)

    async def refused(self, method: str, path: str = "", body: Any = None, where: str = CHANNELS) -> tuple[int, str]:
        return as_problem(await self.ask(method, path, body, where))


@pytest.fixture
def owner(client: Client, world: World) -> Manager:
    return Manager(client, world.workspace_a, world.owner_a)


async def forget_channel(admin: psycopg.AsyncConnection, world: World) -> None:
    """Take the number away that every world has, so that it can be connected."""
    await admin.execute("delete from public.whatsapp_channels where id = %s", (world.channel_a,))


async def kinds_due(admin: psycopg.AsyncConnection) -> list[str]:
    cursor = await admin.execute("select kind from app.outbox where state = 'due' order by kind")
    return [kind for (kind,) in await cursor.fetchall()]


async def audited(admin: psycopg.AsyncConnection) -> list[str]:
    cursor = await admin.execute("select action from public.audit_log order by id")
    return [action for (action,) in await cursor.fetchall()]


async def test_a_number_is_ours_once_meta_has_shown_it_with_the_token(
    owner: Manager, world: World, admin: psycopg.AsyncConnection, run: ChoreRun
) -> None:
    await forget_channel(admin, world)

    begun = await owner.do("POST", body=NUMBER)
    assert (begun.state, begun.has_token, begun.display_phone_number) == ("connecting", True, "")
    assert await kinds_due(admin) == ["channel_check"]
    assert await run.once() == [("channel_check", Done())]
    connected = await owner.do("GET", f"/{begun.id}")
    assert await kinds_due(admin) == ["channel_subscribe", "template_sync"]
    assert await run.once() == [("channel_subscribe", Done())]
    subscribed = await owner.do("GET", f"/{begun.id}")

    assert connected.model_dump(
        include={"state", "display_phone_number", "quality", "messaging_limit", "verified_name", "paused_reason"}
    ) == {
        "state": "connected",
        "display_phone_number": "12025550143",
        "quality": "green",
        "messaging_limit": "10000",
        "verified_name": "Casa Verde",
        "paused_reason": None,
    }
    assert connected.last_check is not None
    assert (connected.last_check.outcome, connected.last_check.findings) == ("ok", [])
    assert subscribed.subscription is not None
    assert subscribed.subscription.is_subscribed
    cursor = await admin.execute("select portfolio_id from public.whatsapp_channels where id = %s", (begun.id,))
    assert await cursor.fetchall() == [("690113358247715",)]
    assert await audited(admin) == ["channel.connecting", "channel.connected"]


async def test_the_token_is_stored_for_the_sender_alone(
    owner: Manager, admin: psycopg.AsyncConnection, world: World
) -> None:
    secret = "EAAG-a-secret-of-this-test"

    answer = await owner.ask("POST", body=NUMBER | {"access_token": secret})

    assert answer.status_code == 202
    assert secret not in answer.text
    cursor = await admin.execute(
        "select t.channel_id, t.key_id, t::text || (select jsonb_agg(l)::text from public.audit_log l)"
        " || (select jsonb_agg(o)::text from app.outbox o) from app.channel_tokens t"
    )
    ((channel_id, key_id, everything),) = await cursor.fetchall()
    assert (channel_id, key_id) == (world.channel_a, KEYS.key_id)
    assert secret not in everything


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ({"access_token": "nobody's-token"}, "auth"),
        ({"phone_number_id": "999999999999999"}, "not_visible"),
    ],
)
async def test_what_meta_does_not_show_is_not_connected(
    owner: Manager,
    world: World,
    admin: psycopg.AsyncConnection,
    run: ChoreRun,
    number: dict[str, str],
    code: str,
) -> None:
    await forget_channel(admin, world)
    begun = await owner.do("POST", body=NUMBER | number)

    ((_, outcome),) = await run.once()
    refused = await owner.do("GET", f"/{begun.id}")

    assert isinstance(outcome, Failed)
    assert (refused.state, refused.has_token) == ("disconnected", False)
    assert refused.last_check is not None
    assert (refused.last_check.outcome, [one.code for one in refused.last_check.findings]) == ("fail", [code])
    assert await kinds_due(admin) == []
    assert await audited(admin) == ["channel.connecting", "channel.refused"]


async def test_a_number_belongs_to_one_workspace_at_a_time(
    client: Client, world: World, admin: psycopg.AsyncConnection, owner: Manager, run: ChoreRun
) -> None:
    other = Manager(client, world.workspace_b, world.owner_b)

    assert await other.refused("POST", body=NUMBER) == (409, "number_taken")
    await owner.do("POST", f"/{world.channel_a}/disconnect")
    begun = await other.do("POST", body=NUMBER)
    back = await owner.do("POST", body=NUMBER)  # both wait for Meta; the first to be confirmed has it
    outcomes = await run.once("channel_check")

    states = {
        (await other.do("GET", f"/{begun.id}")).state,
        (await owner.do("GET", f"/{back.id}")).state,
    }
    assert [type(outcome) for _, outcome in outcomes] == [Done, Done]
    assert (begun.state, back.id, back.state) == ("connecting", world.channel_a, "connecting")
    assert states == {"connected", "disconnected"}
    cursor = await admin.execute("select count(*) from public.whatsapp_channels where phone_number_id = %s", (PHONE_A,))
    assert await cursor.fetchall() == [(2,)]


async def test_another_token_goes_to_a_number_that_is_ours(
    owner: Manager, world: World, admin: psycopg.AsyncConnection
) -> None:
    await give_token(admin, world.workspace_a, world.channel_a, "an-older-token")
    await admin.execute("update public.whatsapp_channels set state = 'paused', paused_reason = 'auth'")

    renewed = await owner.do("POST", body=NUMBER)
    again = await owner.do("POST", body=NUMBER)

    assert (renewed.id, renewed.state, renewed.paused_reason) == (world.channel_a, "connected", None)
    assert again.id == renewed.id
    assert await kinds_due(admin) == ["channel_check", "channel_subscribe", "template_sync"]
    assert await owner.refused("POST", body=NUMBER | {"waba_id": "1234567890"}) == (409, "channel_of_other_account")
    await admin.execute("update public.whatsapp_channels set state = 'paused', paused_reason = 'by_person'")
    assert (await owner.do("POST", body=NUMBER)).state == "paused"


async def test_a_number_is_paused_resumed_and_let_go(
    owner: Manager, world: World, admin: psycopg.AsyncConnection
) -> None:
    await give_token(admin, world.workspace_a, world.channel_a)
    await admin.execute(
        'select app.merge_channel_facts(%s, %s, \'{"pin": [1, "pin_changed"]}\')', (world.workspace_a, world.channel_a)
    )
    await admin.execute(
        "update public.whatsapp_channels set marketing_paused_at = now() where id = %s", (world.channel_a,)
    )
    await admin.execute(
        "select app.queue_chore(%s, %s, 'channel_check', '{}', 5::smallint, '1 day')",
        (world.workspace_a, world.channel_a),
    )
    path = f"/{world.channel_a}"

    # Each twice: asking for what is so already succeeds, and is not logged.
    paused, _ = [await owner.do("POST", f"{path}/pause") for _ in range(2)]
    resumed, _ = [await owner.do("POST", f"{path}/resume") for _ in range(2)]
    gone, _ = [await owner.do("POST", f"{path}/disconnect") for _ in range(2)]

    assert (paused.state, paused.paused_reason, paused.hold_reason) == ("paused", "by_person", "pin_changed")
    assert (resumed.state, resumed.paused_reason, resumed.hold_reason) == ("connected", None, None)
    assert resumed.marketing_paused_at is None
    assert (gone.state, gone.has_token) == ("disconnected", False)
    assert await kinds_due(admin) == []
    assert await audited(admin) == ["channel.paused", "channel.resumed", "channel.disconnected"]
    for verb in ("pause", "resume"):
        assert await owner.refused("POST", f"{path}/{verb}") == (409, "channel_not_connected")


async def test_the_list_says_what_waits_and_what_it_costs(
    client: Client, world: World, admin: psycopg.AsyncConnection
) -> None:
    await admin.execute(
        "insert into app.outbox (workspace_id, id, channel_id, kind, state, expires_at, next_attempt_at)"
        " select %s, gen_random_uuid(), %s, 'message', s, now() + interval '1 day', now() - n * interval '1 minute'"
        " from unnest(array['due', 'due', 'waiting', 'done']) with ordinality u(s, n)",
        (world.workspace_a, world.channel_a),
    )
    await admin.execute(
        "insert into public.channel_usage (workspace_id, channel_id, month, service_messages) values"
        " (%(w)s, %(c)s, date_trunc('month', now() at time zone 'utc'), 7),"
        " (%(w)s, %(c)s, date_trunc('month', now() at time zone 'utc') - interval '1 month', 999)",
        {"w": world.workspace_a, "c": world.channel_a},
    )
    viewer = Manager(client, world.workspace_a, await add_member(admin, world.workspace_a, "viewer"))

    answer = await viewer.ask("GET")

    (shown,) = ChannelList.model_validate_json(answer.content).items
    assert (shown.outbox_depth, shown.service_messages, shown.service_messages_free) == (2, 7, 1000)
    assert (shown.has_token, shown.state, shown.last_check) == (False, "connected", None)
    cursor = await admin.execute("select min(next_attempt_at) from app.outbox where state = 'due'")
    assert await cursor.fetchall() == [(shown.outbox_oldest_at,)]


async def test_who_does_not_run_the_workspace_is_refused(
    client: Client, world: World, admin: psycopg.AsyncConnection
) -> None:
    calls = [
        ("POST", "", NUMBER),
        *(("POST", f"/{world.channel_a}/{verb}", None) for verb in ("pause", "resume", "disconnect")),
    ]
    agent = Manager(client, world.workspace_a, await add_member(admin, world.workspace_a, "agent"))
    stranger = Manager(client, world.workspace_a, world.owner_b)

    found = {(await who.refused(*call)) for call in calls for who in (agent, stranger)}

    assert found == {(403, "role_may_not_manage"), (404, "channel_not_found"), (404, "workspace_not_found")}
    assert await stranger.refused("GET", f"/{world.channel_a}") == (404, "channel_not_found")
    assert await audited(admin) == []


async def test_without_a_key_and_without_sense_nothing_is_connected(
    owner: Manager, world: World, api_store: PostgresTransport
) -> None:
    async with client_of(api_store) as client:
        keyless = Manager(client, world.workspace_a, world.owner_a)
        assert await keyless.refused("POST", body=NUMBER) == (409, "token_key_missing")
    assert await owner.refused("POST", body=NUMBER | {"access_token": "two words"}) == (422, "token_not_valid")
    for wrong in ({"waba_id": "abc"}, {"phone_number_id": ""}, {"access_token": ""}):
        assert await owner.refused("POST", body=NUMBER | wrong) == (422, "not_valid")


async def test_every_number_with_a_token_is_checked_daily(
    world: World, admin: psycopg.AsyncConnection, service_store: PostgresTransport, run: ChoreRun
) -> None:
    await give_token(admin, world.workspace_a, world.channel_a)
    work = ChannelWork(service_store)

    queued = [await work.schedule_checks(), await work.schedule_checks()]
    await run.once("channel_check")
    queued.append(await work.schedule_checks())
    await admin.execute("update public.whatsapp_channels set checked_at = now() - interval '25 hours'")
    queued.append(await work.schedule_checks())

    assert queued == [1, 0, 0, 1]


async def test_a_check_pauses_a_number_whose_token_is_dead(
    owner: Manager, world: World, admin: psycopg.AsyncConnection, run: ChoreRun, service_store: PostgresTransport
) -> None:
    await give_token(admin, world.workspace_a, world.channel_a, "a-token-that-was-withdrawn")
    await ChannelWork(service_store).schedule_checks()

    await run.once("channel_check")

    shown = await owner.do("GET", f"/{world.channel_a}")
    assert (shown.state, shown.paused_reason, shown.has_token) == ("paused", "auth", True)


async def test_settings_are_changed_by_who_runs_the_workspace(
    owner: Manager, client: Client, world: World, admin: psycopg.AsyncConnection
) -> None:
    where = "/api/workspace/settings"
    agent = Manager(client, world.workspace_a, await add_member(admin, world.workspace_a, "agent"))
    await admin.execute('update public.workspaces set settings = \'{"tone": "warm"}\'')

    async def settings(method: str, body: Any = None, who: Manager = owner) -> dict[str, Any]:
        answer = await who.ask(method, body=body, where=where)
        assert answer.status_code == 200, answer.text
        return WorkspaceSettings.model_validate_json(answer.content).model_dump(exclude={"workspace_id"})

    assert await settings("GET", who=agent) == {
        "mark_read": "on_receipt",
        "reopen_archived": False,
        "vision": False,
    }
    assert (await settings("PATCH", {"mark_read": "never"}))["mark_read"] == "never"
    changed = {"mark_read": "never", "reopen_archived": True, "vision": True}
    asked = {"reopen_archived": True, "vision": True}
    assert [await settings("PATCH", asked) for _ in range(2)] == [changed, changed]
    assert await agent.refused("PATCH", body={"mark_read": "on_open"}, where=where) == (403, "role_may_not_manage")
    for wrong in ({"mark_read": "sometimes"}, {"reopen_archived": "yes"}, {"vision": 1}, {"tone": "cold"}):
        assert await owner.refused("PATCH", body=wrong, where=where) == (422, "not_valid")
    cursor = await admin.execute("select settings from public.workspaces where id = %s", (world.workspace_a,))
    assert await cursor.fetchall() == [({"tone": "warm"} | changed,)]
    assert await audited(admin) == ["workspace.settings_changed"] * 2


async def test_an_unknown_number_is_not_found(owner: Manager) -> None:
    for call in (
        ("GET", f"/{new_id()}"),
        *(("POST", f"/{new_id()}/{verb}") for verb in ("pause", "resume", "disconnect")),
    ):
        assert await owner.refused(*call) == (404, "channel_not_found")
