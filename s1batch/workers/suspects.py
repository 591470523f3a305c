"""Parts that lost worker after worker: alone on a worker, halved until the chunk is found that ends it.

A worker may also die because its node was preempted or lost. So a death only says where to look next: what was
answered stands in the journal, the rest of the group is halved, and each half is asked again. Only a chunk that is the
single one to be asked, on a worker that does nothing else, and that loses worker after worker so, is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from s1batch.plan_store import PlanStore
from s1batch.records import Refusal
from s1batch.results.store import ResultsStore
from s1batch.scheduler import PartTask
from s1batch.workers.calls import Died

TRIES = 3
"""Workers that a single chunk must have lost, one after the other, before it gets a row without an answer."""

GIVEN_UP_IN_A_ROW = 8
"""Chunks given up without an answer in between after which the run ends: then it is hardly the data."""


class Halving:
    """Finds the chunks of a part that end workers; knows no Dask.

    Args:
        open_chunks: Returns the chunks that may be asked now and have no row, in order.
        tries: How many workers a chunk may lose alone.
    """

    def __init__(self, open_chunks: Callable[[], Sequence[str]], tries: int = TRIES) -> None:
        self._open_chunks = open_chunks
        self._tries = tries
        self._groups: list[list[str]] = []  # the last one is next
        self._losses: dict[str, list[Died]] = {}
        self.given_up: dict[str, list[Died]] = {}
        self.idle_deaths = 0  # of workers that had nothing to ask

    def group(self) -> list[str]:
        """Return the chunks to ask next; empty when each has a row or was given up."""
        left = [key for key in self._open_chunks() if key not in self.given_up]
        while self._groups:
            wanted = set(self._groups[-1])
            found = [key for key in left if key in wanted]
            if found:
                self._groups[-1] = found
                return found
            self._groups.pop()
        if left:
            self._groups.append(left)
        return left

    def losses(self, key: str) -> list[Died]:
        """Return the workers that a chunk has lost alone."""
        return self._losses.get(key, [])

    def died(self, by: Died, asked: Sequence[str]) -> str | None:
        """Note that a worker has died; return the chunk that is given up for it, if any.

        Args:
            by: The worker.
            asked: The chunks that it was to ask: the group of that time.
        """
        if not asked:
            self.idle_deaths += 1
        still = set(self._open_chunks()).intersection(asked)
        left = [key for key in asked if key in still]
        if not left:
            return None  # it had answered all of them, and nobody is to blame
        if len(asked) > 1:
            middle = len(left) // 2
            self._groups[-1:] = [half for half in (left[middle:], left[:middle]) if half]
            return None
        (key,) = left
        losses = self._losses.setdefault(key, [])
        losses.append(by)
        if len(losses) < self._tries:
            return None
        self.given_up[key] = losses
        return key


class Suspect:
    """One part that is run alone, a group of chunks at a time.

    Args:
        task: The part as the run wants it.
        plan: The plan.
        store: The results, read only.
        mark: Path of the file that tells a worker that another one has died of the part, by number of the attempt.
    """

    def __init__(self, task: PartTask, plan: PlanStore, store: ResultsStore, mark: Callable[[int], Path]) -> None:
        self.task = task
        self._plan = plan
        self._store = store
        self._mark = mark
        self._attempt = 0
        self.halving = Halving(self._open)

    @property
    def mark(self) -> Path:
        """The file of this attempt."""
        return self._mark(self._attempt)

    def next(self) -> PartTask:
        """Return what to run next: a group of chunks, with the rows of those that were given up."""
        with suppress(FileNotFoundError):
            self.mark.unlink()
        self._attempt += 1
        given_up = tuple((key, refusal(losses)) for key, losses in self.halving.given_up.items())
        group = self.halving.group()
        only = None if not group and self.task.only is None else frozenset([*group, *(key for key, _ in given_up)])
        return PartTask(self.task.part, only, self.task.turn, given_up)

    def avoided(self) -> set[str]:
        """Return the hosts on which the chunk that is asked next has lost workers."""
        group = self.halving.group()
        return {died.host for died in self.halving.losses(group[0])} if len(group) == 1 else set()

    def close(self) -> None:
        """Remove the last file."""
        with suppress(FileNotFoundError):
            self.mark.unlink()

    def _open(self) -> list[str]:
        part = self.task.part
        finished, found = self._store.answered([part])
        if part in finished:
            return []
        known = found.get(part, frozenset())
        wanted = self.task.only
        left = [key for key in self._plan.keys(part) if key not in known and (wanted is None or key in wanted)]
        scans = self._plan.conditions(part)
        # Windows that depend on a scan are asked when all scans have their rows.
        return [key for key in left if key not in scans] or left


def refusal(losses: Sequence[Died]) -> Refusal:
    """Return why a chunk was given up."""
    places = ", ".join(died.worker for died in losses)
    detail = (
        f"all {len(losses)} workers that asked this chunk alone died ({places}): out of memory, or a crash in the "
        "reader or the engine; their logs may say more"
    )
    return Refusal(outcome="failed", reason="worker_died", detail=detail)
