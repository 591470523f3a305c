"""Ports for servers that a test starts a little later."""

from __future__ import annotations

import random
import socket
from contextlib import closing
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000


def free_ports(count: int = 1) -> int:
    """Return a port that is free, and so are the next ones.

    They lie below those that the system gives to connections: none that is made meanwhile gets one of them.
    """
    end = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    if end < _LOWEST + 1000:
        end = 65_000
    for _ in range(1000):
        first = random.SystemRandom().randrange(_LOWEST, end - count)
        if all(map(_is_free, range(first, first + count))):
            return first
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
