"""Results of finished parts for the tests of what compacts and merges them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from s1batch.records import PlanEntry, Row
from s1batch.results.store import ResultsStore
from tests.plans import SCHEMA, minutes, row, stretch, write_plan

MakeRow = Callable[[int, PlanEntry], Row]


def plain_row(number: int, entry: PlanEntry) -> Row:
    """A row whose text is its number; every seventh one failed."""
    if number % 7 == 3:
        return row(entry, outcome="failed", reason="connection", answer={}, text=f"{number}")
    return row(entry, text=f"{number} é\0", answer={"contain": None, "p_time": 60 * number + 1, "score": number / 3})


def write_results(
    path: Path,
    count: int = 40,
    *,
    per_part: int = 4,
    parts: Collection[int] | None = None,
    make: MakeRow = plain_row,
    entries: Sequence[PlanEntry] | None = None,
) -> list[Row]:
    """Plan minutes of one channel and finish parts of them (None: all); return the rows of those."""
    if entries is None:
        entries = minutes(count, per_part=per_part)
        write_plan(path, [*entries, stretch(0, count * 6000)])
    rows = [make(number, entry) for number, entry in enumerate(entries)]
    kept = []
    with ResultsStore(path, SCHEMA) as store:
        for part in sorted({each.part for each in rows}):
            if parts is not None and part not in parts:
                continue
            mine = [each for each in rows if each.part == part]
            with store.open_part(part) as writer:
                for each in mine:
                    writer.append(each)
                writer.finish([each.chunk_key for each in mine])
            kept += [SCHEMA.fit(each) for each in mine]
    return kept


def rows_of(path: Path) -> list[Row]:
    """All rows of finished parts, in the order in which the store gives them."""
    with ResultsStore(path, SCHEMA) as store:
        files = store.files()
        return [each for part in sorted(files.finished) for each in SCHEMA.rows_from_table(files.read(part))]
