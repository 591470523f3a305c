"""Which requests have their answer: the journals of open parts, and the parts that are finished."""

from __future__ import annotations

import resource
import sys
import time

from tests.benchmarks.simulate.workload import Workload

SAY_EVERY_S = 15.0


class TwiceError(Exception):
    """A request was answered a second time: the simulation, or what it runs, is wrong."""


class Ledger:
    """What survives the end of a client; all clients share it, each for its own parts.

    Args:
        workload: The plan.
        progress: Whether to say on standard error how far it is.

    Attributes:
        answered: Requests with an answer.
        failed: Requests whose row says that the engine failed.
    """

    def __init__(self, workload: Workload, *, progress: bool = False) -> None:
        self.answered = 0
        self.failed = 0
        self._workload = workload
        self._journals: dict[int, set[int]] = {}
        self._is_finished = bytearray(workload.parts)
        self._progress = progress
        self._said = time.monotonic()

    def journal(self, part: int) -> set[int]:
        """Return the requests of an open part that have their row, by their place in the part."""
        return self._journals.setdefault(part, set())

    def open_parts(self, shard: int, shards: int) -> list[int]:
        """Return the parts of a shard that are not finished."""
        return [part for part in range(shard, self._workload.parts, shards) if not self._is_finished[part]]

    def add(self, part: int, place: int, now_s: float, *, failed: bool) -> None:
        """Write a row; a part whose last one this is is finished."""
        journal = self._journals.get(part)
        if journal is None or place in journal:
            raise TwiceError(f"request {place} of part {part} has its row already")
        journal.add(place)
        self.failed += failed
        self.answered += not failed
        if len(journal) == self._workload.size(part):
            del self._journals[part]
            self._is_finished[part] = True
        if self._progress:
            self._say(now_s)

    def is_complete(self) -> bool:
        """Whether every request has exactly one row."""
        return all(self._is_finished) and self.answered + self.failed == self._workload.requests

    def _say(self, now_s: float) -> None:
        if (self.answered + self.failed) & 1023 or time.monotonic() - self._said < SAY_EVERY_S:
            return
        self._said = time.monotonic()
        done, peak_mb = self.answered + self.failed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"  {done:,} of {self._workload.requests:,} after {now_s / 3600:.2f} h; "
            f"CPU {time.process_time():.0f} s, peak {peak_mb:.0f} MB",
            file=sys.stderr,
            flush=True,
        )
