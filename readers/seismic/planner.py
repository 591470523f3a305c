"""From the headers of an archive to its inventory and the chunks of the plan.

The whole archive is scanned once; what is kept of it is 28 bytes per stretch and a line per file. Then one instrument
after the other is laid on its grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from s1batch.grid import time_of
from s1batch.long_series import LongSeries, SentWindow, SeriesGrid
from s1batch.readers.seismic.catalogue import Catalogue, CatalogueFile, Lane, common_rates, separate
from s1batch.readers.seismic.components import requested_components
from s1batch.readers.seismic.coverage import Piece
from s1batch.readers.seismic.inventory import claimed_item, take_file
from s1batch.readers.seismic.locate import ROOT_NAME, locate
from s1batch.readers.seismic.margin import margin_ns, sent_spec, sent_steps
from s1batch.readers.seismic.selection import time_range_ns
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.readers.seismic.timeline import Run, nearby, runs
from s1batch.records import Address, Chunk, InventoryItem, PlanEntry, Refusal, SeriesShape, Slice
from s1batch.windows import WindowSpec

_SPLIT = LongSeries()


def plan_seismic(
    spec: SeismicSource, window: WindowSpec, base_dir: Path, long: LongSeries = _SPLIT
) -> Iterator[InventoryItem | PlanEntry]:
    """Yield the whole archive as inventory items, and every chunk once.

    First, in the order of the files, what is not selected and what cannot be read; then each instrument with its
    selected and duplicate stretches and its windows by time.

    Args:
        spec: The source.
        window: How to cut, with `max` already replaced.
        base_dir: The folder of the job file.
        long: What becomes of windows that are longer than `window.longest_samples`.

    Raises:
        UsageError: The job file asks for something impossible, or no file matches.
    """
    components = requested_components(spec.components)
    time_range = time_range_ns(spec)
    _check_window(window, long, spec.rate_hz)
    catalogue = Catalogue()
    for file in locate(spec, base_dir):
        yield from take_file(file, spec, frozenset(components), time_range, catalogue)
    for group, channels in catalogue.instruments():
        rates = common_rates(channels)
        for rate_hz in dict.fromkeys(rates.values()):
            pieces: dict[str, list[Piece]] = {}
            for channel, stretches in channels.items():
                if found := list(stretches.at_rate(channel, rate_hz, rates)):
                    pieces[channel] = found
            roles = {channel: channels[channel].role for channel in pieces}
            sent_hz = rate_hz if spec.rate_hz is None else spec.rate_hz
            for label, lane in separate(group, pieces, roles):
                instrument = _Instrument(
                    label=label,
                    lane=lane,
                    components=components,
                    rate_hz=rate_hz,
                    sent_hz=sent_hz,
                    spec=spec,
                    refuse_missing=spec.missing == "refuse",
                    max_gap_frac=window.max_gap_frac,
                )
                yield from instrument.plan(SeriesGrid(window, long, sent_hz), catalogue.files)


def _check_window(window: WindowSpec, long: LongSeries, sent_hz: float | None) -> None:
    """Raise what is wrong with the window at any rate, before a single file is opened."""
    units = {window.length.unit}
    if long.policy == "coarse_to_fine":
        units.add(long.coarse_to_fine.length.unit)
    units |= {extent.unit for extent in (window.overlap, window.blinding) if extent.value > 0 and extent.unit != "%"}
    any_rate_hz = 1e6
    if sent_hz is not None or len(units) == 1:
        SeriesGrid(window, long, sent_hz or any_rate_hz)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instrument:
    """Channels that are sent together.

    Attributes:
        label: Its name, for people.
        lane: Its pieces by component.
        components: What is sent, in order.
        rate_hz: The recorded rate.
        sent_hz: The rate of the grid.
        spec: The source, which says how far around a window its processing reads.
        refuse_missing: Whether a window without one of the components is refused.
        max_gap_frac: Largest share of a window that may be filled.
    """

    label: str
    lane: Lane
    components: tuple[str, ...]
    rate_hz: float
    sent_hz: float
    spec: SeismicSource
    refuse_missing: bool
    max_gap_frac: float

    def plan(self, grid: SeriesGrid, files: Sequence[CatalogueFile]) -> Iterator[InventoryItem | PlanEntry]:
        """Yield what becomes of every sample, and a line of the plan for each window, by time."""
        around = _Surroundings(self.lane, self.rate_hz)
        for run in runs(self.lane, grid.whole, self.rate_hz, self.sent_hz):
            for claim in run.claims:
                yield claimed_item(claim, files)
            scan = ""
            for sent in grid.windows(run.intervals):
                entry = self._entry(run, sent, files, around)
                if sent.is_conditional:
                    entry = replace(entry, condition=scan)
                elif sent.is_scan:
                    scan = entry.chunk.key
                yield entry

    def _entry(self, run: Run, sent: SentWindow, files: Sequence[CatalogueFile], around: _Surroundings) -> PlanEntry:
        window, sent_hz = sent.window, self.sent_hz / sent.factor
        start_ns = time_of(window.start, run.anchor_ns, self.sent_hz)
        stop_ns = time_of(window.stop, run.anchor_ns, self.sent_hz)
        slices = (Slice(dim="time_ns", start=start_ns, stop=stop_ns),)
        data_stop = window.stop - window.pad
        addresses: list[Address] = []
        missing = ""
        filled = present = 0
        nbytes = 0.0
        for component in self.components:
            track = run.tracks.get(component)
            drawn = track.within(window.start, data_stop) if track is not None else []
            if not drawn:
                missing += component
                continue
            present += 1
            filled += data_stop - window.start
            sources = set()
            for piece, covered in drawn:
                filled -= covered
                nbytes += covered / self.sent_hz * piece.rate_hz * files[piece.file].bytes_per_sample
                sources.add((piece.file, piece.channel))
            sources.update(around.sources(component, start_ns, stop_ns, sent_spec(self.spec, sent_hz, sent.factor)))
            addresses += [
                Address(source=channel, root=ROOT_NAME, path=files[file].name, slices=slices, rate_hz=self.rate_hz)
                for file, channel in sorted(sources)
            ]
        steps = window.stop - window.start
        gap_frac = filled / (steps * present)
        core = None
        if (window.core_start, window.core_stop) != (window.start, window.stop):
            core = (
                time_of(window.core_start, run.anchor_ns, self.sent_hz),
                time_of(window.core_stop, run.anchor_ns, self.sent_hz),
            )
        return PlanEntry(
            chunk=Chunk(tuple(addresses), core),
            label=self.label,
            series=SeriesShape(
                steps=steps if sent.factor == 1 else sent_steps(stop_ns - start_ns, sent_hz),
                channels=len(self.components),
                rate_hz=sent_hz,
            ),
            nbytes=round(nbytes),
            gap_frac=gap_frac,
            refusal=self._refusal(missing, gap_frac),
            is_scan=sent.is_scan,
        )

    def _refusal(self, missing: str, gap_frac: float) -> Refusal | None:
        if missing and self.refuse_missing:
            detail = f"{self.label} has no data of {', '.join(missing)} in this window (source.missing: refuse)"
            return Refusal(outcome="refused", reason="missing_component", detail=detail)
        if gap_frac > self.max_gap_frac:
            detail = f"{gap_frac:.1%} of the window is gaps, more than window.max_gap_frac ({self.max_gap_frac:.1%})"
            return Refusal(outcome="refused", reason="gap_too_large", detail=detail)
        return None


class _Surroundings:
    """Finds what the margin of a window touches besides its own samples.

    Args:
        lane: The pieces of an instrument, by component.
        rate_hz: The recorded rate.
    """

    def __init__(self, lane: Lane, rate_hz: float) -> None:
        self._lane = lane
        self._rate_hz = rate_hz
        self._margins_ns: dict[float | None, int] = {}
        self._reach_ns: dict[str, list[int]] = {}

    def sources(self, component: str, start_ns: int, stop_ns: int, spec: SeismicSource) -> Iterator[tuple[int, str]]:
        """Yield file and channel of each piece that a window or its margin shares time with; none without a margin."""
        margin = self._margins_ns.get(spec.rate_hz)
        if margin is None:
            margin = self._margins_ns[spec.rate_hz] = margin_ns(spec, self._rate_hz)
        if not margin:
            return
        if component not in self._reach_ns:
            self._reach_ns[component] = list(accumulate((piece.stop_ns for piece in self._lane[component]), max))
        around = nearby(self._lane[component], self._reach_ns[component], start_ns - margin, stop_ns + margin)
        yield from ((piece.file, piece.channel) for piece in around)
