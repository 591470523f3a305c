"""Names for the loopback address in /etc/hosts, while other clusters on this machine do the same."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

HOSTS = Path("/etc/hosts")


def set_hosts(mark: str, names: Sequence[str], path: Path = HOSTS) -> None:
    """Give names the address of loopback; lines that end with the same mark go, and all others stay.

    Whoever looks a name up meanwhile finds the old lines or the new ones: where lines are missing for a moment, a task
    whose node has no name then ends. So the file is replaced as a whole, except where it is a mount, as in containers,
    and can only be written. Two that write at once wait for one another, or one's lines would be lost.

    Args:
        mark: Ends the lines of one writer.
        names: The names; none takes the lines away.
        path: The file.
    """
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = [line for line in path.read_text().splitlines() if not line.endswith(mark)]
        data = ("\n".join([*kept, *(f"127.0.0.1 {name} {mark}" for name in names)]) + "\n").encode()
        made = path.with_name(f".{path.name}.new")
        made.write_bytes(data)
        shutil.copymode(path, made)
        try:
            made.replace(path)
        except OSError:
            made.unlink()
            with path.open("r+b") as file:
                os.pwrite(file.fileno(), data, 0)
                os.ftruncate(file.fileno(), len(data))
