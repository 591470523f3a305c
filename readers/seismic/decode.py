"""From a waveform file to arrays: which contiguous runs it holds, and the samples of those that are wanted.

A file is asked first for blocks (`blocks`), which say where samples lie in time, and then for their values (`load`).
MiniSEED decodes only the records that overlap a wanted range, each of them once; every other format is decoded whole
by ObsPy when it is opened.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from s1batch.errors import SourceError
from s1batch.paths import encode_path
from s1batch.readers.failures import as_source_error
from s1batch.readers.seismic.compressed import unpacked
from s1batch.readers.seismic.detect import MSEED, detect_plain
from s1batch.readers.seismic.obspy_formats import read_traces
from s1batch.readers.seismic.record_index import index_records
from s1batch.readers.seismic.runs import Block, Samples, run_blocks, split_runs
from s1batch.readers.seismic.sample_buffers import SampleBuffers

_KINDS = {"i": np.int32, "f": np.float32, "d": np.float64}
"""Types of samples by libmseed's letter; text is none of them."""


class WaveformFile(Protocol):
    """An open file; `close` it.

    Attributes:
        stray_bytes: Bytes that belong to no whole record: a cut-off tail, foreign bytes.
    """

    stray_bytes: int

    def blocks(self, channel: str, ranges: NDArray[np.int64]) -> list[Block]:
        """Return the blocks of a channel ("NET.STA.LOC.CHA") that touch any range, in the order of the file.

        Args:
            channel: The channel.
            ranges: Shape (n, 3): start_ns, stop_ns (half-open) and a use number per range.
        """

    def load(self, block: Block) -> None:
        """Decode the block's samples into `values`; what cannot be decoded goes to `damage`.

        Raises:
            SourceError: When the file cannot be read any more.
        """

    def close(self) -> None:
        """Give back the descriptor and the memory."""


def identity(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return size in bytes and modification time in nanoseconds.

    Raises:
        SourceError: When there is no such file, or it may not be looked at.
    """
    try:
        facts = os.stat(path)
    except OSError as error:
        raise as_source_error(error, f"{encode_path(os.fspath(path))}: ") from error
    return facts.st_size, facts.st_mtime_ns


def open_waveforms(
    path: str | os.PathLike[str], format: str | None = None, buffers: SampleBuffers | None = None
) -> WaveformFile:
    """Open a waveform file.

    Args:
        path: The file; `.gz` and `.bz2` are unpacked.
        buffers: Where memory for samples comes from; who drops a block gives its `memory` back there.
        format: ObsPy's name of its format; found from its content when left out. It is never left to ObsPy, whose
            own search executes what it takes for a pickle.

    Raises:
        SourceError: When it is missing, may not be read, or holds no waveforms.
    """
    name = os.path.normpath(os.fspath(path))
    identity(name)
    with unpacked(name) as plain:
        found = format or detect_plain(plain, name)
        # A descriptor stays valid when the unpacked file is removed.
        return (
            MiniSeedFile(plain, name, buffers or SampleBuffers()) if found == MSEED else ObsPyFile(plain, found, name)
        )


class MiniSeedFile:
    """A MiniSEED 2 or 3 file, decoded record by record through pymseed."""

    def __init__(self, path: str, name: str, buffers: SampleBuffers) -> None:
        """Open the file and index its records; messages call it `name`."""
        self._path = encode_path(name)
        self._buffers = buffers
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise as_source_error(error, f"{encode_path(name)}: ") from error
        try:
            self._index = index_records(path, self._fd)
        except OSError as error:
            os.close(self._fd)
            raise as_source_error(error, f"{encode_path(name)}: ") from error
        self.stray_bytes = sum(stop - start for start, stop in self._index.unreadable)

    def blocks(self, channel: str, ranges: NDArray[np.int64]) -> list[Block]:
        """See `WaveformFile.blocks`."""
        if channel not in self._index.channels:
            return []
        rows = np.flatnonzero(self._index.channel == self._index.channels.index(channel))
        found: list[Block] = []
        for run in split_runs(self._index, rows):
            found += run_blocks(run, ranges)
        return found

    def load(self, block: Block) -> None:
        """See `WaveformFile.load`."""
        rows = block.rows
        if block.values is not None or rows is None:
            return
        memory, raw = self._buffers.take(int(self._index.length[rows].sum()), np.uint8)
        try:
            self._read(rows, raw.data)
            if not self._load_together(block, raw.data):
                self._load_singly(block, rows, raw.data)
        finally:
            self._buffers.give_back(memory)

    def close(self) -> None:
        """See `WaveformFile.close`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self, rows: NDArray[np.int64], raw: memoryview) -> None:
        """Read the bytes of records, without what lies between them."""
        offset, length = self._index.offset[rows], self._index.length[rows]
        breaks = np.flatnonzero(offset[1:] != offset[:-1] + length[:-1]) + 1
        place = 0
        for first, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True):
            begin, size = int(offset[first]), int(offset[stop - 1] + length[stop - 1] - offset[first])
            try:
                found = os.preadv(self._fd, [raw[place : place + size]], begin)
            except OSError as error:
                raise SourceError("not_readable", f"{self._path}: {error.strerror}") from error
            if found != size:
                raise SourceError("source_changed", f"{self._path}: became shorter while it was read")
            place += size

    def _load_together(self, block: Block, raw: memoryview) -> bool:
        """Decode all records at once; False when any of them is odd, so that they have to be looked at one by one."""
        import pymseed

        count = block.stop - block.first
        memory = None
        try:
            # Listed first and decoded then, samples go straight to where they stay.
            with pymseed.MS3TraceList(buffer=raw, record_list=True) as traces:
                if pymseed.get_error_messages() or len(traces) != 1 or len(trace := traces[0]) != 1:
                    return False
                segment = trace[0]
                kind = _KINDS.get(segment.sample_size_type[1])
                if segment.samplecnt != count or kind is None:
                    return False
                memory, values = self._buffers.take(count, kind)
                if segment.unpack_recordlist(values) == count and not pymseed.get_error_messages():
                    block.values, block.memory = values, memory
                    return True
        except pymseed.MiniSEEDError:
            pass
        if memory is not None:
            self._buffers.give_back(memory)
        return False

    def _load_singly(self, block: Block, rows: NDArray[np.int64], raw: memoryview) -> None:
        """Decode each record by itself; a record with any complaint of the decoder is damage."""
        import pymseed

        parts: list[tuple[int, Samples]] = []
        place, begin = block.first, 0
        for row in rows:
            count, length = int(self._index.count[row]), int(self._index.length[row])
            try:
                record = pymseed.MS3Record.parse(raw[begin : begin + length], unpack_data=True)
                complaints = pymseed.get_error_messages()
                if not complaints and record.numsamples != count:
                    complaints = [f"{record.numsamples} of {count} samples decoded"]
                if not complaints:
                    parts.append((place, np.array(record.np_datasamples)))
            except (pymseed.MiniSEEDError, ValueError) as error:
                complaints = [str(error)]
            if complaints:
                where = f"{self._path}: record at byte {int(self._index.offset[row])}: {complaints[0]}"
                block.damage.append((place, place + count, where))
            place, begin = place + count, begin + length
        kind = np.result_type(*(values for _, values in parts)) if parts else np.dtype(np.int32)
        block.values = np.zeros(block.stop - block.first, kind)
        for place, values in parts:
            block.values[place - block.first : place - block.first + len(values)] = values


class ObsPyFile:
    """A file of any other format, decoded whole by ObsPy."""

    def __init__(self, path: str, format: str, name: str) -> None:
        """Read the file; messages call it `name`."""
        traces = read_traces(path, format, encode_path(name), headers_only=False)
        self._traces = [
            (trace, _as_stored(trace.values)) for trace in traces if trace.rate_hz > 0 and trace.values is not None
        ]
        self.stray_bytes = 0

    def blocks(self, channel: str, ranges: NDArray[np.int64]) -> list[Block]:
        """See `WaveformFile.blocks`; a block is a whole trace."""
        found = []
        for trace, values in self._traces:
            block = Block(
                run_start_ns=trace.start_ns,
                rate_hz=trace.rate_hz,
                run_count=trace.samples,
                first=0,
                stop=trace.samples,
                values=values,
            )
            touching = ranges[(ranges[:, 0] < block.stop_ns) & (ranges[:, 1] > block.start_ns)]
            if trace.channel == channel and len(touching):
                block.last_use = int(touching[:, 2].max())
                found.append(block)
        return found

    def load(self, block: Block) -> None:
        """See `WaveformFile.load`; there is nothing left to do."""

    def close(self) -> None:
        """See `WaveformFile.close`."""
        self._traces = []


def _as_stored(values: Any) -> Samples:
    """Return a plain array of int32, float32 or float64 with the same values."""
    data: Samples = np.ma.filled(values.astype(np.float64), np.nan) if np.ma.isMaskedArray(values) else values
    if data.dtype.kind == "f":
        return data if data.dtype in (np.float32, np.float64) else data.astype(np.float64)
    return data.astype(np.int32 if np.can_cast(data.dtype, np.int32) else np.float64, copy=False)


def content_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        SourceError: When it cannot be read.
    """
    import hashlib

    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise as_source_error(error, f"{encode_path(os.fspath(path))}: ") from error
