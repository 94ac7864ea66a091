"""Get one file from Meta: ask for its address, which lives 5 minutes, then read it in pieces within a bound."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import httpx

from services.sender.graph import Graph, failure_of
from services.sender.media_hosts import Resolve, is_stand_in, leads_outside, may_fetch
from services.sender.spool import Spooled, spooled
from shared.whatsapp.errors import URL_EXPIRED, Failure, Kind, Verdict, classify, classify_download
from shared.whatsapp.wire import mapping

MOST_BYTES = 100 * 1024 * 1024  # Meta's own ceiling for what customers send (fact sheet 2.2.4)
_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class NotFetched(Exception):
    """Meta did not give the file: `verdict` says whether to ask again."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.rule.reason)
        self.verdict = verdict


class Gone(NotFetched):
    """Meta does not know the file, or not any more."""


class HostRefused(Exception):
    """The file is where we do not send our token; an operator may add the host to MEDIA_HOSTS."""


class Corrupt(Exception):
    """What came is not what Meta says the file is."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a file is for the next minutes. sha256: hex, None where Meta gave none."""

    url: str
    mime_type: str | None
    sha256: str | None


class Downloads:
    """Fetches files with a number's token. hosts: see `may_fetch`; folder: where they are put for the moment."""

    def __init__(self, graph: Graph, *, hosts: Collection[str], folder: Path, resolve: Resolve | None = None) -> None:
        self._graph = graph
        self._hosts = hosts
        self._folder = folder
        self._resolve = resolve

    @asynccontextmanager
    async def fetch(
        self, meta_id: str, *, phone_number_id: str, token: str, sha256: str | None
    ) -> AsyncIterator[tuple[Address, Spooled]]:
        """Yield a file that is wholly here and is what Meta says it is; it is gone afterwards, unless it was moved.

        sha256: hex, as the webhook told. An address that has run out is asked for once more, at once.
        Raises: NotFetched, Gone, HostRefused, Corrupt, TooLarge.
        """
        async with AsyncExitStack() as stack:
            try:
                address, file = await self._file(stack, meta_id, phone_number_id, token)
            except NotFetched as error:
                if error.verdict.rule is not URL_EXPIRED:
                    raise
                address, file = await self._file(stack, meta_id, phone_number_id, token)
            expected = {digest for digest in (sha256, address.sha256) if digest}
            if expected and expected != {file.sha256}:
                raise Corrupt
            yield address, file

    async def _file(
        self, stack: AsyncExitStack, meta_id: str, phone_number_id: str, token: str
    ) -> tuple[Address, Spooled]:
        address = await self._address(meta_id, phone_number_id, token)
        async with aclosing(self._read(address.url, token)) as pieces:
            return address, await stack.enter_async_context(spooled(pieces, folder=self._folder, most_bytes=MOST_BYTES))

    async def _address(self, meta_id: str, phone_number_id: str, token: str) -> Address:
        answer = await self._graph.get(meta_id, token=token, params={"phone_number_id": phone_number_id})
        verdict = classify(answer.status, answer.body, answer.failure, is_repeatable=True)
        if verdict.kind is not Kind.ACCEPTED:
            # 100 with 33: an object that does not exist (or is another number's). Source: fact sheet 5.4.
            raise Gone(verdict) if (verdict.meta_code, verdict.meta_subcode) == (100, 33) else NotFetched(verdict)
        body = mapping(answer.body)
        url, kind = body.get("url"), body.get("mime_type")
        if not isinstance(url, str):
            raise NotFetched(classify(None, is_repeatable=True))
        return Address(url, kind if isinstance(kind, str) else None, hex_sha256(body.get("sha256")))

    async def _read(self, url: str, token: str) -> AsyncGenerator[bytes, None]:
        for _ in range(_MOST_REDIRECTS + 1):
            await self._check(url)
            try:
                async with self._graph.stream(url, token=token) as answer:
                    location = answer.headers.get("location")
                    if answer.status_code in _REDIRECTS and location:
                        url = urljoin(url, location)
                        continue
                    if answer.status_code != 200:
                        raise NotFetched(classify_download(answer.status_code))
                    async for piece in answer.aiter_bytes():
                        yield piece
                    return
            except (httpx.RequestError, aiohttp.ClientError, TimeoutError) as error:
                raise NotFetched(classify_download(None, failure_of(error))) from error
        raise NotFetched(classify_download(502))

    async def _check(self, url: str) -> None:
        if is_stand_in(url, self._hosts):
            return
        if not may_fetch(url, self._hosts):
            raise HostRefused
        try:
            is_outside = await leads_outside(url, resolve=self._resolve)
        except OSError as error:
            raise NotFetched(classify_download(None, Failure.DNS)) from error
        if not is_outside:
            raise HostRefused


def hex_sha256(value: object) -> str | None:
    """Return a digest as hex, from hex (the API) or base64 (webhooks); None for anything else."""
    if not isinstance(value, str):
        return None
    if len(value) == 64:
        try:
            return bytes.fromhex(value).hex()
        except ValueError:
            return None
    try:
        decoded = b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded.hex() if len(decoded) == 32 else None
