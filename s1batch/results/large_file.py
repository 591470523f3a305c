"""Files that hold the rows of many parts: written part after part, read back part by part.

A part lies within one row group, so that reading it decodes little else. The file's own metadata say for each part how
many rows it has, when they were written, and the digest of their content.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from s1batch.errors import ResultsError
from s1batch.results.atomic import rename
from s1batch.results.content_digest import DIGEST_BYTES, content_digest
from s1batch.results.layout import Layout
from s1batch.results.rows_file import reading

GROUP_ROWS = 32_768
"""A row group ends with the part that reaches so many rows."""

GROUP_BYTES = 8 << 20
"""Or so many bytes in memory: readers and writers hold a few row groups at a time."""

_KEY = b"s1batch.parts"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartIndex:
    """What a file of many parts says about them.

    Attributes:
        first: The first part; the others follow without a gap.
        rows: Rows of each part.
        written_ns: When the rows of each part were written first, ns since 1970.
        digests: Digest of each part's content.
    """

    first: int
    rows: np.ndarray[Any, np.dtype[np.int32]]
    written_ns: np.ndarray[Any, np.dtype[np.int64]]
    digests: tuple[bytes, ...]

    @property
    def last(self) -> int:
        """The last part."""
        return self.first + len(self.rows) - 1

    def encoded(self) -> str:
        """Return the index as text."""
        packed = {
            "rows": self.rows.astype("<i4").tobytes(),
            "written_ns": self.written_ns.astype("<i8").tobytes(),
            "digests": b"".join(self.digests),
        }
        texts = {name: b64encode(data).decode() for name, data in packed.items()}
        return orjson.dumps({"first": self.first, **texts}).decode()

    @classmethod
    def decoded(cls, text: bytes) -> PartIndex:
        """Return the index that `encoded` gave.

        Raises:
            ValueError: It is something else.
        """
        plain = orjson.loads(text)
        try:
            data = {name: b64decode(plain[name], validate=True) for name in ("rows", "written_ns", "digests")}
            size = DIGEST_BYTES
            found = cls(
                first=int(plain["first"]),
                rows=np.frombuffer(data["rows"], "<i4"),
                written_ns=np.frombuffer(data["written_ns"], "<i8"),
                digests=tuple(data["digests"][at : at + size] for at in range(0, len(data["digests"]), size)),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no index of parts: {error}") from error
        if not len(found.rows) == len(found.written_ns) == len(found.digests):
            raise ValueError("no index of parts: its columns have different lengths")
        return found


class LargeFileWriter:
    """Writes one file of many parts in a folder that nobody reads yet; a context manager.

    Args:
        layout: The results.
        folder: Where the file comes to be.
        schema: Columns of the rows.

    Attributes:
        rows: Rows so far.
        path: The file, once it is closed.
    """

    def __init__(self, layout: Layout, folder: Path, schema: pa.Schema) -> None:
        self._layout = layout
        self._folder = folder
        self._schema = schema
        self._temporary = folder / ".writing.parquet.tmp"
        self._writer = pq.ParquetWriter(self._temporary, schema, compression="zstd", write_page_checksum=True)
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._first = -1
        self._sizes: list[int] = []
        self._written_ns: list[int] = []
        self._digests: list[bytes] = []
        self.rows = 0
        self.path: Path | None = None

    def __enter__(self) -> LargeFileWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()
            self._temporary.unlink(missing_ok=True)

    @property
    def sizes(self) -> list[int]:
        """Rows of each part so far."""
        return list(self._sizes)

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Digest of each part so far."""
        return tuple(self._digests)

    def add(self, part: int, table: pa.Table, written_ns: int) -> None:
        """Write the rows of the next part.

        Raises:
            ValueError: A part is left out, which is a mistake in the program.
        """
        if not self._sizes:
            self._first = part
        if part != self._first + len(self._sizes):
            raise ValueError(f"part {part} follows {len(self._sizes)} parts from {self._first}")
        table = table.cast(self._schema)
        self._sizes.append(table.num_rows)
        self._written_ns.append(written_ns)
        self._digests.append(content_digest(table))
        self._waiting.append(table)
        self.rows += table.num_rows
        self._waiting_rows += table.num_rows
        self._waiting_bytes += table.nbytes
        if self._waiting_rows >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self._end_group()

    def close(self) -> None:
        """Complete the file under its own name, which stands for its content; without parts there is none."""
        self._end_group()
        index = PartIndex(
            first=self._first,
            rows=np.array(self._sizes, np.int32),
            written_ns=np.array(self._written_ns, np.int64),
            digests=tuple(self._digests),
        )
        self._writer.add_key_value_metadata({_KEY.decode(): index.encoded()})
        self._writer.close()
        if not self._sizes:
            self._temporary.unlink()
            return
        digest = blake3(b"".join(self._digests)).hexdigest(length=8)
        self.path = self._layout.large_rows(self._folder, index.first, index.last, digest)
        rename(self._temporary, self.path)

    def _end_group(self) -> None:
        if not self._waiting_rows:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting.clear()
        self._waiting_rows = self._waiting_bytes = 0
        self._writer.write_table(table, row_group_size=table.num_rows)


class LargeFile:
    """A file of many parts, open for reading by several threads; its last row group stays at hand.

    Raises:
        ResultsError: It cannot be read, or is not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path), pq.ParquetFile(path) as file:
            metadata = file.metadata
            found = (metadata.metadata or {}).get(_KEY)
            sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        try:
            self.index = PartIndex.decoded(found or b"{}")
        except ValueError as error:
            raise ResultsError(f"{path}: {error}; restore the file from a copy") from error
        begins = np.concatenate([[0], np.cumsum(self.index.rows, dtype=np.int64)])
        ends = np.cumsum(sizes, dtype=np.int64)
        if begins[-1] != (ends[-1] if sizes else 0):
            raise ResultsError(f"{path} has {sum(sizes)} rows, its parts {begins[-1]}; restore it from a copy")
        self._begins = begins
        self._group_ends = ends
        # A part without rows counts to the group that is open where it stands, or to the last one.
        self._group_of = np.minimum(np.searchsorted(ends, begins[:-1], side="right"), max(len(sizes) - 1, 0))

    @property
    def groups(self) -> int:
        """How many row groups there are, at least one."""
        return max(len(self._group_ends), 1)

    def parts_of(self, group: int) -> range:
        """Return the parts that lie in a row group."""
        first, last = np.searchsorted(self._group_of, [group, group + 1])
        return range(self.index.first + int(first), self.index.first + int(last))

    def group(self, number: int, columns: list[str] | None = None) -> pa.Table:
        """Read a row group, or some columns of it, and check its checksums.

        Raises:
            ResultsError: It is damaged.
        """
        with reading(self.path), pq.ParquetFile(self.path, page_checksum_verification=True) as file:
            if not len(self._group_ends):
                return file.read(columns, use_threads=False).replace_schema_metadata()
            return file.read_row_group(number, columns, use_threads=False).replace_schema_metadata()

    def part_of(self, table: pa.Table, group: int, part: int) -> pa.Table:
        """Return the rows of a part out of its row group."""
        place = part - self.index.first
        before = int(self._group_ends[group - 1]) if group else 0
        return table.slice(int(self._begins[place]) - before, int(self.index.rows[place]))

    def group_number(self, part: int) -> int:
        """Return the row group that a part lies in."""
        return int(self._group_of[part - self.index.first])
