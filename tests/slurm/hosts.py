"""Names for the loopback address in /etc/hosts, while other clusters on this machine do the same."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

HOSTS = Path("/etc/hosts")


def set_hosts(mark: str, names: Sequence[str], path: Path = HOSTS) -> None:
    """Give names the address of loopback; lines that end with the same mark go, and all others stay.

    Whoever looks a name up meanwhile finds the old lines or the new ones: a file that is emptied first has none of them
    for a moment, and a task whose node has no name then ends. Two that write at once wait for one another, or one's
    lines would be lost. Written in place, because /etc/hosts may be a mount.

    Args:
        mark: Ends the lines of one writer.
        names: The names; none takes the lines away.
        path: The file.
    """
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        kept = [line for line in file.read().decode().splitlines() if not line.endswith(mark)]
        # Whoever comes first counts.
        text = "\n".join([*(f"127.0.0.1 {name} {mark}" for name in names), *kept]) + "\n"
        data = text.encode()
        os.pwrite(file.fileno(), data, 0)
        os.ftruncate(file.fileno(), len(data))
