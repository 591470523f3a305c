"""Merges results folders into a new one, which has its name only when it is whole and verified."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from s1batch.errors import ConflictError, ResultsError
from s1batch.merging.parents import Parent, open_parents
from s1batch.merging.plans import MergedPlan, write_merged_plan
from s1batch.merging.rows import PartRows, gather, is_complete, renumbered
from s1batch.plan_store import PlanStore
from s1batch.results.atomic import fsync_folder, make_folder, publish, results_errors
from s1batch.results.compaction import ROWS_PER_FILE
from s1batch.results.content_digest import content_digest
from s1batch.results.experts import add_up_expert_use
from s1batch.results.journal import write_journal
from s1batch.results.journal_turns import turn_payload
from s1batch.results.large_file import LargeFileWriter
from s1batch.results.layout import Layout
from s1batch.results.lease import LeaseKeeper
from s1batch.results.part_writer import new_writer_name
from s1batch.results.rows_file import read_table, write_table
from s1batch.results.schema import RowSchema
from s1batch.results.verify import verify
from s1batch.runspec import write_run_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """What was merged.

    Attributes:
        chunks: Planned chunks.
        rows: Rows of finished parts.
        unfinished: Parts that lack rows.
        superseded: Rows that do not count, because another folder had a better one for their chunk.
    """

    chunks: int
    rows: int
    unfinished: int
    superseded: int


def merge_results(target: Path, paths: Sequence[Path], *, rows_per_file: int = ROWS_PER_FILE) -> Merge:
    """Merge results folders of one job and model into a new folder; the others are not touched.

    Killed at any moment, the new folder is not there, and merging again begins anew.

    Args:
        target: A folder that does not exist yet, or is empty.
        paths: The folders, in the order of their plans.
        rows_per_file: Most rows of a file.

    Raises:
        ConflictError: The folders do not go together, or the target holds something; the text names what differs.
        ResultsError: Something cannot be read or written, or is not clean.
        LockedError: Another process merges into the same folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConflictError(f"{target} is there already; merge into a new folder")
    parents = open_parents(paths)
    work = target.absolute().with_name(f".{target.absolute().name}.merging")
    make_folder(work)
    with LeaseKeeper(work / "leases") as keeper, keeper.lease("merge") as lease, results_errors(work):
        for left in work.iterdir():
            if left.name != "leases":
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        merged = _build(Layout(work), parents, rows_per_file)
        verdict = verify(work)
        wrong = [finding.text for finding in verdict.findings if finding.is_error]
        if wrong:
            raise ResultsError(
                f"what was merged is not clean ({wrong[0]}; {len(wrong)} findings): see `s1batch verify` of each folder"
            )
        lease.check()
    with results_errors(target):
        shutil.rmtree(work / "leases")
        fsync_folder(work)
        os.rename(work, target)
        fsync_folder(target.absolute().parent)
    return Merge(chunks=verdict.chunks, rows=verdict.rows, unfinished=verdict.unfinished, superseded=merged)


def _build(layout: Layout, parents: Sequence[Parent], rows_per_file: int) -> int:
    """Write everything but leases, and return how many rows were superseded."""
    schema = parents[0].store.schema
    for folder in (layout.rows, layout.journals):
        make_folder(folder)
    write_table(layout.schema, schema.arrow.empty_table())
    about: list[dict[str, Any]] = []
    for parent in parents:
        own = {"path": str(parent.path.absolute()), **parent.spec.model_dump(mode="json", exclude={"merged_from"})}
        # Of what was merged before, the runs behind it.
        about += parent.spec.merged_from or [own]
    write_run_spec(parents[0].spec.model_copy(update={"merged_from": tuple(about)}), layout.run)
    merged = write_merged_plan(layout, parents)
    plan = PlanStore(layout.root)
    superseded = 0
    with _Packer(layout, schema, rows_per_file) as packer:
        for part in range(len(merged.origins)):
            keys = plan.keys(part)
            found = gather(schema, keys, part, _candidates(merged, parents, part))
            if found.others.num_rows:
                _set_aside(layout, part, found.others)
                superseded += found.others.num_rows
            if is_complete(found, keys):
                packer.add(part, found.rows, found.written_ns)
            else:
                _write_journal(layout, schema, part, found)
    for parent in parents:
        _take_superseded(layout, schema, merged, parent)
        _take_metrics(layout, parent)
    add_up_expert_use(layout)
    return superseded


def _candidates(merged: MergedPlan, parents: Sequence[Parent], part: int) -> list[tuple[Parent, int]]:
    sources = [merged.origins[part], *sorted(merged.shared.get(part, ()))]
    return [(parent, number) for parent in parents for plan, number in sources if parent.plan_number == plan]


class _Packer:
    """Writes finished parts into few files; neighbours share one, as a compaction does it."""

    def __init__(self, layout: Layout, schema: RowSchema, rows_per_file: int) -> None:
        self._layout = layout
        self._schema = schema
        self._most = rows_per_file
        self._waiting: tuple[int, pa.Table, int] | None = None
        self._writer: LargeFileWriter | None = None
        self._latest = 0

    def __enter__(self) -> _Packer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is None:
            self._end()
        elif self._writer is not None:
            self._writer.__exit__(kind)

    def add(self, part: int, table: pa.Table, written_ns: int) -> None:
        rows = (self._writer.rows if self._writer is not None else 0) + table.num_rows
        rows += 0 if self._waiting is None else self._waiting[1].num_rows
        if self._waiting is not None and (part != self._waiting[0] + 1 or rows > self._most):
            self._end()
        if self._waiting is not None:
            self._write(*self._waiting)
        self._waiting = (part, table, written_ns)

    def _write(self, part: int, table: pa.Table, written_ns: int) -> None:
        if self._writer is None:
            self._writer = LargeFileWriter(self._layout, self._layout.rows, self._schema.arrow)
        self._writer.add(part, table, written_ns)
        self._latest = max(self._latest, written_ns)

    def _end(self) -> None:
        if self._waiting is None:
            return
        part, table, written_ns = self._waiting
        if self._writer is None:
            path = self._layout.part_rows(part)
            write_table(path, table)
            self._latest = written_ns
        else:
            self._write(part, table, written_ns)
            self._writer.close()
            path = self._writer.path or self._layout.part_rows(part)
            publish(path, path)
        if self._latest:
            os.utime(path, ns=(self._latest, self._latest))
        self._waiting = self._writer = None
        self._latest = 0


def _write_journal(layout: Layout, schema: RowSchema, part: int, found: PartRows) -> None:
    payloads = [schema.row_to_json(row) for row in schema.rows_from_table(found.rows)]
    for key, received in found.turns.items():
        payloads += [turn_payload(key, number, turn) for number, turn in enumerate(received)]
    if payloads:
        write_journal(layout.journal(part, new_writer_name()), payloads)


def _set_aside(layout: Layout, part: int, rows: pa.Table) -> None:
    make_folder(layout.superseded)
    write_table(layout.superseded_rows(part, content_digest(rows).hex()), rows)


def _take_superseded(layout: Layout, schema: RowSchema, merged: MergedPlan, parent: Parent) -> None:
    """Keep the rows that were asked again before: what they cost counts for the budget of the job."""
    folder = parent.store.layout.superseded
    shared = {source: part for part, sources in merged.shared.items() for source in sources}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        number = layout.superseded_part(path.name)
        if number is None:
            continue
        part = int(merged.targets[parent.plan_number][number])
        if part < 0:
            part = shared[parent.plan_number, number]
        _set_aside(layout, part, renumbered(schema, read_table(path), part))


def _take_metrics(layout: Layout, parent: Parent) -> None:
    own = parent.store.layout
    make_folder(layout.metrics)
    if own.throughput.exists():
        with own.throughput.open("rb") as source, layout.throughput.open("ab") as target:
            shutil.copyfileobj(source, target)
    for path in sorted(own.session_experts.glob("*.parquet")):
        make_folder(layout.session_experts)
        shutil.copyfile(path, layout.session_experts / path.name)
