"""How long the servers of a job took to load, and whether there is time for that before an allocation ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from s1batch.deadline import Deadline
from s1batch.errors import OutOfTime
from s1batch.launching.registry import Registration
from s1batch.results.atomic import write_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """One start of a job's servers, until all of them were ready.

    Attributes:
        seconds: From their start, staging included.
        staging_s: Of that the copying and checking of the checkpoint, on the node where it took longest.
        copied_bytes: What was copied on that node.
        nodes: Where they run.
        finished: When they were ready, in UTC.
    """

    seconds: float
    staging_s: float = 0.0
    copied_bytes: int = 0
    nodes: tuple[str, ...] = ()
    finished: str = ""

    @classmethod
    def of(cls, seconds: float, registrations: Sequence[Registration]) -> Loading:
        """Return the record of servers that have just become ready."""
        slowest = max(registrations, key=lambda each: each.staging_s)
        return cls(
            seconds=round(seconds, 3),
            staging_s=round(slowest.staging_s, 3),
            copied_bytes=slowest.copied_bytes,
            nodes=tuple(each.host for each in registrations),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def told(self) -> str:
        """Return one line for a person."""
        line = f"the servers were ready after {self.seconds:.0f} s"
        if self.staging_s:
            copied = f"copying {self.copied_bytes / 1e9:.3g} GB to the nodes' disks and " if self.copied_bytes else ""
            line += f", {self.staging_s:.0f} s of them for {copied}checking the copies"
        return line


class LoadingFile:
    """The record of the last start, in a file of the results folder.

    Args:
        path: That file.
        deadline: By when the run must be over; None: there is no limit.
    """

    def __init__(self, path: Path, deadline: Deadline | None) -> None:
        self._path = path
        self._deadline = deadline

    def read(self) -> Loading | None:
        """Return the last start; None when there is none."""
        try:
            plain = json.loads(self._path.read_bytes())
            return Loading(**{**plain, "nodes": tuple(plain["nodes"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def write(self, loading: Loading) -> None:
        """Keep a start.

        Raises:
            ResultsError: It cannot be written.
        """
        write_atomic(self._path, json.dumps(asdict(loading), indent=2).encode() + b"\n")

    def require_time(self) -> None:
        """Make sure that servers which load as long as the last time will be ready before the end.

        Raises:
            OutOfTime: They would not.
        """
        last = self.read()
        if last is None or self._deadline is None:
            return
        left_s = self._deadline.left_s
        if last.seconds >= left_s:
            raise OutOfTime(
                f"the servers took {last.seconds:.0f} s to load the last time ({self._path}), and there are "
                f"{left_s:.0f} s left in this allocation: none were started; run again to go on"
            )
