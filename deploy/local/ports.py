"""Finding a port nobody listens on."""

from __future__ import annotations

import socket
from collections.abc import Callable

HOST = "127.0.0.1"
NEARBY = (100, 200, 300, 1000)  # tried first, so that 8002 becomes 8102 and not 43817


def is_free(port: int, host: str = HOST) -> bool:
    """Tell whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is not "taken"
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def any_free_port(host: str = HOST) -> int:
    """Return a port the kernel calls free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class PortPicker:
    """Hand out ports, each once; the wanted one if it is free, else one nearby."""

    def __init__(self, *, free: Callable[[int], bool] = is_free, any_free: Callable[[], int] = any_free_port) -> None:
        self._free = free
        self._any_free = any_free
        self._given: set[int] = set()
        self.moved: list[tuple[str, int, int]] = []  # (what, wanted, got), to be told to the user

    def pick(self, what: str, wanted: int) -> int:
        """Return `wanted` or another port, and remember the move."""
        for port in (wanted, *(wanted + step for step in NEARBY)):
            if port < 65536 and port not in self._given and self._free(port):
                break
        else:
            port = self._any_free()
            while port in self._given:
                port = self._any_free()
        self._given.add(port)
        if port != wanted:
            self.moved.append((what, wanted, port))
        return port
