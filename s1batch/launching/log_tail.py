"""The end of a server's output, for a person's terminal."""

from __future__ import annotations

import os
import re
from pathlib import Path

TAIL_BYTES = 16384

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def tail(path: Path, count: int) -> list[str]:
    """Return the last lines of a log, without what would steer a terminal."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [_CONTROL.sub("", line.rpartition("\r")[2]).rstrip() for line in text.rstrip().split("\n")]
    return [line for line in lines if line][-count:]
