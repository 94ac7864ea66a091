"""The transport every store uses: one round trip, one transaction, no power left behind, dead connections replaced."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from shared.domain.errors import Unavailable
from shared.store import postgres
from shared.store.postgres import PostgresTransport, postgres_transport
from tests.conftest import Database

_PROBES = """
create function public.probe_role() returns jsonb language sql as
  $$ select to_jsonb(array[current_user::text, current_setting('request.jwt.claims', true)]) $$;
create function public.probe_failure() returns jsonb language plpgsql as
  $$ begin insert into public.probes values (1); raise exception 'no' using errcode = 'PT409', detail = 'no'; end $$;
create function public.probe_write() returns jsonb language plpgsql as
  $$ begin insert into public.probes values (1); return 'true'; end $$;
create table public.probes (n int);
grant all on public.probes to service_role;
"""
_KILL = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'test_service'"


@pytest.fixture
async def store(database: Database, admin: psycopg.AsyncConnection) -> AsyncIterator[PostgresTransport]:
    await admin.execute(_PROBES)
    async with postgres_transport(database.url("test_service"), service_role="service_role", max_connections=1) as made:
        yield made


async def _left_behind(store: PostgresTransport) -> tuple[object, ...] | None:
    async with store._pool.connection() as connection:
        cursor = await connection.execute(
            "select current_user, current_setting('request.jwt.claims', true), pg_current_xact_id_if_assigned()"
        )
        return await cursor.fetchone()


async def test_a_call_has_its_role_and_leaves_none_behind(store: PostgresTransport) -> None:
    assert await store.call("probe_role", {}) == '["service_role", ""]'
    assert await _left_behind(store) == ("anon", "", None)


async def test_a_call_is_a_transaction_and_done_when_it_returns(
    store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await store.call("probe_write", {})
    with pytest.raises(Exception, match="no"):
        await store.call("probe_failure", {})

    assert await (await admin.execute("select count(*) from public.probes")).fetchone() == (1,)
    assert await _left_behind(store) == ("anon", "", None)


async def test_a_dead_connection_is_replaced_before_it_is_used(
    store: PostgresTransport, admin: psycopg.AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.call("probe_role", {})
    await admin.execute(_KILL)
    with pytest.raises(Unavailable):
        await store.call("probe_role", {})  # it answered just now, so it is believed
    await store.call("probe_role", {})

    monkeypatch.setattr(postgres, "_SURELY_ALIVE_S", 0.0)
    await admin.execute(_KILL)
    await store.call("probe_role", {})
