"""The plan and the inventory on disk: written once, in bounded memory, and read part by part.

`plan.parquet` holds one line for each chunk, in the order of the parts; `inventory.parquet` the archive as the reader
found it. An extension writes two files beside them and touches no older one: `plan-0001.parquet` holds the chunks that
are new, `inventory-0001.parquet` the whole archive as it was found then. A plan file is renamed into place last, so a
generation whose plan file is there is complete, and one without is none.

Row groups end where parts end, so that reading one part decodes little else.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from s1batch.errors import ConflictError, ResultsError
from s1batch.plan_columns import INVENTORY, PLAN, inventory_table, plan_entries, plan_table
from s1batch.records import InventoryItem, PlanEntry
from s1batch.results.atomic import clean_temporaries, make_folder, publish, results_errors, temporary_path
from s1batch.results.layout import Layout
from s1batch.results.process import ProcessIdentity

if TYPE_CHECKING:
    import polars as pl

Line = TypeVar("Line", PlanEntry, InventoryItem)

GROUP_ROWS = 2048
"""A row group ends with the first part that reaches this many lines."""

GROUP_ADDRESSES = 32768
"""Or with the first that reaches so many addresses: a group of rows of a table may have one for each of its rows."""

MAX_GROUP_ROWS = 65536
"""A part with more lines than this is spread over several row groups."""

BLOCK_ROWS = 1024
"""So many lines at a time become columns, which take a fraction of the memory that Python objects do."""

BLOCK_ADDRESSES = 8192
"""Or lines with so many addresses."""

_VERDICTS = ["chunk_key", "part", "admission", "reason"]
_CONDITIONS = ["chunk_key", "part", "condition"]


class _TableFile(Generic[Line]):
    """A Parquet file that grows by row groups under a temporary name.

    Args:
        target: Its name in the end.
        schema: Its columns.
        to_table: Turns lines into columns.

    Attributes:
        target: As above.
        rows: Lines in row groups.
        waiting: Lines that are in no row group yet.
        addresses: Addresses of these lines.
    """

    def __init__(self, target: Path, schema: pa.Schema, to_table: Callable[[Sequence[Line]], pa.Table]) -> None:
        self.target = target
        self.rows = self.waiting = self.addresses = 0
        self._to_table: Callable[[Sequence[Line]], pa.Table] = to_table
        self._lines: list[Line] = []
        self._encoded = 0  # addresses
        self._blocks: list[pa.Table] = []
        self._temporary = temporary_path(target, ProcessIdentity.current())
        with results_errors(target):
            self._writer = pq.ParquetWriter(self._temporary, schema, compression="zstd", write_page_checksum=True)

    def add(self, line: Line, addresses: int = 0) -> None:
        """Add a line, which has so many addresses, to the next row group."""
        self._lines.append(line)
        self.waiting += 1
        self.addresses += addresses
        if len(self._lines) >= BLOCK_ROWS or self.addresses - self._encoded >= BLOCK_ADDRESSES:
            self._encode()

    def end_group(self) -> None:
        """Write what waits as a row group."""
        self._encode()
        if self._blocks:
            table = pa.concat_tables(self._blocks)
            self._blocks.clear()
            with results_errors(self.target):
                self._writer.write_table(table, row_group_size=table.num_rows)
            self.rows += table.num_rows
            self.waiting = self.addresses = self._encoded = 0

    def _encode(self) -> None:
        if self._lines:
            self._blocks.append(self._to_table(self._lines))
            self._lines.clear()
            self._encoded = self.addresses

    def close(self, **metadata: int) -> None:
        """Complete the file under its temporary name."""
        with results_errors(self.target):
            self._writer.add_key_value_metadata({name: str(value) for name, value in metadata.items()})
            self._writer.close()

    def publish(self) -> None:
        with results_errors(self.target):
            publish(self._temporary, self.target)

    def discard(self) -> None:
        # The writer may be unable to write its footer; the file goes in any case.
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        self._temporary.unlink(missing_ok=True)


_Groups = tuple[pa.Table, "np.ndarray[Any, np.dtype[np.int32]]"]


class PlanWriter:
    """Writes a plan and its inventory; a context manager. Nothing is there unless the block ends well.

    Args:
        path: The results directory.
        generation: 0 for the first plan; `PlanStore.extend` gives the next.
        first_part: Number of the first part.

    Raises:
        ConflictError: There is such a plan already.
        ResultsError: The directory cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], generation: int = 0, first_part: int = 0) -> None:
        layout = Layout(Path(path))
        make_folder(layout.root)
        clean_temporaries(layout.root)
        self._target = layout.plan(generation)
        if self._target.exists():
            raise ConflictError(
                f"{self._target} is there already: a plan is frozen; extend it, or choose another folder"
            )
        self._plan = _TableFile(self._target, PLAN, plan_table)
        self._inventory = _TableFile(layout.inventory(generation), INVENTORY, inventory_table)
        self._first_part = first_part
        self._part = first_part - 1

    def __enter__(self) -> PlanWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise

    def add(self, line: PlanEntry | InventoryItem) -> None:
        """Write one line of the plan or of the inventory; they may come in any mixture.

        Raises:
            ValueError: A part number is skipped or comes back, which is a mistake in the program.
            ResultsError: The files cannot be written.
        """
        if isinstance(line, InventoryItem):
            self._inventory.add(line)
            if self._inventory.waiting >= GROUP_ROWS:
                self._inventory.end_group()
            return
        if line.part not in (self._part, self._part + 1) or line.part < self._first_part:
            raise ValueError(f"part {line.part} follows part {self._part}")
        if line.part == self._part:
            full = self._plan.waiting >= MAX_GROUP_ROWS
        else:
            full = self._plan.waiting >= GROUP_ROWS or self._plan.addresses >= GROUP_ADDRESSES
        if full:
            self._plan.end_group()
        self._part = line.part
        self._plan.add(line, len(line.chunk.inputs))

    def close(self) -> None:
        """Complete both files and give them their names, the plan last."""
        n_parts = self._part + 1 - self._first_part
        self._plan.end_group()
        self._inventory.end_group()
        self._plan.close(n_chunks=self._plan.rows, n_parts=n_parts, first_part=self._first_part)
        self._inventory.close(n_items=self._inventory.rows)
        self._inventory.publish()
        self._plan.publish()

    def discard(self) -> None:
        """Remove what was written."""
        self._plan.discard()
        self._inventory.discard()


@dataclass(frozen=True, slots=True)
class _Generation:
    """One plan file: its parts, and the first and last part of each of its row groups."""

    path: Path
    first_part: int
    n_parts: int
    n_chunks: int
    group_first: tuple[int, ...]
    group_last: tuple[int, ...]


class PlanStore:
    """The plan of a results directory, with all its extensions.

    Args:
        path: The results directory.

    Raises:
        ResultsError: There is no plan, or it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._layout = Layout(Path(path))
        self._generations = self._open()
        self._cached: tuple[tuple[Path, range, list[str] | None], _Groups] | None = None
        self._reading = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": None, "_reading": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _reading=threading.Lock())

    def parts(self) -> int:
        """How many parts there are; they are numbered from 0."""
        last = self._generations[-1]
        return last.first_part + last.n_parts

    def chunks(self) -> int:
        """How many chunks are planned."""
        return sum(generation.n_chunks for generation in self._generations)

    def sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return how many chunks each part has."""
        sizes = np.zeros(self.parts(), np.int64)
        for table in self.tables(["part"]):
            sizes += np.bincount(table.column("part").to_numpy(), minlength=self.parts())
        return sizes

    def asked(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return how many chunks of each part are asked about."""
        asked = np.zeros(self.parts(), np.int64)
        for table in self.tables(["part", "admission"]):
            parts, admission = table.column("part").to_numpy(), table.column("admission")
            if admission.null_count < len(admission):
                parts = parts[[reason is None for reason in admission.to_pylist()]]
            asked += np.bincount(parts, minlength=self.parts())
        return asked

    def entries(self, part: int) -> list[PlanEntry]:
        """Return the entries of one part, in their order.

        Raises:
            ResultsError: There is no such part, or the plan is damaged.
        """
        return plan_entries(self._part_table(part, None))

    def keys(self, part: int) -> list[str]:
        """Return the chunk keys of one part, in their order; reads far less than `entries`.

        Raises:
            ResultsError: There is no such part, or the plan is damaged.
        """
        keys: list[str] = self._part_table(part, _VERDICTS).column("chunk_key").to_pylist()
        return keys

    def verdicts(self, part: int) -> pa.Table:
        """Return `chunk_key`, and `admission` and `reason` of what the plan refuses, of one part in its order.

        Raises:
            ResultsError: There is no such part, or the plan is damaged.
        """
        return self._part_table(part, _VERDICTS)

    def conditions(self, part: int) -> dict[str, str]:
        """Return the scan that each conditional chunk of a part depends on: keys by chunk key.

        Raises:
            ResultsError: There is no such part, or the plan is damaged.
        """
        table = self._part_table(part, _CONDITIONS).select(["chunk_key", "condition"])
        keys, scans = (column.to_pylist() for column in table.columns)
        return {key: scan for key, scan in zip(keys, scans, strict=True) if scan is not None}

    def tables(self, columns: list[str], most: int = MAX_GROUP_ROWS) -> Iterator[pa.Table]:
        """Yield the whole plan in its order, some columns of it, at most so many lines at a time.

        Raises:
            ResultsError: The plan is damaged.
        """
        for generation in self._generations:
            with _plan_errors(generation.path), pq.ParquetFile(generation.path) as file:
                for batch in file.iter_batches(batch_size=most, columns=columns):
                    yield pa.Table.from_batches([batch])

    def scan(self) -> pl.LazyFrame:
        """Return the whole plan, in its order."""
        import polars as pl

        return pl.scan_parquet([generation.path for generation in self._generations], glob=False)

    def inventory(self) -> pl.LazyFrame:
        """Return the whole inventory: that of the last extension, which looked at the whole archive again."""
        import polars as pl

        return pl.scan_parquet(self._layout.inventory(len(self._generations) - 1), glob=False)

    def files(self) -> set[str]:
        """Return the encoded relative paths of all files in the inventory."""
        path = self._layout.inventory(len(self._generations) - 1)
        with _plan_errors(path), pq.ParquetFile(path) as file:
            return {name for batch in file.iter_batches(columns=["path"]) for name in batch.column(0).to_pylist()}

    def extend(self) -> PlanWriter:
        """Return a writer that appends parts behind the last one; older files stay as they are."""
        return PlanWriter(self._layout.root, generation=len(self._generations), first_part=self.parts())

    def _open(self) -> list[_Generation]:
        generations: list[_Generation] = []
        while (path := self._layout.plan(len(generations))).exists():
            generations.append(_read_generation(path))
            expected = 0 if len(generations) == 1 else generations[-2].first_part + generations[-2].n_parts
            if generations[-1].first_part != expected:
                raise ResultsError(f"{path} begins with part {generations[-1].first_part}, not {expected}; restore it")
        if not generations:
            raise ResultsError(f"{self._layout.plan()} is not there: the folder holds no plan; run `s1batch run` first")
        return generations

    def _part_table(self, part: int, columns: list[str] | None) -> pa.Table:
        number = bisect_right([generation.first_part for generation in self._generations], part) - 1
        # Extensions without chunks share their first part with the next one; only the last of those can hold it.
        generation = self._generations[max(number, 0)]
        first = bisect_left(generation.group_last, part)
        last = bisect_right(generation.group_first, part)
        if not 0 <= part < self.parts() or first >= last:
            raise ResultsError(f"{generation.path} has no part {part}; parts are 0 to {self.parts() - 1}")
        table, numbers = self._groups(generation.path, range(first, last), columns)
        begin, end = np.searchsorted(numbers, [part, part + 1])
        return table.slice(begin, end - begin)

    def _groups(self, path: Path, groups: range, columns: list[str] | None) -> _Groups:
        """Return row groups, and the number of the part of each of their lines, which never falls."""
        # Neighbouring parts share a row group, and are mostly asked for one after the other.
        wanted = (path, groups, columns)
        # Threads that want the same at once wait for the first one instead of reading it, each into its own memory.
        with self._reading:
            if self._cached is not None and self._cached[0] == wanted:
                return self._cached[1]
            self._cached = None  # not both at once
            with _plan_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
                table = file.read_row_groups(list(groups), columns=columns)
                groups_read = (table, table.column("part").to_numpy())
            self._cached = (wanted, groups_read)
            return groups_read


@contextmanager
def _plan_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise ResultsError(f"{path} is damaged or cannot be read ({error}); restore it from a copy") from error


def _read_generation(path: Path) -> _Generation:
    with _plan_errors(path), pq.ParquetFile(path) as file:
        metadata = file.metadata
        written = metadata.metadata or {}
        column = PLAN.get_field_index("part")
        statistics = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
        return _Generation(
            path=path,
            first_part=int(written[b"first_part"]),
            n_parts=int(written[b"n_parts"]),
            n_chunks=int(written[b"n_chunks"]),
            group_first=tuple(statistic.min for statistic in statistics),
            group_last=tuple(statistic.max for statistic in statistics),
        )
