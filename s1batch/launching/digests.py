"""What nodes have read of the same checkpoint, side by side on the shared file system.

A network file system that hands one node wrong bytes is caught here, and nowhere else: its copy is a faithful one of
what it was given. Each node writes only its own file, and reads those of the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from s1batch.launching.copying import CopiedFile, FileStamp
from s1batch.results.atomic import write_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A file of which another node has read other bytes.

    Attributes:
        name: The file.
        host: The other node.
        together: Whether that one serves together with this one.
    """

    name: str
    host: str
    together: bool


class SharedDigests:
    """The digests that nodes have noted of one checkpoint.

    Args:
        folder: A folder that all nodes see; one for each checkpoint.
        serving: What this node serves in, the same text on all nodes that serve together.
        host: This node.
    """

    def __init__(self, folder: Path, serving: str, host: str | None = None) -> None:
        self._folder = folder
        self._serving = serving
        self._host = host or os.uname().nodename

    def publish(self, files: Mapping[str, CopiedFile]) -> None:
        """Note what this node has read.

        Raises:
            ResultsError: It cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        plain = {"serving": self._serving, "files": {name: asdict(each) for name, each in files.items()}}
        write_atomic(self._folder / f"{self._host}.json", json.dumps(plain).encode() + b"\n")

    def drop(self, host: str) -> None:
        """Forget what another node has noted; it compares its copy with this node's before it uses it again."""
        (self._folder / f"{host}.json").unlink(missing_ok=True)

    def compare(self, files: Mapping[str, CopiedFile]) -> list[Disagreement]:
        """Return where another node has read other bytes of a file with the same size and time of change."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            if path.stem == self._host or path.name.startswith("."):
                continue
            serving, theirs = _read(path)
            for name, mine in files.items():
                other = theirs.get(name)
                if other is not None and other.stamp == mine.stamp and other.digest != mine.digest:
                    found.append(Disagreement(name=name, host=path.stem, together=serving == self._serving))
        return found


def _read(path: Path) -> tuple[str, dict[str, CopiedFile]]:
    try:
        plain = json.loads(path.read_bytes())
        files = {
            str(name): CopiedFile(stamp=FileStamp(**each["stamp"]), digest=str(each["digest"]))
            for name, each in plain["files"].items()
        }
        return str(plain["serving"]), files
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", {}  # gone, or no such file
