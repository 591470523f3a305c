"""Which parts of a run are there: its files, which are the truth about every submission."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s1batch.plan_store import PlanStore
from s1batch.results.layout import Layout
from s1batch.results.store import ResultsStore


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsDone:
    """How far a run is, in parts.

    Attributes:
        parts: How many the plan has; None before there is a plan.
        finished: Those with their file of rows.
    """

    parts: int | None
    finished: frozenset[int]

    @property
    def complete(self) -> bool:
        """Whether every part is there."""
        return self.parts is not None and len(self.finished) >= self.parts


def parts_done(results: Path) -> PartsDone:
    """Return which parts of a run are there.

    Raises:
        ResultsError: Plan or rows cannot be read.
    """
    layout = Layout(results)
    if not layout.plan().exists():
        return PartsDone(parts=None, finished=frozenset())
    parts = PlanStore(results).parts()
    if not layout.schema.exists():
        return PartsDone(parts=parts, finished=frozenset())
    with ResultsStore(results, None) as store:
        return PartsDone(parts=parts, finished=frozenset(store.finished()))
