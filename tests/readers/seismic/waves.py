"""Small waveform archives with known content, and chunks that ask for parts of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s1batch.paths import encode_path
from s1batch.readers.seismic.reader import SeismicReader
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.records import Address, Chunk, Record, Series, Slice
from s1batch.windows import WindowSpec

T0 = 1_704_067_200_000_000_000
"""2024-01-01T00:00:00Z."""

SECOND = 1_000_000_000

Values = NDArray[Any]


def counts(samples: int, seed: int = 0) -> NDArray[np.int32]:
    """A wandering signal of integers that Steim-2 can hold."""
    rng = np.random.default_rng(seed)
    walk: NDArray[np.int32] = np.cumsum(rng.integers(-50, 51, samples)).astype(np.int32)
    return walk


def mseed(
    channel: str,
    start_ns: int,
    values: Values,
    rate_hz: float = 100.0,
    *,
    reclen: int = 512,
    encoding: str | None = None,
) -> bytes:
    """The records of one contiguous piece."""
    from obspy import Trace, UTCDateTime

    network, station, location, code = channel.split(".")
    header = {"network": network, "station": station, "location": location, "channel": code}
    trace = Trace(values, {**header, "sampling_rate": rate_hz, "starttime": UTCDateTime(ns=start_ns)})
    if encoding is None:
        encoding = {"i": "STEIM2", "f": "FLOAT64" if values.dtype == np.float64 else "FLOAT32"}[values.dtype.kind]
    buffer = io.BytesIO()
    trace.write(buffer, format="MSEED", reclen=reclen, encoding=encoding)
    return buffer.getvalue()


def records(data: bytes, reclen: int = 512) -> list[bytes]:
    """Cut MiniSEED bytes into records."""
    return [data[first : first + reclen] for first in range(0, len(data), reclen)]


def chunk(
    start_ns: int,
    stop_ns: int,
    inputs: Iterable[tuple[str, str]],
    rate_hz: float = 100.0,
    core: tuple[int, int] | None = None,
) -> Chunk:
    """A planned window of (channel, file below the root) pairs."""
    window = (Slice(dim="time_ns", start=start_ns, stop=stop_ns),)
    return Chunk(
        inputs=tuple(
            Address(source=channel, root="archive", path=encode_path(path), slices=window, rate_hz=rate_hz)
            for channel, path in inputs
        ),
        core=core,
    )


def seismic_reader(folder: Path, *, window: dict[str, Any] | None = None, **spec: Any) -> SeismicReader:
    """A reader of all files of a folder."""
    source = SeismicSource.model_validate({"kind": "seismic", "paths": ("*",), "components": "Z", **spec})
    return SeismicReader(source, WindowSpec.model_validate(window or {}), folder)


def read_one(reader: SeismicReader, wanted: Chunk) -> Record:
    """Read a single chunk."""
    (record,) = reader.read([wanted])
    return record


def wave(record: Record) -> NDArray[np.float32]:
    """The (T, C) values of a record that was not refused."""
    assert record.refusal is None, record.refusal
    assert isinstance(record.payload, Series)
    return record.payload.values_TC


def read_waves(reader: SeismicReader, wanted: Sequence[Chunk]) -> list[NDArray[np.float32]]:
    """The values of every chunk, none of which may be refused."""
    return [wave(record) for record in reader.read(wanted)]


def obspy_file(name: str) -> Path:
    """A file that ObsPy ships for its own tests, by its path inside the package."""
    import obspy

    return Path(obspy.__file__).parent / name


Z = "XX.AAA..HHZ"
ZNE = ("XX.AAA..HHZ", "XX.AAA..HHN", "XX.AAA..HHE")


def day(folder: Path, name: str = "day", seconds: int = 600) -> list[np.ndarray]:
    """Three components in one file."""
    values = [counts(seconds * 100, seed) for seed in range(3)]
    (folder / name).write_bytes(b"".join(mseed(c, T0, v) for c, v in zip(ZNE, values, strict=True)))
    return values
