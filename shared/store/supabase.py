"""The store over Supabase's REST API: where a project's address and keys are all that is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import httpx
import structlog
from postgrest.base_request_builder import RequestConfig
from supabase import AsyncClient, AsyncClientOptions, create_async_client

from shared.domain.errors import ParleyError, Rejected, Unavailable, Untrusted
from shared.domain.person import Person
from shared.store.errors import may_pass, rest_refusal

log = structlog.get_logger()

# Between tries, all within one call's deadline: a hiccup passes in the first, a restart of PostgREST in the last.
_RETRY_AFTER_S = (0.1, 0.3, 0.9)
_PROBE_TIMEOUT_S = 2.0


class SupabaseTransport:
    """Calls functions through PostgREST, over one HTTP client for the life of a process.

    `own_token`: what calls that are not a user's run as; None for a process that only acts for users.
    A user's token goes into the headers of that one request and nowhere else: `postgrest.auth()` would set it on the
    client, and so on whatever call comes next.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        own_token: str | None,
        timeout_s: float,
        retry_after_s: Sequence[float] = _RETRY_AFTER_S,
    ) -> None:
        self._client = client
        self._own_token = own_token
        self._timeout_s = timeout_s
        self._retry_after_s = retry_after_s

    async def call(self, function: str, args: Mapping[str, object], as_user: Person | None = None) -> str:
        """See `Store.call`. Repeats what failed on the way, until `timeout_s` is over for all tries together."""
        token = self._own_token if as_user is None else as_user.token
        if token is None and as_user is None:
            raise Rejected(f"{function} needs a signed-in user", code="user_required")
        if token is None:
            hint = "Only tokens with the role authenticated are accepted."
            raise Untrusted("the token is not accepted", code="role_not_accepted", hint=hint)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._call(function, args, token, is_users=as_user is not None)
        except TimeoutError as error:
            raise Unavailable("the database did not answer in time", code="database_unavailable") from error

    async def _call(self, function: str, args: Mapping[str, object], token: str, *, is_users: bool) -> str:
        for pause_s in self._retry_after_s:
            try:
                answer = await _send(self._client.rpc(function, dict(args)).request, token)
            except Unavailable as error:
                log.warning("database.call_repeated", function=function, cause=type(error.__cause__).__name__)
            else:
                if not may_pass(answer.status_code, _body(answer)):
                    return _text(function, answer, is_users=is_users)
                log.warning("database.call_repeated", function=function, status=answer.status_code)
            await asyncio.sleep(pause_s)
        return _text(function, await _send(self._client.rpc(function, dict(args)).request, token), is_users=is_users)

    async def is_reachable(self) -> bool:
        """Say whether PostgREST answers with a database behind it; being refused a table is an answer."""
        token = self._own_token or self._client.supabase_key
        probe = self._client.table("workspaces").select("id").limit(0).request
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                answer = await _send(probe, token)
        except (TimeoutError, Unavailable):
            return False
        return answer.is_success or not isinstance(_refusal(answer, is_users=False), Unavailable)


async def _send(request: RequestConfig[httpx.AsyncClient], token: str) -> httpx.Response:
    request.headers["Authorization"] = f"Bearer {token}"  # of this request: each has headers of its own
    try:
        # Not execute(): it parses the answer, and money would come back as floats; nor does it tell the status.
        return await request.send(httpx.Headers())
    except httpx.TransportError as error:
        raise Unavailable("the database is not reachable", code="database_unavailable") from error


def _text(function: str, answer: httpx.Response, *, is_users: bool) -> str:
    if answer.is_success:
        if not answer.content or answer.content == b"null":
            raise RuntimeError(f"{function} returned nothing")
        return answer.text
    known = _refusal(answer, is_users=is_users)
    if known is None:
        raise RuntimeError(f"{function} failed with HTTP {answer.status_code}: {_body(answer).get('code')}")
    raise known


def _refusal(answer: httpx.Response, *, is_users: bool) -> ParleyError | None:
    known = rest_refusal(answer.status_code, _body(answer), is_users=is_users)
    if known is not None and known.code == "database_key_refused":
        log.error("database.key_refused", hint=known.hint)
    return known


def _body(answer: httpx.Response) -> Mapping[str, object]:
    try:
        body = answer.json()
    except ValueError:  # a gateway's page
        return {}
    return body if isinstance(body, dict) else {}


@asynccontextmanager
async def supabase_transport(
    url: str, *, key: str, own_token: str | None, max_connections: int, timeout_s: float = 5.0
) -> AsyncIterator[SupabaseTransport]:
    """Open a client for the life of a process; opening asks nobody.

    `key`: what the gateway wants as apikey. `timeout_s`: for each request, and for a call with all its tries.
    """
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    # HTTP/2 off: one connection that stalls or is sent away would take every call in flight with it.
    async with httpx.AsyncClient(timeout=timeout_s, limits=limits, http2=False) as http:
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        client = await create_async_client(url, key, options)
        yield SupabaseTransport(client, own_token=own_token, timeout_s=timeout_s)
