"""Rows into a Delta table: what it has already is not written again, and what was asked again is replaced.

A table belongs to one job: an application id in its log (Delta's `txn` action) holds a hash of the fields that can
change an answer, and results of another job are refused. Each commit raises that id's version, so of two exports at the
same time one is refused by the protocol instead of writing the same rows once more.

Rows are told apart by `chunk_key`; a hash of key and answer tells whether the table has a row as it is now. Both take
eight bytes for each row of the table. Delta holds microseconds: an instant of the rows comes with its nanoseconds in a
column of its own, `start` with `start_ns`, and an instant within a list or struct is cut to the microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from s1batch.api import Results
from s1batch.errors import ConflictError, MissingExtra, ResultsError

_APPLICATION = "s1batch:"
_BATCH_ROWS = 20_000
_CHANGED_AT_ONCE = 10_000
_TOLD_BY = ("chunk_key", "outcome", "reason", "fingerprint", "text", "attempts", "seconds")
"""What a row of an answer that was asked again differs in."""

Hashes = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaExport:
    """What an export did.

    Attributes:
        appended: Rows that the table did not have.
        replaced: Rows that it had otherwise.
        kept: Rows that it had as they are.
        version: The table's version afterwards.
    """

    appended: int
    replaced: int
    kept: int
    version: int


def export_delta(results: Results, target: Path) -> DeltaExport:
    """Bring a Delta table up to date with the finished parts of results.

    Args:
        results: The results.
        target: Folder of the table; made when it is not there.

    Raises:
        MissingExtra: `deltalake` is not installed.
        ConflictError: The table is of another job, has other columns, or another export writes to it.
        ResultsError: It cannot be read or written.
    """
    try:
        import deltalake
        from deltalake.exceptions import CommitFailedError, DeltaError
    except ImportError as error:
        raise MissingExtra("--format delta needs deltalake: pip install 's1batch[delta]'") from error
    application = _APPLICATION + sha256(orjson.dumps(results.run_spec.answers, option=orjson.OPT_SORT_KEYS)).hexdigest()
    rows = results.scan()
    schema = _delta_schema(results.schema.arrow)
    try:
        table = deltalake.DeltaTable(target) if deltalake.DeltaTable.is_deltatable(str(target)) else None
        if table is not None:
            _check_table(table, target, application, schema)
        known = _Known(table)
        done = _Counts()
        commit = _Commits(deltalake, target, table, application, results.run_spec.name)
        commit.append(pa.RecordBatchReader.from_batches(schema, _new_rows(rows, schema, known, done)), done)
        changed: list[pa.RecordBatch] = []
        if done.changed:
            for batch in _changed_rows(rows, schema, known):
                changed.append(batch)
                if sum(each.num_rows for each in changed) >= _CHANGED_AT_ONCE:
                    commit.replace(pa.Table.from_batches(changed))
                    changed.clear()
        if changed:
            commit.replace(pa.Table.from_batches(changed))
    except CommitFailedError as error:
        raise ConflictError(f"{target}: another export wrote to it meanwhile ({error}); run again to go on") from error
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise ResultsError(f"{target}: the Delta table cannot be read or written ({error})") from error
    return DeltaExport(appended=done.new, replaced=done.changed, kept=done.same, version=commit.version)


class _Commits:
    """Appends to a table and replaces rows of it, each in one commit that raises the application's version."""

    def __init__(self, deltalake: Any, target: Path, table: Any, application: str, name: str) -> None:
        self._deltalake = deltalake
        self._target = target
        self._table = table
        self._application = application
        self._name = name

    @property
    def version(self) -> int:
        return -1 if self._table is None else int(self._table.version())

    def append(self, rows: pa.RecordBatchReader, done: _Counts) -> None:
        """Append what there is; nothing is committed where there is nothing, unless the table has yet to be made."""
        peeked = _peeked(rows)
        if peeked is None and self._table is not None:
            return
        data = rows if peeked is None else peeked
        about = {} if self._table is not None else {"name": self._name, "description": "rows of s1batch"}
        self._deltalake.write_deltalake(
            self._target if self._table is None else self._table,
            data,
            mode="error" if self._table is None else "append",
            target_file_size=64 << 20,
            commit_properties=self._properties(),
            **about,
        )
        self._table = self._deltalake.DeltaTable(self._target)

    def replace(self, rows: pa.Table) -> None:
        """Replace rows by their key."""
        low, high = pc.min_max(rows.column("part")).as_py().values()
        near = f"t.part >= {low} AND t.part <= {high}"
        merger = self._table.merge(
            rows,
            predicate=f"t.chunk_key = s.chunk_key AND {near}",
            source_alias="s",
            target_alias="t",
            commit_properties=self._properties(),
        )
        merger.when_matched_update_all().execute()
        self._table = self._deltalake.DeltaTable(self._target)

    def _properties(self) -> Any:
        last = None if self._table is None else self._table.transaction_version(self._application)
        number = 0 if last is None else last + 1
        return self._deltalake.CommitProperties(
            max_commit_retries=0, app_transactions=[self._deltalake.Transaction(self._application, number)]
        )


class _Counts:
    """How many rows are new, changed or the same."""

    def __init__(self) -> None:
        self.new = self.changed = self.same = 0


class _Known:
    """Which rows a table has, by hashes of their keys and of what tells an answer from another one."""

    def __init__(self, table: Any) -> None:
        keys, rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        if table is not None:
            # By itself the scanner reads sixteen batches ahead, of four files at once.
            scanner = table.to_pyarrow_dataset().scanner(
                columns=list(_TOLD_BY), batch_size=_BATCH_ROWS, batch_readahead=1, fragment_readahead=1
            )
            for batch in scanner.to_batches():
                if batch.num_rows:
                    key, row = self.hashes(batch)
                    keys.append(key)
                    rows.append(row)
        self._keys, self._rows = np.sort(np.concatenate(keys)), np.sort(np.concatenate(rows))

    @staticmethod
    def hashes(batch: pa.RecordBatch) -> tuple[Hashes, Hashes]:
        texts = [name for name in _TOLD_BY if name not in ("attempts", "seconds")]
        # An export must find what an earlier one with another version of polars has written: only text and numbers.
        frame = pl.DataFrame(pa.Table.from_batches([batch]).select(list(_TOLD_BY)).cast(_TOLD_SCHEMA))
        told = frame.select(*(pl.col(name).fill_null("\0") for name in texts), "attempts", "seconds")
        return frame["chunk_key"].hash().to_numpy(), told.hash_rows().to_numpy()

    def state(self, batch: pa.RecordBatch) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return which rows have a key that the table has not, and which are there as they are."""
        key, row = self.hashes(batch)
        return ~_within(key, self._keys), _within(row, self._rows)


_TOLD_SCHEMA = pa.schema(
    [(name, {"attempts": pa.int32(), "seconds": pa.float64()}.get(name, pa.string())) for name in _TOLD_BY]
)


def _within(wanted: Hashes, known: Hashes) -> np.ndarray[Any, Any]:
    if not len(known):
        return np.zeros(len(wanted), bool)
    found: np.ndarray[Any, Any] = known[np.minimum(np.searchsorted(known, wanted), len(known) - 1)] == wanted
    return found


def _batches(rows: pl.LazyFrame, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for frame in rows.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True):
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        for name in table.column_names:
            if pa.types.is_timestamp(table.schema.field(name).type):
                table = table.append_column(f"{name}_ns", table.column(name).cast(pa.int64()))
        yield from table.select(schema.names).cast(schema, safe=False).combine_chunks().to_batches()


def _new_rows(rows: pl.LazyFrame, schema: pa.Schema, known: _Known, done: _Counts) -> Iterator[pa.RecordBatch]:
    for batch in _batches(rows, schema):
        new, same = known.state(batch)
        done.new += int(new.sum())
        done.same += int((~new & same).sum())
        done.changed += int((~new & ~same).sum())
        if new.any():
            yield batch.filter(pa.array(new))


def _changed_rows(rows: pl.LazyFrame, schema: pa.Schema, known: _Known) -> Iterator[pa.RecordBatch]:
    for batch in _batches(rows, schema):
        new, same = known.state(batch)
        if (~new & ~same).any():
            yield batch.filter(pa.array(~new & ~same))


def _peeked(rows: pa.RecordBatchReader) -> pa.RecordBatchReader | None:
    """Return the same rows, to be read once; None when there are none."""
    try:
        first = rows.read_next_batch()
    except StopIteration:
        return None

    def again() -> Iterator[pa.RecordBatch]:
        yield first
        yield from rows

    return pa.RecordBatchReader.from_batches(rows.schema, again())


def _check_table(table: Any, target: Path, application: str, schema: pa.Schema) -> None:
    if table.transaction_version(application) is None:
        raise ConflictError(f"{target} is a Delta table of another job, or of something else; give another folder")
    there = pa.schema(table.schema().to_arrow())
    names = {field.name for field in there}
    if names != set(schema.names):
        differing = sorted(names.symmetric_difference(schema.names))
        raise ConflictError(f"{target} has other columns than these results: {', '.join(differing)}")


def _delta_schema(rows: pa.Schema) -> pa.Schema:
    fields = [pa.field(field.name, _delta_type(field.type)) for field in rows]
    fields += [pa.field(f"{field.name}_ns", pa.int64()) for field in rows if pa.types.is_timestamp(field.type)]
    return pa.schema(fields)


def _delta_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC")
    if pa.types.is_list(kind):
        return pa.list_(_delta_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _delta_type(field.type)) for field in kind])
    return kind
