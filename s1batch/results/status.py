"""How far a run is, from its files alone; nothing is locked, so a run may go on meanwhile."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from s1batch.plan_store import PlanStore
from s1batch.results.atomic import results_errors
from s1batch.results.holder import Holder, read_holder
from s1batch.results.journal import read_journal
from s1batch.results.journal_turns import is_turn
from s1batch.results.layout import Layout
from s1batch.results.lease import STALE_S
from s1batch.results.part_files import PartFiles
from s1batch.results.part_writer import part_journals
from s1batch.results.process import ProcessIdentity
from s1batch.results.rows_file import naming_damage
from s1batch.results.store import ResultsStore
from s1batch.times import format_ns

RATE_OVER_S = 600.0
"""The rate is that of the last ten minutes of work, so that pauses between runs do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostHolder:
    """A process that left leases behind and works no more.

    Attributes:
        holder: Its oldest lease.
        why: How that is known, for a person.
        free: Whether others may take its parts already, wherever they run.
    """

    holder: Holder
    why: str
    free: bool

    def __str__(self) -> str:
        free = "its parts are free" if self.free else f"its parts are free {STALE_S:g} s after its last sign of life"
        return f"{self.holder}: {self.why}; {free}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far a run is.

    Attributes:
        chunks: Planned chunks.
        parts: Planned parts.
        finished: Parts with their file of rows.
        begun: Unfinished parts with a journal.
        leased: Parts with a lease: those that someone works on, and those of the lost.
        holders: Who is at work, each process once.
        lost: Who left leases behind, likewise.
        rows: Rows in finished parts and in journals.
        journal_rows: How many of them are in journals.
        outcomes: Rows by outcome and reason (empty when there is none), most frequent first.
        prompt_tokens: Sum over all rows.
        cached_tokens: Sum over all rows.
        output_tokens: Sum over all rows.
        planned_ns: When the plan was written, ns since 1970.
        last_ns: When the last row was written; None when there is none.
        rows_per_s: Rows per second over the last ten minutes of work; None when there are none.
    """

    chunks: int
    parts: int
    finished: int
    begun: int
    leased: int
    holders: tuple[Holder, ...]
    lost: tuple[LostHolder, ...]
    rows: int
    journal_rows: int
    outcomes: tuple[tuple[str, str, int], ...]
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    planned_ns: int
    last_ns: int | None
    rows_per_s: float | None

    @property
    def complete(self) -> bool:
        """Whether every part is finished."""
        return self.finished == self.parts

    def without_ended(self, tasks: Mapping[str, str]) -> Status:
        """Return the same, with processes of tasks that are over among the lost.

        Args:
            tasks: Names of tasks that have no process any more, with what is known of them.
        """
        now_ns = time.time_ns()
        ended = [
            LostHolder(holder=holder, why=tasks[holder.task], free=_is_silent(holder, now_ns))
            for holder in self.holders
            if holder.task in tasks
        ]
        at_work = tuple(holder for holder in self.holders if holder.task not in tasks)
        return replace(self, holders=at_work, lost=(*self.lost, *ended))


_TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")


def status(path: str | os.PathLike[str]) -> Status:
    """Return how far the run of a results directory is.

    Raises:
        ResultsError: There is no plan, or files cannot be read.
    """
    plan = PlanStore(path)
    layout = Layout(Path(path))
    if not layout.schema.exists():
        return _count(plan, layout, None)
    with ResultsStore(path, None) as store:
        return _count(plan, layout, store)


def _count(plan: PlanStore, layout: Layout, store: ResultsStore | None) -> Status:
    outcomes: Counter[tuple[str, str]] = Counter()
    tokens: Counter[str] = Counter()
    written: list[tuple[int, int]] = []
    finished: set[int] = set()
    begun: set[int] = set()
    journal_rows = 0
    if store is not None:
        journals = {
            part: [(file, _mtime_ns(file)) for file in part_journals(layout, part)] for part in sorted(store.begun())
        }
        content = {part: _journal_lines([file for file, _ in files]) for part, files in journals.items()}
        files = store.files()
        finished = set(files.finished)
        begun = set(journals) - finished
        for part in sorted(begun):
            lines = content[part]
            journal_rows += len(lines)
            outcomes.update((line["outcome"], line.get("reason") or "") for line in lines)
            for name in _TOKENS:
                tokens[name] += sum(line.get(name) or 0 for line in lines)
            written.append((max((when for _, when in journals[part]), default=0), len(lines)))
        _count_files(files, outcomes, tokens)
        sizes = plan.sizes()
        written += [(when, int(sizes[part]) if part < len(sizes) else 0) for part, when in files.written_ns()]
    planned_ns = _mtime_ns(layout.plan())
    holders = _holders(layout)
    at_work, lost = _judged(_first_of_each(holders))
    return Status(
        chunks=plan.chunks(),
        parts=plan.parts(),
        finished=len(finished),
        begun=len(begun),
        leased=len(holders),
        holders=at_work,
        lost=lost,
        rows=outcomes.total(),
        journal_rows=journal_rows,
        outcomes=tuple((outcome, reason, count) for (outcome, reason), count in outcomes.most_common()),
        prompt_tokens=tokens["prompt_tokens"],
        cached_tokens=tokens["cached_tokens"],
        output_tokens=tokens["output_tokens"],
        planned_ns=planned_ns,
        last_ns=max((when for when, _ in written), default=None),
        rows_per_s=_rate(planned_ns, written),
    )


def _count_files(files: PartFiles, outcomes: Counter[tuple[str, str]], tokens: Counter[str]) -> None:
    sums = [pl.col(name).sum() for name in _TOKENS]
    grouped = files.scan().group_by("outcome", "reason").agg(pl.len().alias("rows"), *sums)
    with naming_damage(files.layout.root):
        counted = grouped.collect()
    for line in counted.iter_rows(named=True):
        outcomes[line["outcome"], line["reason"] or ""] += line["rows"]
        for name in _TOKENS:
            tokens[name] += line[name]


def _journal_lines(paths: list[Path]) -> list[dict[str, Any]]:
    """Return the rows of a part's journals as JSON objects, each chunk once; no column is converted."""
    lines: dict[str, dict[str, Any]] = {}
    for path in paths:
        for payload in read_journal(path).payloads:
            if is_turn(payload):
                continue
            plain = orjson.loads(payload)
            lines.setdefault(plain["chunk_key"], plain)
    return list(lines.values())


def _rate(planned_ns: int, written: list[tuple[int, int]]) -> float | None:
    if not written:
        return None
    last = max(when for when, _ in written)
    first = max(planned_ns, last - int(RATE_OVER_S * 1e9))
    if last <= first:
        return None
    return sum(rows for when, rows in written if when >= first) / ((last - first) / 1e9)


def _holders(layout: Layout) -> list[Holder]:
    with results_errors(layout.leases):
        if not layout.leases.is_dir():
            return []
        names = [name for name in os.listdir(layout.leases) if layout.lease_part(name) is not None]
        found = [read_holder(layout.leases / name) for name in names]
    return [holder for holder in found if holder is not None]


def _first_of_each(holders: list[Holder]) -> list[Holder]:
    """Return the oldest lease of each process: one that has several parts open is at work once."""
    found: dict[object, Holder] = {}
    for holder in sorted(holders, key=lambda each: each.since_ns):
        found.setdefault(holder.process or holder.token, holder)
    return list(found.values())


def _judged(holders: list[Holder]) -> tuple[tuple[Holder, ...], tuple[LostHolder, ...]]:
    """Tell those who are at work from those who left leases behind, as far as files and this machine know."""
    here, now_ns = ProcessIdentity.current(), time.time_ns()
    starts = Counter[str]()
    for holder in holders:
        starts[holder.task] = max(starts[holder.task], holder.restarts)
    at_work, lost = [], []
    for holder in sorted(holders, key=str):
        silent = _is_silent(holder, now_ns)
        why = None
        if holder.process is not None and here.knows_dead(holder.process):
            why = "it has ended"
        elif holder.task and holder.restarts < starts[holder.task]:
            why = f"{holder.task} was started again since"
        elif silent:
            why = f"no sign of life since {format_ns(holder.touched_ns // 10**9 * 10**9)}"
        if why is None:
            at_work.append(holder)
        else:
            lost.append(LostHolder(holder=holder, why=why, free=silent))
    return tuple(at_work), tuple(lost)


def _is_silent(holder: Holder, now_ns: int) -> bool:
    """Whether the last sign of life is too old; by this machine's clock, because whoever only looks writes no file."""
    return now_ns - holder.touched_ns >= STALE_S * 1e9


def _mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
