"""The results directory as a whole: what is finished, what is in progress, and all rows as one table."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from s1batch.errors import ConflictError, LockedError, ResultsError
from s1batch.records import Outcome, Row, Turn
from s1batch.results.atomic import clean_temporaries, make_folder, results_errors
from s1batch.results.journal import JournalFlusher, read_journal
from s1batch.results.journal_turns import OpenTurns
from s1batch.results.layout import Layout
from s1batch.results.lease import Lease, LeaseClock, LeaseKeeper
from s1batch.results.part_writer import PartWriter, journal_rows, part_journals, remove_journals
from s1batch.results.rows_file import read_rows, read_table, write_table
from s1batch.results.schema import RowSchema
from s1batch.results.superseding import supersede_part

if TYPE_CHECKING:
    import polars as pl


class ResultsStore:
    """One results directory; a context manager. One per process and run.

    Args:
        path: The directory. With a schema it is created when it is not there.
        schema: The columns of the rows; None opens what is there for reading.
        clock: What leases are judged by.

    Raises:
        ConflictError: The directory holds rows with other columns.
        ResultsError: The directory cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], schema: RowSchema | None, clock: LeaseClock | None = None) -> None:
        self.layout = Layout(Path(path))
        self.schema = self._open_schema(schema)
        self._keeper = LeaseKeeper(self.layout.leases, clock=clock)
        self._flusher = JournalFlusher()
        self._open: set[PartWriter] = set()

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
        if failures:
            raise failures[0]

    # ----------------------------------------------------------------------------------------------- parts

    def finished(self) -> set[int]:
        """Return the parts that have their file of rows."""
        return set(self._numbers(self.layout.rows, self.layout.rows_part))

    def begun(self) -> set[int]:
        """Return the parts that have a journal."""
        return set(self._numbers(self.layout.journals, self.layout.journal_part))

    @contextmanager
    def lease(self, name: str) -> Iterator[Lease]:
        """Hold a lease for the length of a block; names of parts' leases are taken.

        Raises:
            LockedError: Another process holds it.
        """
        with self._keeper.lease(name) as lease:
            yield lease

    def open_part(self, part: int) -> PartWriter:
        """Take the lease of a part and load what is answered of it, by any writer.

        Raises:
            LockedError: Another process works on this part.
            ResultsError: What is there cannot be read.
        """
        lease = self._keeper.acquire(self.layout.part_lease_name(part))

        def on_close(writer: PartWriter) -> None:
            self._open.discard(writer)
            self._keeper.release(lease)

        try:
            writer = PartWriter(self.layout, self.schema, part, lease, self._flusher, on_close)
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
        with self._keeper.lease(self.layout.part_lease_name(part)):
            return supersede_part(self.layout, self.schema, part, outcomes)

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
                    if self.layout.part_rows(part).exists():
                        remove_journals(self.layout, part_journals(self.layout, part))
            except LockedError:
                continue

    # ------------------------------------------------------------------------------------------------ rows

    def scan(self, parts: Collection[int] | None = None) -> pl.LazyFrame:
        """Return the rows of finished parts, in the order of the plan.

        Args:
            parts: Which ones; None means all.
        """
        return self._scan_parts(sorted(self.finished() if parts is None else parts))

    def scan_all(self, parts: Collection[int] | None = None) -> pl.LazyFrame:
        """Return the rows of all finished parts, and behind them those still in journals.

        Args:
            parts: Only these parts; None means all.
        """
        import polars as pl

        finished, unfinished = self._rows_by_part(parts)
        rows = [row for part in sorted(unfinished) for row in unfinished[part].values()]
        frame = pl.from_arrow(self.schema.to_table(rows))
        if not isinstance(frame, pl.DataFrame):
            raise TypeError("a table became no frame")
        return pl.concat([self._scan_parts(sorted(finished)), frame.lazy()])

    def latest_rows(self) -> Iterator[Row]:
        """Yield the rows of unfinished parts, then those of finished ones from the last part to the first.

        Raises:
            ResultsError: A journal or a file of rows cannot be read.
        """
        begun = sorted(self.begun())
        for part in begun:
            yield from journal_rows(part_journals(self.layout, part), self.schema).values()
        for part in sorted(self.finished(), reverse=True):
            yield from read_rows(self.layout.part_rows(part), self.schema)

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
        finished, unfinished = self._rows_by_part(parts)
        return finished, {part: frozenset(rows) for part, rows in unfinished.items()}

    def _rows_by_part(self, parts: Collection[int] | None) -> tuple[set[int], dict[int, dict[str, Row]]]:
        """Return the finished parts, and the rows of the unfinished ones."""
        # Journals first: a part that is finished meanwhile is then read from its file.
        begun = self.begun() if parts is None else self.begun().intersection(parts)
        found = {part: journal_rows(part_journals(self.layout, part), self.schema) for part in sorted(begun)}
        finished = self.finished() if parts is None else self.finished().intersection(parts)
        return finished, {part: rows for part, rows in found.items() if part not in finished}

    def _scan_parts(self, parts: list[int]) -> pl.LazyFrame:
        import polars as pl

        # The file without rows gives the columns when no part is finished.
        paths = [self.layout.part_rows(part) for part in parts] or [self.layout.schema]
        return pl.scan_parquet(paths, glob=False)

    # ---------------------------------------------------------------------------------------------- opening

    def _open_schema(self, schema: RowSchema | None) -> RowSchema:
        path = self.layout.schema
        if schema is not None:
            for folder in (self.layout.root, self.layout.rows, self.layout.journals):
                make_folder(folder)
        with results_errors(path):
            if path.exists():
                stored = RowSchema.from_arrow(read_table(path).schema)
            elif schema is None:
                raise ResultsError(f"{self.layout.root} holds no results; give the folder that a run wrote to")
            else:
                write_table(path, schema.arrow.empty_table())
                return schema
        if schema is None:
            return stored
        differences = stored.differences(schema.arrow)
        if differences:
            raise ConflictError(
                f"{self.layout.root} holds rows with other columns: {'; '.join(differences)}; "
                "go back to the job that made them, or choose another output folder"
            )
        return schema

    def _numbers(self, folder: Path, number_of: Callable[[str], int | None]) -> Iterator[int]:
        with results_errors(folder):
            if not folder.is_dir():
                return
            for name in os.listdir(folder):
                number = number_of(name)
                if number is not None:
                    yield number
