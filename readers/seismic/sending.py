"""The rate at which each window of a call is sent, found again from the window's length."""

from __future__ import annotations

from pathlib import Path

from s1batch.long_series import LongSeries, SeriesGrid
from s1batch.readers.seismic.margin import margin_ns, sent_spec
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.readers.seismic.window import WindowReader
from s1batch.records import Address, Chunk
from s1batch.windows import WindowSpec


class Sending:
    """Readers of windows by the rate that is sent; made for one call, in one thread.

    Args:
        spec: The source.
        window: How windows were cut.
        long: What became of windows that are longer than the engine takes.
        base_dir: The folder of the job file.
    """

    def __init__(self, spec: SeismicSource, window: WindowSpec, long: LongSeries, base_dir: Path) -> None:
        self._spec = spec
        self._window = window
        self._long = long
        self._base_dir = base_dir
        self._grids: dict[float, SeriesGrid] = {}
        self._readers: dict[float | None, WindowReader] = {}
        self._margins_ns: dict[tuple[float, int], int] = {}

    def factor(self, address: Address) -> int:
        """Return the k for which the window of an address is sent at 1/k of the usual rate."""
        rate_hz = self._spec.rate_hz or address.rate_hz
        if not rate_hz:
            return 1
        grid = self._grids.get(rate_hz)
        if grid is None:
            grid = self._grids[rate_hz] = SeriesGrid(self._window, self._long, rate_hz)
        window = address.slices[0]
        return grid.factor(round((window.stop - window.start) * rate_hz / 1e9))

    def margin_ns(self, address: Address) -> int:
        """Return how far around the window of an address samples can influence it."""
        if not address.rate_hz:
            return 0
        factor = self.factor(address)
        found = self._margins_ns.get((address.rate_hz, factor))
        if found is None:
            found = margin_ns(self._sent(address, factor), address.rate_hz)
            self._margins_ns[address.rate_hz, factor] = found
        return found

    def windows(self, chunk: Chunk, factor: int) -> WindowReader:
        """Return what reads a window that is sent at 1/factor of the usual rate."""
        spec = self._sent(chunk.inputs[0], factor) if factor > 1 else self._spec
        reader = self._readers.get(spec.rate_hz)
        if reader is None:
            reader = self._readers[spec.rate_hz] = WindowReader(spec, self._window, self._base_dir)
        return reader

    def _sent(self, address: Address, factor: int) -> SeismicSource:
        rate_hz = self._spec.rate_hz or address.rate_hz
        return sent_spec(self._spec, rate_hz / factor, factor) if rate_hz else self._spec
