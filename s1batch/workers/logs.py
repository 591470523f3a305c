"""The end of a log, for a message of one line."""

from __future__ import annotations

from pathlib import Path

TAIL_BYTES = 2000
LINES = 3


def last_lines(path: Path) -> str:
    """Return the last lines of a log in one line; says so when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"no log ({error.strerror})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-LINES:]) or "the log is empty"
