"""From the pieces of one channel to evenly spaced samples, and from channels to a (T, C) window.

Values reach float32 directly: integers up to 2**24 are exact, larger ones are rounded to the nearest float32, a
relative error of at most 6e-8. No mean is taken away unless the job asks for `detrend`, which works in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from s1batch.readers.seismic.placement import is_even, parts
from s1batch.readers.seismic.runs import Block

GapFill = Literal["mean", "zero", "interpolate"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """One channel on an even grid.

    Attributes:
        values: The samples; where not covered, anything.
        covered: Which of them the archive holds; None means all.
        shift_s: Largest distance of the start of a run from its place on the grid, signed, in seconds; where samples go
            by their own times, of any of them.
        dropped: Samples that found their place taken by a neighbour, because the clock ran fast.
        bridged: Samples that `bridge` made up and marked covered, in samples of this grid.
        is_integer: Whether the archive holds integers.
    """

    values: NDArray[np.generic]
    covered: NDArray[np.bool_] | None
    shift_s: float = 0.0
    dropped: int = 0
    bridged: float = 0.0
    is_integer: bool = False


def place(blocks: Sequence[Block], origin_ns: int, rate_hz: float, first: int, steps: int) -> Placed:
    """Put samples on the grid origin_ns + i * 1e9 / rate_hz, for i from `first` to `first + steps`.

    Each sample goes to the place that `s1batch.readers.seismic.placement` gives it. Where two blocks hold the same
    place, the first one wins.

    Args:
        blocks: Loaded blocks, in the order of precedence.
        origin_ns: Time of place 0.
        rate_hz: Rate of the grid.
        first: First place wanted.
        steps: How many.
    """
    values: NDArray[np.generic] | None = None
    covered: NDArray[np.bool_] | None = None
    shift_s, dropped = 0.0, 0
    for block in blocks:
        data = block.values
        if data is None:
            continue
        position = None
        for low_sample, high_sample, low_place in _parts(block, origin_ns, rate_hz, first, steps):
            offset = low_place - low_sample + block.first - first
            low, high = max(low_place - first, 0), min(low_place - first + high_sample - low_sample, steps)
            if low >= high:
                continue
            if position is not None:
                dropped += low_sample - position
            position = high_sample
            part = data[low - offset : high - offset]
            for end in (low, high - 1):
                shift = _shift_s(block, origin_ns, rate_hz, end - offset + block.first, first + end)
                shift_s = max(shift_s, shift, key=abs)
            if not block.damage and values is None and high - low == steps:
                return Placed(values=part, covered=None, shift_s=shift_s, is_integer=part.dtype.kind == "i")
            if values is None or covered is None:
                values, covered = np.zeros(steps, data.dtype), np.zeros(steps, np.bool_)
            elif np.result_type(values, data) != values.dtype:
                values = values.astype(np.result_type(values, data))
            free = _sound(block, low - offset, high - offset) & ~covered[low:high]
            values[low:high] = np.where(free, part, values[low:high])
            covered[low:high] |= free
    if values is None or covered is None:
        return Placed(values=np.zeros(steps, np.float32), covered=np.zeros(steps, np.bool_))
    return Placed(
        values=values,
        covered=None if covered.all() else covered,
        shift_s=float(shift_s),
        dropped=dropped,
        is_integer=values.dtype.kind == "i",
    )


def _parts(block: Block, origin_ns: int, rate_hz: float, first: int, steps: int) -> Iterator[tuple[int, int, int]]:
    """The samples of a block that may lie on places first to first + steps, as `placement.parts` gives them."""
    low, high = block.first, block.stop
    if not is_even(block.rate_hz, block.run_count, rate_hz):
        period_ns = 1e9 / block.rate_hz
        begin_ns = origin_ns + first * 1e9 / rate_hz - block.run_start_ns
        low = max(low, math.floor(begin_ns / period_ns) - 2)
        high = min(high, math.ceil((begin_ns + steps * 1e9 / rate_hz) / period_ns) + 2)
    return parts(block.run_start_ns, block.rate_hz, block.run_count, origin_ns, rate_hz, low, high)


def _shift_s(block: Block, origin_ns: int, rate_hz: float, sample: int, place: int) -> float:
    """Return how much later than its place a sample is; of a run placed as a whole, its first sample."""
    if is_even(block.rate_hz, block.run_count, rate_hz):
        sample, place = 0, place - sample
    return (block.run_start_ns - origin_ns) / 1e9 + sample / block.rate_hz - place / rate_hz


def first_damage(
    blocks: Sequence[Block], placed: Placed, origin_ns: int, rate_hz: float, first: int, inside: slice
) -> str | None:
    """Return what the decoder said of the first sample that could not be decoded and that no other file holds.

    Args:
        blocks: What was placed.
        placed: The result.
        origin_ns: As for `place`.
        rate_hz: As for `place`.
        first: As for `place`.
        inside: Which of the placed samples matter.
    """
    for block in blocks:
        for low, high, complaint in block.damage:
            for low_sample, high_sample, place in parts(
                block.run_start_ns, block.rate_hz, block.run_count, origin_ns, rate_hz, low, high
            ):
                start = max(place - first, inside.start)
                stop = min(place - first + high_sample - low_sample, inside.stop)
                if start < stop and placed.covered is not None and not placed.covered[start:stop].all():
                    return complaint
    return None


def bridge(placed: Placed) -> Placed:
    """Put the mean of its neighbours where a single sample is missing, and mark it covered.

    Such holes come from clocks that run slow and from rounding between segments. Any other filling would put a spike
    there, and a filter would stop and start again.
    """
    covered = placed.covered
    if covered is None or len(covered) < 3:
        return placed
    holes = np.flatnonzero(~covered[1:-1] & covered[:-2] & covered[2:]) + 1
    if not len(holes):
        return placed
    values = placed.values.astype(np.float64)
    values[holes] = (values[holes - 1] + values[holes + 1]) / 2
    bridged = covered.copy()
    bridged[holes] = True
    return replace(
        placed, values=values, covered=None if bridged.all() else bridged, bridged=placed.bridged + len(holes)
    )


def fill(values: NDArray[np.float64], covered: NDArray[np.bool_], how: GapFill) -> None:
    """Fill what is not covered, in place.

    Args:
        values: One channel of the window.
        covered: Which samples are real; at least one.
        how: `mean` of the real samples, `zero`, or a straight line between the neighbours (the nearest real sample
            at the edges).
    """
    gaps = ~covered
    if how == "zero":
        values[gaps] = 0
    elif how == "mean":
        values[gaps] = values[covered].mean()
    else:
        real = np.flatnonzero(covered)
        values[gaps] = np.interp(np.flatnonzero(gaps), real, values[real])


def count_covered(placed: Placed, inside: slice) -> int:
    """Return how many samples of a range are covered."""
    within = placed.values[inside] if placed.covered is None else placed.covered[inside]
    return len(within) if placed.covered is None else int(np.count_nonzero(within))


def stretches(covered: NDArray[np.bool_] | None, steps: int) -> list[tuple[int, int]]:
    """Return the contiguous covered ranges, half-open."""
    if covered is None:
        return [(0, steps)]
    edges = np.flatnonzero(np.diff(np.concatenate(([False], covered, [False])).astype(np.int8)))
    return [(int(first), int(stop)) for first, stop in zip(edges[::2], edges[1::2], strict=True)]


def _sound(block: Block, first: int, stop: int) -> NDArray[np.bool_]:
    """Which of the block's samples first to stop were decoded."""
    sound = np.ones(stop - first, np.bool_)
    for low, high, _ in block.damage:
        sound[max(low - block.first - first, 0) : max(high - block.first - first, 0)] = False
    return sound
