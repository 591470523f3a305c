"""The sensors reader behind the seam of `s1batch.readers.base`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from s1batch.columns import Column
from s1batch.long_series import LongSeries
from s1batch.readers.sensors.ahead import ReadAhead
from s1batch.readers.sensors.lineage import lineage_columns
from s1batch.readers.sensors.places import Places
from s1batch.readers.sensors.spec import SensorsSource
from s1batch.records import Chunk, InventoryItem, PlanEntry, Record
from s1batch.windows import WindowSpec


class SensorsReader:
    """Reads windows of arrays as (T, C) series.

    Args:
        spec: The `source` block.
        window: The `window` block.
        base_dir: The folder of the job file, which relative paths start from.
        long: What becomes of windows that are longer than `window.longest_samples`.
        first_delay_s: Pause before a remote store is asked a second time.

    Raises:
        UsageError: URLs of different kinds.
    """

    def __init__(
        self,
        spec: SensorsSource,
        window: WindowSpec,
        base_dir: Path,
        long: LongSeries | None = None,
        *,
        first_delay_s: float = 0.5,
    ) -> None:
        self._spec = spec
        self._window = window
        self._long = long or LongSeries()
        self._places = Places(spec, base_dir, first_delay_s)
        self._ahead = ReadAhead()

    @property
    def lineage(self) -> tuple[Column, ...]:
        """The columns of `s1batch.readers.sensors.lineage`."""
        return lineage_columns()

    def plan(self) -> Iterator[InventoryItem | PlanEntry]:
        """Read descriptions and times, and yield the archive and its windows; see `Reader.plan`."""
        from s1batch.readers.sensors.planner import plan_sensors

        yield from plan_sensors(self._spec, self._window, self._long, self._places)

    def read(self, chunks: Sequence[Chunk]) -> Iterator[Record]:
        """Yield one record per chunk, in the order given; see `s1batch.readers.sensors.session`."""
        from s1batch.readers.sensors.session import ReadSession

        with ReadSession(self._spec, self._window, self._long, self._places, chunks, self._ahead) as session:
            yield from session.records()

    def files(self) -> Iterator[str]:
        """Yield the encoded names of all stores, without opening them."""
        yield from self._places.names()

    def locate(self, path: str) -> Path:
        """Return where a store is now; for one at a URL only a name, see `look_at`."""
        return Path(self._places.where(path))

    def look_at(self, path: str) -> tuple[int, int]:
        """Return bytes and time of the last change (ns) of a store now.

        Raises:
            SourceError: It is not there or cannot be reached.
        """
        facts = self._places.facts(path, now=True)
        return facts.size, facts.mtime_ns
