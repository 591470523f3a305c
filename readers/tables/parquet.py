"""Rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from s1batch.errors import SourceError
from s1batch.readers.tables.formats import RowPlace
from s1batch.readers.tables.forward import Decoder, ForwardFormat

_BATCH_BYTES = 2 * 2**20
_BATCH_ROWS = 1024
_BUFFER_BYTES = 2**20  # pages are read one by one: without this, a whole column of a row group would be held

_LARGE_ROW_BYTES = 2**18
"""Rows from here on are decoded through blocks of megabytes."""

_pools = Lock()


@contextmanager
def _keeping_blocks() -> Iterator[None]:
    """Let what is opened in here decode with an allocator that uses blocks again.

    A process that gives each large block back to the system (`process_settings.py`) gets it anew, page by page, for the
    next rows: that took two thirds of the time of decoding texts of 1 MB. Small rows gain nothing, and would leave
    megabytes with each thread. Arrow takes the allocator of a file when it opens it, and from nowhere but the default.
    """
    import pyarrow as pa

    with _pools:
        before = pa.default_memory_pool()
        try:
            pool = pa.mimalloc_memory_pool()
        except NotImplementedError:  # Arrow was built without it
            pool = before
        pa.set_memory_pool(pool)
        try:
            yield
        finally:
            pa.set_memory_pool(before)


class _ParquetDecoder(Decoder):
    """Decodes row groups in bounded batches.

    Attributes:
        nbytes: Bytes of the columns that are read, uncompressed.
    """

    kind = "Parquet"

    def _open(self) -> None:
        import pyarrow.parquet as pq

        self._batches: Iterator[Any] | None = None
        # Checksums are verified where the writer kept some.
        options = {"buffer_size": _BUFFER_BYTES, "page_checksum_verification": True}
        self._file = pq.ParquetFile(self._raw, **options)
        metadata = self._file.metadata
        self.rows = metadata.num_rows
        self.nbytes = sum(self._group_bytes(number) for number in range(metadata.num_row_groups))
        if self.nbytes >= _LARGE_ROW_BYTES * max(self.rows, 1):
            with _keeping_blocks():
                self._file = pq.ParquetFile(self._raw, metadata=metadata, **options)

    @property
    def schema(self) -> Any:
        """The columns with their Arrow types."""
        return self._file.schema_arrow

    def close(self) -> None:
        """Close the file."""
        self._batches = None
        super().close()

    def batch_with(self, index: int) -> tuple[Any, int, SourceError | None]:
        """Decode on until the batch that holds a row, which must not lie before `position`.

        Returns:
            The batch and the index of its first row; or the error of the row's group, which begins anew next time.
        """
        import pyarrow as pa

        group, first, behind = self._group_of(index)
        if self._batch is not None and self.position <= index < self.position + len(self._batch):
            return self._batch, self.position, None
        try:
            if self._batches is None or self.position < first or self._batch is None:
                self._batches, self._batch, self.position = self._batches_of(group), None, first
            while self._batch is None or self.position + len(self._batch) <= index:
                self.position += 0 if self._batch is None else len(self._batch)
                self._batch = next(self._batches)
        except (pa.ArrowException, OSError, StopIteration) as error:
            self._batches, self._batch, self.position = None, None, behind
            said = "it ends early" if isinstance(error, StopIteration) else error
            return None, first, SourceError("decode_error", f"row group {group}: {said}")
        return self._batch, self.position, None

    def end_of_group(self, index: int) -> int:
        """Return the first row behind the row group that holds a row."""
        return self._group_of(index)[2]

    def _group_of(self, index: int) -> tuple[int, int, int]:
        first = 0
        for number in range(self._file.metadata.num_row_groups):
            behind = first + self._file.metadata.row_group(number).num_rows
            if index < behind:
                return number, first, behind
            first = behind
        raise IndexError(index)

    def _batches_of(self, group: int) -> Iterator[Any]:
        rows = self._file.metadata.row_group(group).num_rows
        batch_rows = min(max(_BATCH_BYTES * rows // max(self._group_bytes(group), 1), 1), _BATCH_ROWS)
        columns = None if self._columns is None else list(self._columns)
        # Parts are read side by side already; Arrow's own threads would each keep what they decoded.
        batches: Iterator[Any] = self._file.iter_batches(
            batch_size=batch_rows, row_groups=[group], columns=columns, use_threads=False
        )
        return batches

    def _group_bytes(self, group: int) -> int:
        metadata = self._file.metadata.row_group(group)
        leaves = [metadata.column(number) for number in range(metadata.num_columns)]
        read = [leaf for leaf in leaves if self._columns is None or _belongs_to(leaf, self._columns)]
        return sum(leaf.total_uncompressed_size for leaf in read)


def _belongs_to(leaf: Any, columns: tuple[str, ...]) -> bool:
    """Return whether a leaf column belongs to one of the columns, whose names may hold dots themselves."""
    return any(leaf.path_in_schema == name or leaf.path_in_schema.startswith(f"{name}.") for name in columns)


@dataclass(frozen=True, slots=True)
class Parquet(ForwardFormat):
    """Parquet, read by row groups in bounded batches."""

    decoder = _ParquetDecoder

    def scan(self, path: Path) -> Iterator[RowPlace]:
        """Yield every row, from the footer alone."""
        with _ParquetDecoder(path, self.columns) as decoder:
            rows, nbytes = decoder.rows, decoder.nbytes
        for index in range(rows):
            yield RowPlace(index=index, nbytes=nbytes // rows)
