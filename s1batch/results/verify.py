"""The proof: input, plan and output agree, or a list of where they do not.

Every file of rows is read whole with its page checksums, once, and compared with the plan's keys of its part. So memory
holds a few parts at a time, apart from the unions and outcomes that the account needs.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from s1batch.account_windows import RATE_TOLERANCE
from s1batch.accounting import Account, take_account
from s1batch.errors import ResultsError
from s1batch.outcome_ranks import OutcomeRanks
from s1batch.plan_columns import PLAN
from s1batch.plan_store import PlanStore
from s1batch.records import OUTCOMES, REASONS, InventoryItem
from s1batch.results.content_digest import content_digest
from s1batch.results.findings import Code, Finding
from s1batch.results.journal import read_journal
from s1batch.results.part_files import PartFiles
from s1batch.results.part_writer import part_journals
from s1batch.results.rows_file import read_table
from s1batch.results.rows_pieces import RowsPiece, rows_pieces
from s1batch.results.skips import unfounded_skips
from s1batch.results.store import ResultsStore
from s1batch.results.switching import unsettled

SourceCheck = Callable[[InventoryItem], str | None]
"""Looks at the file of an item again; returns in words how it differs (gone, other size, time or hash), or None."""

THREADS = 4
"""Files that are read at once; Arrow reads without Python's lock."""

OUTCOMES_AT_ONCE = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify` found.

    Attributes:
        findings: Errors and warnings.
        parts: Parts of the plan.
        unfinished: Parts that have no file of rows yet.
        chunks: Planned chunks.
        rows: Rows in finished parts.
        account: The account with outcomes; None when it could not be taken.
    """

    findings: tuple[Finding, ...]
    parts: int = 0
    unfinished: int = 0
    chunks: int = 0
    rows: int = 0
    account: Account | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with what is there."""
        return not any(finding.is_error for finding in self.findings)

    @property
    def complete(self) -> bool:
        """Whether nothing is wrong and nothing is left to do: every planned chunk has its row."""
        return self.ok and self.unfinished == 0 and self.rows == self.chunks


def verify(path: str | os.PathLike[str], sources: SourceCheck | None = None) -> Verdict:
    """Check everything in a results directory; bad content becomes findings, never an exception.

    Args:
        path: The results directory.
        sources: When given, is asked about every source file once.
    """
    try:
        plan = PlanStore(path)
    except ResultsError as error:
        return Verdict(findings=(Finding(code="no_plan", text=str(error)),))
    try:
        store = ResultsStore(path, None)
    except ResultsError as error:
        return Verdict(
            findings=(Finding(code="no_results", text=str(error)),),
            parts=plan.parts(),
            unfinished=plan.parts(),
            chunks=plan.chunks(),
        )
    with store:
        return _verify(plan, store, sources)


def _verify(plan: PlanStore, store: ResultsStore, sources: SourceCheck | None) -> Verdict:
    findings = list(_check_plan(plan))
    files = store.files()
    finished = files.finished
    findings += _check_files(files)
    rows = 0
    sound = not any(finding.is_error for finding in findings)
    outcomes = _Outcomes()
    for checked in _checked_files(plan, store, files):
        rows += checked.rows
        findings += checked.findings
        sound = sound and checked.outcomes is not None
        if sound and checked.outcomes is not None:
            outcomes.add(checked.outcomes)
    findings += _check_journals(store, finished)
    account = None
    # The account of damaged files would only say again that they are damaged.
    if sound:
        account = take_account(plan, outcomes.ranks())
        findings += _check_account(account)
        findings += _check_overlap(plan)
    findings += _check_merged(plan, store)
    if sources is not None:
        findings += _check_sources(plan, sources)
    return Verdict(
        findings=tuple(findings),
        parts=plan.parts(),
        unfinished=len(set(range(plan.parts())) - finished),
        chunks=plan.chunks(),
        rows=rows,
        account=account,
    )


def _check_plan(plan: PlanStore) -> Iterator[Finding]:
    try:
        # Hashes take a tenth of the memory of keys; where two agree, the keys themselves decide.
        blocks = [pl.DataFrame(table)["chunk_key"].hash().to_numpy() for table in plan.tables(["chunk_key"])]
        hashes = np.sort(np.concatenate([np.zeros(0, np.uint64), *blocks]))
        doubled = 0
        if len(hashes) != plan.chunks() or (hashes[1:] == hashes[:-1]).any():
            doubled = plan.chunks() - plan.scan().select(pl.col("chunk_key").n_unique()).collect().item()
    except (pl.exceptions.PolarsError, OSError, ResultsError) as error:
        yield Finding(code="no_plan", text=f"the plan cannot be read ({error}); restore it from a copy")
        return
    if doubled:
        yield Finding(
            code="plan_key_doubled", text=f"{doubled} planned chunks have the key of another one", count=doubled
        )


@dataclass(frozen=True, slots=True)
class _Checked:
    """What was found in a file of rows; `outcomes` are its keys and outcomes, None when it is damaged."""

    rows: int
    findings: list[Finding]
    outcomes: pa.Table | None = None


class _Outcomes:
    """Gathers what became of each chunk; many small tables are taken together."""

    def __init__(self) -> None:
        self._ranks = OutcomeRanks()
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._rows += table.num_rows
        if self._rows >= OUTCOMES_AT_ONCE:
            self.ranks()

    def ranks(self) -> OutcomeRanks:
        if self._waiting:
            self._ranks.add(pl.DataFrame(pa.concat_tables(self._waiting)))
            self._waiting.clear()
            self._rows = 0
        return self._ranks


def _check_files(files: PartFiles) -> Iterator[Finding]:
    for part in files.doubled():
        text = f"{files.layout.rows}: part {part} lies in two files, so that its rows are read twice; move one away"
        yield Finding(code="part_doubled", text=text)
    for folder in unsettled(files.layout):
        text = f"{folder}: left by a compaction that was killed; the next run or `s1batch compact` ends it"
        yield Finding(code="compaction_left", text=text)


def _checked_files(plan: PlanStore, store: ResultsStore, files: PartFiles) -> Iterator[_Checked]:
    """Check files of rows, several at once; yields in order, and reads little further than what was taken."""
    waiting: deque[Future[list[_Checked]]] = deque()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="s1batch-verify") as pool:
        for tables in rows_pieces(files):
            waiting.append(pool.submit(_checked, plan, store, tables))
            if len(waiting) > (2 * THREADS if tables.group is None else THREADS):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _checked(plan: PlanStore, store: ResultsStore, piece: RowsPiece) -> list[_Checked]:
    checked = []
    try:
        for part, table, digest in piece.tables():
            found = list(_check_part(plan, store, part, table, piece.file.path))
            differs = any(finding.code == "schema_differs" for finding in found)
            if digest is not None and not differs and content_digest(table) != digest:
                text = f"{piece.file.path}: the rows of part {part} are not those that were compacted; restore the file"
                found.append(Finding(code="content_differs", text=text, count=table.num_rows))
            checked.append(_Checked(table.num_rows, found, None if differs else table.select(["chunk_key", "outcome"])))
    except ResultsError as error:
        checked.append(_Checked(0, [Finding(code="file_damaged", text=str(error))]))
    return checked


def _check_part(plan: PlanStore, store: ResultsStore, part: int, table: pa.Table, where: Path) -> Iterator[Finding]:
    differences = store.schema.differences(table.schema)
    if differences:
        yield Finding(code="schema_differs", text=f"{where}: {'; '.join(differences)}", count=len(differences))
        return
    planned = plan.verdicts(part) if part < plan.parts() else PLAN.empty_table()
    # Columns are compared whole; only what differs is looked at line by line.
    if not table.column("chunk_key").equals(planned.column("chunk_key")):
        yield from _check_keys(where, table.column("chunk_key").to_pylist(), planned.column("chunk_key").to_pylist())
    wrong = _others(table.column("part"), {part})
    if wrong:
        yield Finding(code="part_wrong", text=f"{where}: rows say part {wrong[0]}, not {part}", count=len(wrong))
    unknown = _others(table.column("outcome"), OUTCOMES)
    if unknown:
        yield Finding(code="outcome_unknown", text=f"{where}: outcome {unknown[0]!r}", count=len(unknown))
    unknown = _others(table.column("reason"), {None, *REASONS})
    if unknown:
        yield Finding(code="reason_unknown", text=f"{where}: reason {unknown[0]!r}", count=len(unknown))
    unfounded = unfounded_skips(plan, part, table)
    if unfounded:
        text = f"{where}: rows were skipped without the answer of a scan, first {unfounded[0]}; retry `skipped`"
        yield Finding(code="skip_unfounded", text=text, count=len(unfounded))
    if planned.column("admission").null_count == planned.num_rows:
        return
    refused = planned.filter(planned.column("admission").is_valid()).to_pylist()
    refusals = {line["chunk_key"]: (line["admission"], line["reason"]) for line in refused}
    other = [
        line["chunk_key"]
        for line in table.select(["chunk_key", "outcome", "reason"]).to_pylist()
        if line["chunk_key"] in refusals and refusals[line["chunk_key"]] != (line["outcome"], line["reason"])
    ]
    if other:
        yield Finding(
            code="refusal_differs",
            text=f"{where}: rows of chunks that the plan refuses say something else, the first is {other[0]}",
            count=len(other),
        )


def _others(column: pa.ChunkedArray, allowed: Collection[object]) -> list[object]:
    """Return the values of a column that are not allowed, as often as they are there."""
    if all(value in allowed for value in column.unique().to_pylist()):
        return []
    return [value for value in column.to_pylist() if value not in allowed]


def _check_keys(where: Path, keys: list[str], planned: list[str]) -> Iterator[Finding]:
    missing = set(planned).difference(keys)
    foreign = set(keys).difference(planned)
    twice = [key for key, number in Counter(keys).items() if number > 1]
    doubled = len(keys) - len(set(keys))
    cases: tuple[tuple[Code, int, str, Iterable[str]], ...] = (
        ("row_missing", len(missing), "planned chunks have no row", missing),
        ("row_not_in_plan", len(foreign), "rows are not in the plan's part", foreign),
        ("row_doubled", doubled, "rows are there more than once", twice),
    )
    for code, count, text, which in cases:
        if count:
            yield Finding(code=code, text=f"{where}: {count} {text}, the first is {min(which)}", count=count)


def _check_journals(store: ResultsStore, finished: Collection[int]) -> Iterator[Finding]:
    for part in sorted(store.begun()):
        for path in part_journals(store.layout, part):
            if part in finished:
                yield Finding(
                    code="journal_left", text=f"{path}: its part is finished; the next run removes it, nothing is lost"
                )
                continue
            damaged = read_journal(path).damaged
            if damaged:
                yield Finding(
                    code="journal_damaged",
                    text=f"{path}: {damaged} bytes are damaged; their chunks are asked again by the next run",
                    count=damaged,
                )


def _check_account(account: Account) -> Iterator[Finding]:
    for tally in account.tallies:
        if tally.missing:
            yield Finding(
                code="samples_missing",
                text=f"{tally.source or 'data without a source'}: {tally.missing} of {tally.archive} {tally.unit} "
                "are selected but in no planned chunk",
                count=tally.missing,
            )
        elif not tally.balanced:
            who = tally.source or "data without a source"
            yield Finding(
                code="account_unbalanced", text=f"{who}: the parts do not add up to {tally.archive} {tally.unit}"
            )


def _check_overlap(plan: PlanStore) -> Iterator[Finding]:
    """Two selected stretches of one channel and rate at the same time are counted twice, unless they are the same."""
    series = plan.inventory().filter(
        (pl.col("status") == "selected") & (pl.col("unit") == "samples") & (pl.col("rate_hz") > 0)
    )
    same = pl.col("source") == pl.col("source").shift(1)
    same &= (pl.col("rate_hz") / pl.col("rate_hz").shift(1) - 1).abs() <= RATE_TOLERANCE
    interval_ns = 1e9 / pl.col("rate_hz")
    shared = (pl.min_horizontal("stop", pl.col("stop").shift(1)) - pl.col("start")) / interval_ns
    found = (
        series.select("source", "start", "stop", "rate_hz")
        .sort("source", "start", "stop")
        .select("source", pl.when(same & (shared > 0.5)).then(shared.round()).cast(pl.Int64).alias("shared"))
        .drop_nulls()
        .group_by("source")
        .agg(pl.col("shared").sum())
        .sort("source")
        .collect()
    )
    for source, count in found.iter_rows():
        text = f"{source}: about {count} samples are selected from two files at once, and counted twice"
        yield Finding(code="samples_overlap", text=text, count=count)


def _check_merged(plan: PlanStore, store: ResultsStore) -> Iterator[Finding]:
    if not store.layout.merged.is_dir():
        return
    for path in sorted(store.layout.merged.glob("*.parquet")):
        try:
            table = read_table(path)
        except ResultsError as error:
            yield Finding(code="file_damaged", text=str(error))
            continue
        if "source_chunk_keys" not in table.column_names:
            yield Finding(code="schema_differs", text=f"{path}: there is no column source_chunk_keys")
            continue
        keys = pl.DataFrame(table.select(["source_chunk_keys"])).lazy().explode("source_chunk_keys").drop_nulls()
        unknown = (
            keys.unique()
            .join(plan.scan().select("chunk_key"), left_on="source_chunk_keys", right_on="chunk_key", how="anti")
            .collect()
        )
        if len(unknown):
            yield Finding(
                code="merged_unknown_chunk",
                text=f"{path}: {len(unknown)} chunk keys are not in the plan; run `s1batch merge` again",
                count=len(unknown),
            )


def _check_sources(plan: PlanStore, sources: SourceCheck) -> Iterator[Finding]:
    files = plan.inventory().unique(["root", "path"], keep="first", maintain_order=True).collect()
    for plain in files.iter_rows(named=True):
        problem = sources(InventoryItem(**plain))
        if problem is not None:
            yield Finding(code="source_changed", text=f"{plain['path']}: {problem}")
