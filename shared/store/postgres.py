"""The store over a direct PostgreSQL connection: what every hot path uses."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Literal, LiteralString
from weakref import WeakKeyDictionary

import orjson
import psycopg
import structlog
from psycopg import sql
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from shared.domain.errors import BadData, Rejected, Unavailable
from shared.domain.person import Person
from shared.store.errors import refusal

log = structlog.get_logger()

ServiceRole = Literal["service_role", "parley_ingest"]

_CHECK_S = 1.0  # a pooled connection that does not answer an empty query by then is given up
_SURELY_ALIVE_S = 1.0  # one that answered so recently is not asked: on a busy path the question doubles the round trips

_SWITCH_ROLE: LiteralString = "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)"


class PostgresTransport:
    """Calls functions over a pool whose connections start as `anon`: a call that forgets its role can do nothing.

    `service_role`: the literal role of calls that are not a user's; None for a process that only acts for users.
    """

    def __init__(
        self, pool: AsyncConnectionPool, *, service_role: ServiceRole | None, timeout_s: float, alive: _Alive
    ) -> None:
        self._pool = pool
        self._service_role = service_role
        self._timeout_s = timeout_s
        self._alive = alive

    async def call(self, function: str, args: Mapping[str, object], as_user: Person | str | None = None) -> str:
        """See `Store.call`; `as_user` may also be claims alone, which is all that Postgres is shown of a person.

        One network round trip: role and call travel in one pipeline, which is one implicit transaction (the connections
        are in autocommit mode, so nothing but the pipeline's end commits; PostgreSQL, "Pipeline Mode").
        """
        role = "authenticated" if as_user is not None else self._service_role
        if role is None:
            raise Rejected(f"{function} needs a signed-in user", code="user_required")
        claims = as_user.claims if isinstance(as_user, Person) else as_user or ""
        query = _query(function, tuple(args))
        values = {name: _jsonb(value) if isinstance(value, dict | list) else value for name, value in args.items()}
        try:
            async with self._pool.connection() as connection:
                with _hanging_up_after(connection, self._timeout_s + 1):
                    async with connection.pipeline():
                        await connection.execute(_SWITCH_ROLE, (role, claims))
                        cursor = await connection.execute(query, values)
                    row = await cursor.fetchone()
                    self._alive.answered(connection)
        except PoolTimeout as error:
            raise Unavailable("no database connection is free", code="database_unavailable") from error
        except psycopg.DataError as error:
            # Without a SQLSTATE the driver itself could not send the value (U+0000 in a text, say).
            state = error.sqlstate or "22000"
            raise BadData(f"the database refused a value (SQLSTATE {state})", code=f"sqlstate_{state}") from error
        except psycopg.Error as error:
            diag = error.diag
            known = refusal(error.sqlstate, diag.message_primary or str(error), diag.message_detail, diag.message_hint)
            if known is None:
                raise
            raise known from error
        if row is None or row[0] is None:
            raise RuntimeError(f"{function} returned nothing")
        text: str = row[0]
        return text

    async def is_reachable(self) -> bool:
        """Say whether a connection can be had now; for readiness."""
        try:
            async with self._pool.connection(timeout=2) as connection:
                await _check(connection)
        except (psycopg.Error, PoolTimeout):
            return False
        return True


def _jsonb(value: object) -> Jsonb:
    return Jsonb(value, dumps=_dumps)


def _dumps(value: object) -> bytes:
    # A sixteenth of the standard library's time, an eighth of a recorder's (2026-11-24); integers past 64 bits,
    # which Meta may nest anywhere, are beyond it.
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def _query(function: str, names: tuple[str, ...]) -> sql.Composed:
    arguments = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in names
    )
    return sql.SQL("select public.{}({})::text").format(sql.Identifier(function), arguments)


@contextmanager
def _hanging_up_after(connection: psycopg.AsyncConnection, timeout_s: float) -> Iterator[None]:
    """Shut the connection's socket if the block takes longer: its awaits then end with an OperationalError.

    The server's own statement_timeout cannot help when the server hangs or is gone, and cancelling a psycopg call
    waits for that server first (measured 2026-11-23: 12 s instead of 2 with its processes stopped).
    """

    def hang_up() -> None:
        if connection.closed:
            return
        log.warning("database.hung_up", timeout_s=timeout_s)
        with socket.socket(fileno=os.dup(connection.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)

    timer = asyncio.get_running_loop().call_later(timeout_s, hang_up)
    try:
        yield
    finally:
        timer.cancel()


async def _check(connection: psycopg.AsyncConnection) -> None:
    """See that a pooled connection still answers, soon."""
    with _hanging_up_after(connection, _CHECK_S):
        await AsyncConnectionPool.check_connection(connection)


class _Alive:
    """Checks a pooled connection before it is used, unless it answered just now."""

    def __init__(self) -> None:
        self._answered_at: WeakKeyDictionary[psycopg.AsyncConnection, float] = WeakKeyDictionary()

    def answered(self, connection: psycopg.AsyncConnection) -> None:
        """Remember that it is alive."""
        self._answered_at[connection] = time.monotonic()

    async def __call__(self, connection: psycopg.AsyncConnection) -> None:
        if time.monotonic() - self._answered_at.get(connection, float("-inf")) > _SURELY_ALIVE_S:
            await _check(connection)


class TransactionPoolerError(RuntimeError):
    """The database is behind a pooler that hands each transaction another connection."""


class _Powerless:
    """Makes each new connection anon for good; refuses poolers on which "for good" ends with the transaction."""

    def __init__(self) -> None:
        self._refused = False  # for the life of the process: under load one lucky probe proves nothing

    async def __call__(self, connection: psycopg.AsyncConnection) -> None:
        await connection.execute("set role anon")
        is_direct = connection.info.backend_pid == await _value(connection, "select pg_backend_pid()")
        await connection.commit()
        if is_direct:
            return
        # Something stands between us and the server. While another session holds a transaction open, ours must still
        # be anon, and the other must not have become so through us. (Tried with PgBouncer 1.18 in both modes.)
        address = connection.info.dsn
        async with await psycopg.AsyncConnection.connect(address, password=connection.info.password) as other:
            theirs = await _value(other, "select current_setting('role')")
            ours = await _value(connection, "select current_setting('role')")
            await connection.commit()
        self._refused = self._refused or theirs == "anon" or ours != "anon"
        if self._refused:
            hint = "Use the direct or session-mode address, not the transaction pooler's."
            log.error("database.pooler_refused", hint=hint)
            raise TransactionPoolerError(hint)


async def _value(connection: psycopg.AsyncConnection, query: LiteralString) -> object:
    row = await (await connection.execute(query)).fetchone()
    return row[0] if row else None


@asynccontextmanager
async def postgres_transport(
    database_url: str, *, service_role: ServiceRole | None, max_connections: int, timeout_s: float = 5.0
) -> AsyncIterator[PostgresTransport]:
    """Open a pool for the life of a process.

    `timeout_s`: for a free connection, and for every statement. Opening does not wait for the database: a process
    started before it says so through readiness and goes on trying.
    """
    alive = _Alive()
    pool = AsyncConnectionPool(
        database_url,
        open=False,
        min_size=1,
        max_size=max_connections,
        timeout=timeout_s,
        reconnect_timeout=10,
        configure=_Powerless(),
        check=alive,
        kwargs={
            "autocommit": True,
            "connect_timeout": 4,
            # A host that vanished without a word: the kernel's own patience is a quarter of an hour.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,  # ms
            "options": f"-c statement_timeout={int(timeout_s * 1000)} -c idle_in_transaction_session_timeout=10000",
            "application_name": "parley",
        },
    )
    await pool.open()
    try:
        yield PostgresTransport(pool, service_role=service_role, timeout_s=timeout_s, alive=alive)
    finally:
        await pool.close(timeout=2)
