"""The results directory as a whole: what is finished, what is in progress, and all rows as one table."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from s1batch.errors import LockedError, ResultsError
from s1batch.records import Outcome, Row, Turn
from s1batch.results.atomic import clean_temporaries, make_folder, refresh_listing, results_errors
from s1batch.results.holder import read_holder
from s1batch.results.journal import JournalFlusher, read_journal
from s1batch.results.journal_turns import OpenTurns
from s1batch.results.layout import Layout
from s1batch.results.lease import Lease, LeaseKeeper
from s1batch.results.lease_clock import LeaseClock
from s1batch.results.part_files import PartFiles, rows_folder
from s1batch.results.part_writer import PartWriter, journal_rows, part_journals, remove_journals
from s1batch.results.patience import Patience
from s1batch.results.rearranging import take_out
from s1batch.results.rows_file import check_columns, naming_damage
from s1batch.results.schema import RowSchema
from s1batch.results.stored_schema import open_schema
from s1batch.results.superseding import supersede_part
from s1batch.results.switching import settle

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


GATE = "gate"
"""Lease of who begins a run, and of who changes files of finished parts."""

SUBMIT = "submit"
"""Lease of who submits tasks, which is in nobody's way."""


class ResultsStore:
    """One results directory; a context manager. One per process and run.

    Args:
        path: The directory. With a schema it is created when it is not there.
        schema: The columns of the rows; None opens what is there for reading.
        clock: What leases are judged by.
        patience: How long to wait for the disk once there is a folder with results on it; not at all when left out.

    Raises:
        ConflictError: The directory holds rows with other columns.
        ResultsError: The directory cannot be read or written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: RowSchema | None,
        clock: LeaseClock | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.layout = Layout(Path(path))
        self.patience = patience or Patience(self.layout.journals)
        # A folder that cannot be made is a wrong one.
        opening = partial(open_schema, self.layout, schema)
        with self.patience.call():
            begun = self.layout.schema.exists()
        self.schema = self.patience.through(opening) if begun else opening()
        self._keeper = LeaseKeeper(self.layout.leases, clock=clock, call=self.patience.call)
        self._flusher = JournalFlusher(call=self.patience.call)
        self._open: set[PartWriter] = set()
        self._listed: tuple[tuple[int, int], PartFiles] | None = None

    def __enter__(self) -> ResultsStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all parts, flush all journals and give all leases back.

        Raises:
            ResultsError: Something appended could not be flushed to the disk.
        """
        failures: list[ResultsError] = []
        for writer in list(self._open):
            try:
                writer.close()
            except ResultsError as error:
                failures.append(error)
        self._flusher.close()
        self._keeper.close()
        self.patience.close()
        if failures:
            raise failures[0]

    # ----------------------------------------------------------------------------------------------- parts

    def finished(self) -> set[int]:
        """Return the parts that have their rows in a file."""
        return set(self.files().finished)

    def files(self) -> PartFiles:
        """Return the files of rows as they are now."""
        return PartFiles(self.layout)

    def begun(self) -> set[int]:
        """Return the parts that have a journal."""
        return set(self._numbers(self.layout.journals, self.layout.journal_part))

    @contextmanager
    def lease(self, name: str) -> Iterator[Lease]:
        """Hold a lease for the length of a block; names of parts' leases are taken.

        Raises:
            LockedError: Another process holds it.
        """
        lease = self._acquired(name)
        try:
            yield lease
        finally:
            self._keeper.release(lease)

    @contextmanager
    def gate(self) -> Iterator[Lease]:
        """Hold what every run takes for a moment when it begins, so that none begins meanwhile.

        Raises:
            LockedError: A run begins just now, or the files of rows are being changed.
        """
        with self.lease(GATE) as lease:
            yield lease

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make sure that no other process works on these results, which the caller's gate keeps so for the block.

        Leases of dead processes are taken over for as long.

        Raises:
            LockedError: A run is at work.
        """
        taken: list[Lease] = []
        mine = {*self._keeper.held(), SUBMIT}
        try:
            for name in self._lease_names():
                if name not in mine and read_holder(self.layout.lease(name)) is not None:
                    taken.append(self._acquired(name))
            yield
        finally:
            for lease in taken:
                self._keeper.release(lease)

    def settle(self) -> None:
        """End what a compaction that was killed has left, and tidy up; the caller holds the gate."""
        self.patience.through(self._settle)

    def _settle(self) -> None:
        settle(self.layout)
        make_folder(self.layout.rows)
        self._refresh()
        self.tidy()

    def refresh(self) -> None:
        """Make sure that rows are seen which other hosts have just written; the folders can be written."""
        self.patience.through(self._refresh)

    def _refresh(self) -> None:
        refresh_listing(self.layout.rows)
        refresh_listing(self.layout.journals)

    def open_part(self, part: int) -> PartWriter:
        """Take the lease of a part and load what is answered of it, by any writer.

        Raises:
            LockedError: Another process works on this part.
            ResultsError: What is there cannot be read.
        """
        return self.patience.through(partial(self._open_part, part))

    def _open_part(self, part: int) -> PartWriter:
        lease = self._keeper.acquire(self.layout.part_lease_name(part))

        def on_close(writer: PartWriter) -> None:
            self._open.discard(writer)
            self._keeper.release(lease)

        try:
            refresh_listing(self.layout.journals)
            stored = self._stored(part)
            rows = None if stored is None else self._rows_of(stored, part)
            writer = PartWriter(self.layout, self.schema, part, lease, self._flusher, on_close, self.patience, rows)
        except BaseException:
            self._keeper.release(lease)
            raise
        self._open.add(writer)
        return writer

    def supersede(self, part: int, outcomes: Collection[Outcome]) -> int:
        """Move the rows of a part that have one of these outcomes to `superseded/`, so that they are asked again.

        Returns:
            How many; when there are any, the part is unfinished afterwards and the other rows are in its journal.

        Raises:
            LockedError: Another process works on this part.
            ResultsError: Something cannot be read or written; what was there before still counts.
        """
        stored = self._stored(part)
        if stored is not None and stored.lies_in_large(part):
            if not _has_any(stored, part, outcomes):
                return 0
            with self.gate() as lease:
                self.take_out([part], lease)
        with self.lease(self.layout.part_lease_name(part)):
            return self.patience.through(partial(supersede_part, self.layout, self.schema, part, outcomes))

    def take_out(self, parts: Collection[int], lease: Lease) -> None:
        """Give parts that lie in large files files of their own; where there are none, nothing happens.

        Args:
            parts: Which ones.
            lease: The gate, which the caller holds.

        Raises:
            LockedError: Another run is at work.
            ResultsError: Something cannot be read or written; everything is as before.
        """
        files = self.files()
        if not any(map(files.lies_in_large, parts)):
            return
        with ExitStack() as held:
            try:
                held.enter_context(self.alone())
            except LockedError as error:
                raise LockedError(
                    f"rows that are asked again lie in files of many parts, which change only while no other run is at "
                    f"work on {self.layout.root}: {error}"
                ) from error
            take_out(files, self.schema, frozenset(parts), lease)

    def large_parts_with(self, outcomes: Collection[Outcome]) -> list[int]:
        """Return the parts in large files that have rows with one of these outcomes.

        Raises:
            ResultsError: A file is damaged.
        """
        import polars as pl

        found: list[int] = []
        with naming_damage(self.layout.root):
            for file in self.files().large:
                rows = pl.scan_parquet(file.path, glob=False).filter(pl.col("outcome").is_in(list(outcomes)))
                found += rows.select(pl.col("part").unique()).collect()["part"].to_list()
        return sorted(found)

    def tidy(self) -> None:
        """Remove what killed runs left: temporary files, and journals of finished parts.

        Parts that another process works on are left alone.
        """
        for folder in (self.layout.root, self.layout.rows, self.layout.journals, self.layout.superseded):
            if folder.is_dir():
                clean_temporaries(folder)
        for part in sorted(self.begun() & self.finished()):
            try:
                with self._keeper.lease(self.layout.part_lease_name(part)):
                    if self._stored(part) is not None:
                        remove_journals(self.layout, part_journals(self.layout, part))
            except LockedError:
                continue

    # ------------------------------------------------------------------------------------------------ rows

    def scan(self, parts: Collection[int] | None = None) -> pl.LazyFrame:
        """Return the rows of finished parts, in the order of the plan.

        Args:
            parts: Which ones; None means all.
        """
        return self.files().scan(parts)

    def scan_all(self, parts: Collection[int] | None = None) -> pl.LazyFrame:
        """Return the rows of all finished parts, and behind them those still in journals.

        Args:
            parts: Only these parts; None means all.
        """
        import polars as pl

        files, unfinished = self._rows_by_part(parts)
        rows = [row for part in sorted(unfinished) for row in unfinished[part].values()]
        frame = pl.from_arrow(self.schema.to_table(rows))
        if not isinstance(frame, pl.DataFrame):
            raise TypeError("a table became no frame")
        return pl.concat([files.scan(parts), frame.lazy()])

    def tables(self, parts: Collection[int], columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
        """Yield parts with some columns of their rows: first finished ones in order, then those still in journals.

        For few parts; `scan_all` is faster for many, once polars is there.

        Raises:
            ResultsError: A journal or a file of rows cannot be read.
        """
        files, unfinished = self._rows_by_part(parts)
        for part in sorted(files.finished.intersection(parts)):
            yield part, files.read(part, columns)
        for part in sorted(unfinished):
            yield part, self.schema.to_table(list(unfinished[part].values())).select(columns)

    def latest_rows(self) -> Iterator[Row]:
        """Yield the rows of unfinished parts, then those of finished ones from the last part to the first.

        Raises:
            ResultsError: A journal or a file of rows cannot be read.
        """
        begun = sorted(self.begun())
        for part in begun:
            yield from journal_rows(part_journals(self.layout, part), self.schema).values()
        files = self.files()
        for part in sorted(files.finished, reverse=True):
            yield from self._rows_of(files, part)

    def turns(self) -> Iterator[Turn]:
        """Yield the turns in the journals of unfinished parts, without reading the rows beside them.

        Raises:
            ResultsError: A journal cannot be read.
        """
        for part in sorted(self.begun()):
            for path in part_journals(self.layout, part):
                found = OpenTurns()
                for payload in read_journal(path).payloads:
                    found.take(payload)
                for _, turns in found:
                    yield from turns

    def answered(self, parts: Collection[int] | None = None) -> tuple[set[int], dict[int, frozenset[str]]]:
        """Return the parts that are finished, and the chunk keys that the others have rows for; opens no file of rows.

        Args:
            parts: Only these parts; None means all.
        """
        files, unfinished = self._rows_by_part(parts)
        finished = set(files.finished) if parts is None else files.finished.intersection(parts)
        return set(finished), {part: frozenset(rows) for part, rows in unfinished.items()}

    def _rows_by_part(self, parts: Collection[int] | None) -> tuple[PartFiles, dict[int, dict[str, Row]]]:
        """Return the files of rows, and the rows of the unfinished parts."""
        # Journals first: a part that is finished meanwhile is then read from its file.
        begun = self.begun() if parts is None else self.begun().intersection(parts)
        found = {part: journal_rows(part_journals(self.layout, part), self.schema) for part in sorted(begun)}
        files = self.files()
        return files, {part: rows for part, rows in found.items() if part not in files.finished}

    def _stored(self, part: int) -> PartFiles | None:
        """Return the files that hold the rows of a part; None when it is not finished."""
        if self.layout.part_rows(part).exists():
            return PartFiles.single(self.layout, part)
        # Large files come and go only with the whole folder, which then is another one.
        folder = rows_folder(self.layout)
        with results_errors(folder):
            try:
                found = os.stat(folder)
            except FileNotFoundError:
                return None
        identity = (found.st_dev, found.st_ino)
        if self._listed is None or self._listed[0] != identity:
            self._listed = (identity, self.files())
        files = self._listed[1]
        return files if files.lies_in_large(part) else None

    def _rows_of(self, files: PartFiles, part: int) -> list[Row]:
        table = files.read(part)
        check_columns(files.path_of(part), self.schema, table)
        return self.schema.rows_from_table(table)

    def _acquired(self, name: str) -> Lease:
        return self.patience.through(partial(self._keeper.acquire, name))

    def _lease_names(self) -> list[str]:
        with results_errors(self.layout.leases):
            names = sorted(os.listdir(self.layout.leases)) if self.layout.leases.is_dir() else []
        return [name for name in map(self.layout.lease_name, names) if name is not None]

    def _numbers(self, folder: Path, number_of: Callable[[str], int | None]) -> Iterator[int]:
        with results_errors(folder):
            if not folder.is_dir():
                return
            for name in os.listdir(folder):
                number = number_of(name)
                if number is not None:
                    yield number


def _has_any(files: PartFiles, part: int, outcomes: Collection[Outcome]) -> bool:
    return not set(outcomes).isdisjoint(files.read(part, ["outcome"]).column("outcome").unique().to_pylist())
