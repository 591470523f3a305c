"""Reads the windows of a run again and gives them to the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s1batch.jobs.scoring.baselines import NOTHING, BaselineName, Waves, WindowPicks, pick_with
from s1batch.plan_store import PlanStore
from s1batch.readers.base import Reader
from s1batch.records import Record, Series
from s1batch.source_check import SourceFacts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BaselineRows:
    """What baselines say about windows, in the order that was asked for.

    Attributes:
        picks: One answer for each window, by baseline.
        rates_hz: The rate that each window's indices count at.
        readable: Which windows could be read.
    """

    picks: Mapping[BaselineName, Sequence[WindowPicks]]
    rates_hz: Sequence[float]
    readable: NDArray[np.bool_]

    @property
    def unreadable(self) -> int:
        """How many windows could not be read."""
        return int((~self.readable).sum())


def pick_again(
    reader: Reader, plan: PlanStore, chunk_keys: Sequence[str], names: Sequence[BaselineName]
) -> BaselineRows:
    """Read windows and pick in them; one part of the plan is in memory at a time.

    Args:
        reader: The run's reader.
        plan: The run's plan.
        chunk_keys: The windows, in the order of the answer.
        names: Baselines that look at the samples.
    """
    place = {key: number for number, key in enumerate(chunk_keys)}
    picks: dict[BaselineName, list[WindowPicks]] = {name: [NOTHING] * len(place) for name in names}
    rates_hz = [1.0] * len(place)
    readable = np.zeros(len(place), bool)
    for part in range(plan.parts()):
        chunks = [entry.chunk for entry in plan.entries(part) if entry.chunk.key in place]
        facts = SourceFacts.of(plan, {address.path for chunk in chunks for address in chunk.inputs})
        for record in reader.read(chunks):
            series = record.payload
            if not isinstance(series, Series) or facts.changed(record) is not None:
                continue
            number = place[record.chunk.key]
            readable[number], rates_hz[number] = True, series.rate_hz
            waves = _waves(record, series)
            if waves is not None:
                for name, found in pick_with(waves, names).items():
                    picks[name][number] = found
    return BaselineRows(picks=picks, rates_hz=rates_hz, readable=readable)


def _waves(record: Record, series: Series) -> Waves | None:
    """Return the components of a record, without the padding behind them."""
    lineage = record.lineage
    steps = series.values_TC.shape[0]
    data_steps = steps - round(steps * float(lineage.get("pad_frac") or 0.0))
    components = str(lineage.get("components") or "".join(name[-1:] for name in series.channels))
    return Waves.of(series.values_TC[:data_steps], components, str(lineage.get("fill") or ""), series.rate_hz)
