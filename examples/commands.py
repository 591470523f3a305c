"""What the examples share: commands shown as a user would type them, and the folder in which they work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def show(*arguments: str, expect: tuple[int, ...] = (0,)) -> None:
    """Run one s1batch command, print it above what it says, and end the example when it ends unexpectedly.

    Args:
        arguments: Those of the command line.
        expect: Exit codes that are as they should be.
    """
    print(f"\n$ s1batch {' '.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "s1batch", *arguments]).returncode
    if code not in expect:
        sys.exit(f"s1batch {arguments[0]} ended with exit code {code}")


def folder_asked(otherwise: str) -> Path:
    """Return the folder given on the command line, or one in the current folder."""
    return Path(sys.argv[1] if len(sys.argv) > 1 else otherwise)
