"""Where a file of Meta's may be fetched from: the request carries our token, and the address came over the wire.

Three fences, each enough by itself: the host is on a list of ours; redirects are followed by us, to hosts on that list
alone; the name leads to no private address (so that nobody reads our own network through a name they own).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

Resolve = Callable[[str], Awaitable[Collection[str]]]


def may_fetch(url: str, hosts: Collection[str]) -> bool:
    """Say whether an address may be asked for with our token.

    hosts: lower case. HTTPS on its own port only, and nobody's name in front of the host; a loopback host that is on
    the list may be asked over HTTP on any port, since that is the sandbox.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return False
    if host not in hosts or parts.username is not None or parts.password is not None:
        return False
    if host in _LOOPBACK_NAMES:
        return parts.scheme in ("http", "https")
    return parts.scheme == "https" and port in (None, 443)


def is_stand_in(url: str, hosts: Collection[str]) -> bool:
    """Say whether an address is of a stand-in for Meta that the list names whole, as `http://sandbox:8003`.

    Neither HTTPS nor a public address is asked of it: whoever wrote scheme and port into the list meant that server.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return f"{parts.scheme}://{parts.netloc}".lower() in hosts


async def leads_outside(url: str, *, resolve: Resolve | None = None) -> bool:
    """Say whether an address `may_fetch` allows leads to the open internet, or to the sandbox on this machine.

    Asked before the connection is made, which asks again: a name that changes in between is left to the list of hosts.
    Raises: OSError when the name cannot be resolved.
    """
    host = (urlsplit(url).hostname or "").lower()
    if host in _LOOPBACK_NAMES:
        return True
    found = await (resolve or _addresses)(host)
    return bool(found) and all(_is_public(address) for address in found)


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)  # ::ffff:10.0.0.1 is 10.0.0.1
    return (mapped or parsed).is_global and not parsed.is_multicast


async def _addresses(host: str) -> Collection[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    return {str(sockaddr[0]) for *_, sockaddr in found}
