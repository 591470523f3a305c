"""The rows of one part, from the first answer to the finished file."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from s1batch.errors import ResultsError
from s1batch.records import Row, Turn
from s1batch.results.atomic import fsync_folder, results_errors
from s1batch.results.journal import Journal, JournalFlusher, read_journal
from s1batch.results.journal_turns import OpenTurns, turn_payload
from s1batch.results.layout import Layout
from s1batch.results.lease import Lease
from s1batch.results.patience import Patience
from s1batch.results.process import ProcessIdentity
from s1batch.results.rows_file import write_rows
from s1batch.results.schema import RowSchema


def part_journals(layout: Layout, part: int) -> list[Path]:
    """Return the journals of one part, of all writers, in a fixed order."""
    with results_errors(layout.journals):
        if not layout.journals.is_dir():
            return []
        names = sorted(name for name in os.listdir(layout.journals) if layout.journal_part(name) == part)
    return [layout.journals / name for name in names]


def journal_rows(paths: Sequence[Path], schema: RowSchema) -> dict[str, Row]:
    """Return the rows of journals by chunk key; of several rows for one key the first counts.

    Records that are intact but no rows of this schema are left out, as torn ones are: their chunks are asked again.

    Raises:
        ResultsError: A journal cannot be read.
    """
    return journal_content(paths, schema)[0]


def journal_content(paths: Sequence[Path], schema: RowSchema) -> tuple[dict[str, Row], OpenTurns]:
    """Return the rows of journals, as `journal_rows` does, and the turns of chunks that have no row yet.

    Raises:
        ResultsError: A journal cannot be read.
    """
    rows: dict[str, Row] = {}
    turns = OpenTurns()
    for path in paths:
        for payload in read_journal(path).payloads:
            if turns.take(payload):
                continue
            try:
                row = schema.row_from_json(payload)
            except (ValueError, TypeError):
                continue
            rows.setdefault(row.chunk_key, row)
    for key in rows:
        turns.drop(key)
    return rows, turns


def remove_journals(layout: Layout, paths: Sequence[Path]) -> None:
    """Remove journals, and flush their folder so that none comes back after a power cut."""
    if not paths:
        return
    with results_errors(layout.journals):
        for path in paths:
            path.unlink(missing_ok=True)
        fsync_folder(layout.journals)


def new_writer_name() -> str:
    """Return a name for a journal that no other writer has."""
    identity = ProcessIdentity.current()
    return f"{identity.machine_slug}_{identity.pid}_{secrets.token_hex(4)}"


class PartWriter:
    """Collects the rows of one part under its lease; made by `ResultsStore.open_part`, a context manager.

    `finish` and `close` wait for a disk that is away; `append` and `append_turn`, which event loops call, do not, but
    may be called again. When a journal can take no more, or could not be flushed, the next one begins with all that
    this writer has appended so far.

    A part that is finished already opens too: then `finished` is true, `rows` holds all of it, and nothing more can be
    appended.
    """

    def __init__(
        self,
        layout: Layout,
        schema: RowSchema,
        part: int,
        lease: Lease,
        flusher: JournalFlusher,
        on_close: Callable[[PartWriter], None],
        patience: Patience,
        stored: Sequence[Row] | None = None,
    ) -> None:
        self.part = part
        self._layout = layout
        self._schema = schema
        self._lease = lease
        self._flusher = flusher
        self._on_close = on_close
        self._patience = patience
        self._disk = threading.RLock()  # held while something is written, which may take as long as the disk likes
        self._lock = threading.Lock()  # held for moments, while rows and turns change or are looked at
        self._journal: Journal | None = None
        self._is_aside = False  # what was appended may be lost with its journal
        self._appended: dict[str, list[bytes]] = {}  # turns by chunk; nothing for one that has its row
        self._closed = False
        self._target = layout.part_rows(part)
        journals = part_journals(layout, part)
        self.finished = stored is not None
        if stored is not None:
            self._rows = {row.chunk_key: row for row in stored}
            self._turns = OpenTurns()
            remove_journals(layout, journals)
        else:
            self._rows, self._turns = journal_content(journals, schema)

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def rows(self) -> dict[str, Row]:
        """A copy of what is answered so far, by chunk key."""
        with self._lock:
            return dict(self._rows)

    def append(self, row: Row) -> Row:
        """Put a row into the journal; when this returns, killing the process does not lose it.

        Values that do not fit their columns are handled as `RowSchema.fit` says.

        Returns:
            The row as stored. When the chunk has a row already, that one: the first counts.

        Raises:
            ResultsError: The journal cannot be written; then the row is not stored.
            ValueError: The row belongs to another part, or the part is finished, which is a mistake in the program.
        """
        if row.part != self.part:
            raise ValueError(f"a row of part {row.part} was given to part {self.part}")
        fitted = self._schema.fit(row)
        payload = self._schema.row_to_json(fitted)
        with self._disk:
            known = self._rows.get(fitted.chunk_key)
            if known is not None:
                return known
            self._put(payload)
            with self._lock:
                self._rows[fitted.chunk_key] = fitted
                self._turns.drop(fitted.chunk_key)
            self._appended[fitted.chunk_key] = []
            return fitted

    def append_turn(self, chunk_key: str, number: int, turn: Turn) -> None:
        """Put a turn of a chunk's conversation into the journal, as safe as a row; it counts until there is the row.

        Args:
            chunk_key: The chunk.
            number: Which turn it is, from 0; of several with one number the last counts.
            turn: The answer with the model's calls, and their results where they have run.

        Raises:
            ResultsError: The journal cannot be written.
            ValueError: The part is finished, which is a mistake in the program.
        """
        payload = turn_payload(chunk_key, number, turn)
        with self._disk:
            self._put(payload)
            self._appended.setdefault(chunk_key, []).append(payload)

    def turns(self, chunk_key: str) -> tuple[Turn, ...]:
        """Return the turns of a chunk without a row that earlier runs received, in order."""
        with self._lock:
            return self._turns.of(chunk_key)

    def finish(self, order: Sequence[str]) -> None:
        """Write the rows as the part's file, then remove its journals.

        Killed in between, the file counts and the journals are removed when the part is opened next. A second call
        does nothing.

        Args:
            order: The chunk keys of the part, in the order of the plan.

        Raises:
            ResultsError: The rows are not exactly those of the plan, or the file cannot be written; the journal stays.
            LockedError: Another run took the part over.
        """
        self._patience.through(partial(self._finish, order))

    def _finish(self, order: Sequence[str]) -> None:
        with self._disk:
            if self._closed:
                raise ValueError(f"part {self.part} is closed")
            self._check_complete(order)
            if not self.finished:
                self._lease.check()
                write_rows(self._target, self._schema, [self._rows[key] for key in order])
                self.finished = True
                self._set_aside()
            remove_journals(self._layout, part_journals(self._layout, self.part))

    def close(self) -> None:
        """Close the journal, keep it, and give the lease back; a second call does nothing.

        Raises:
            ResultsError: What was appended could not be flushed to the disk.
        """
        with self._disk:
            if self._closed:
                return
            self._closed = True
        try:
            if not self.finished:
                self._patience.through(self._end_journal)
        finally:
            with self._disk:
                self._set_aside()
            self._on_close(self)

    def _put(self, payload: bytes) -> None:
        """Hand one record to the system; the caller holds the disk."""
        if self._closed or self.finished:
            raise ValueError(f"part {self.part} is {'closed' if self._closed else 'finished'}")
        if self._lease.lost:
            self._lease.check()  # another run asks these questions already
        self._open_journal().append(payload)

    def _open_journal(self) -> Journal:
        if self._journal is not None and self._journal.is_broken:
            self._set_aside()
        if self._journal is None:
            self._journal, self._is_aside = self._new_journal(), False
        return self._journal

    def _new_journal(self) -> Journal:
        journal = Journal(self._layout.journal(self.part, new_writer_name()), self._flusher, self._mended)
        try:
            for key, turns in self._appended.items():
                row = self._rows.get(key)
                for payload in turns if row is None else [self._schema.row_to_json(row)]:
                    journal.append(payload)
        except BaseException:
            journal.discard()
            raise
        return journal

    def _set_aside(self) -> None:
        """Append no more to this journal, which stays as long as the part is unfinished."""
        if self._journal is not None:
            self._journal.discard()
            self._journal, self._is_aside = None, True

    def _mended(self, journal: Journal) -> bool:
        """Begin another journal where one could not be flushed; called in the background."""
        with self._disk:
            if self._closed or journal is not self._journal:
                return True
            try:
                fresh = self._new_journal()
            except ResultsError:
                return False
            journal.discard()
            self._journal = fresh
            return True

    def _end_journal(self) -> None:
        with self._disk:
            if self._is_aside:
                self._open_journal()
            if self._journal is None:
                return
            try:
                self._journal.close()
            except ResultsError:
                self._set_aside()
                raise
            self._journal = None

    def _check_complete(self, order: Sequence[str]) -> None:
        missing = [key for key in order if key not in self._rows]
        if missing:
            raise ResultsError(
                f"part {self.part} cannot be finished: {len(missing)} of its {len(order)} chunks have no row, "
                f"the first is {missing[0]}; run again to go on"
            )
        if len(order) != len(self._rows) or len(set(order)) != len(order):
            foreign = sorted(set(self._rows).difference(order))
            what = f"{len(foreign)} rows are not in the plan, the first is {foreign[0]}" if foreign else "doubled keys"
            raise ResultsError(
                f"part {self.part} cannot be finished: {what}; the plan changed under these results: "
                "restore it, or start with another output folder"
            )
