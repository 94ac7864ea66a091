"""Which transport a process gets: PostgreSQL where DATABASE_URL is set, Supabase's REST API otherwise."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from shared.settings.groups import DatabaseSettings, RestAccess
from shared.store.port import Store
from shared.store.postgres import ServiceRole, postgres_transport


def open_store(
    database: DatabaseSettings, rest: RestAccess | None, *, service_role: ServiceRole | None
) -> AbstractAsyncContextManager[Store]:
    """Return the store for the life of a process, to be entered; opening waits for nobody.

    `service_role`: see `PostgresTransport`; over REST the role is the one that `rest.own_token` carries.
    """
    url = database.url.get_secret_value()
    most, timeout_s = database.max_connections, database.timeout_s
    if url:
        return postgres_transport(url, service_role=service_role, max_connections=most, timeout_s=timeout_s)
    if rest is None:
        raise ValueError("neither DATABASE_URL nor SUPABASE_URL with a key is set")  # the settings saw to it
    # Here and not above: supabase-py costs 20 MiB and 0.4 s, which those with DATABASE_URL need not pay (2026-11-23).
    from shared.store.supabase import supabase_transport

    return supabase_transport(
        rest.url, key=rest.key, own_token=rest.own_token, max_connections=most, timeout_s=timeout_s
    )
