"""From the pieces of one channel to evenly spaced samples, and from channels to a (T, C) window.

Values reach float32 directly: integers up to 2**24 are exact, larger ones are rounded to the nearest float32, a
relative error of at most 6e-8. No mean is taken away unless the job asks for `detrend`, which works in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from s1batch.readers.seismic.runs import Block

GapFill = Literal["mean", "zero", "interpolate"]

_TIE_NS = 2.0
"""Sample times that lie halfway between two places go to the later one, even when a time was rounded to a nanosecond:
all windows must decide alike, or a sample would fall between two of them."""


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

    Each sample goes to the nearest place. Where two blocks hold the same place, the first one wins. A run whose own
    rate differs so little from the grid's that it stays within half a sample over all its length is placed as a
    whole, so that no sample is lost between two windows; in any other, each sample goes by its own time.

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
        if is_even(block, rate_hz):
            nearest, shift = nearest_place(block, origin_ns, rate_hz)
            offset = nearest + block.first - first
            low, high = max(offset, 0), min(offset + len(data), steps)
            if low >= high:
                continue
            part = data[low - offset : high - offset]
            if abs(shift) > abs(shift_s):
                shift_s = shift
            if not block.damage and values is None and high - low == steps:
                return Placed(values=part, covered=None, shift_s=shift_s, is_integer=part.dtype.kind == "i")
            places: slice | NDArray[np.int64] = slice(low, high)
            sound = _sound(block, low - offset, high - offset)
        else:
            step = rate_hz / block.rate_hz
            exact = (block.run_start_ns - origin_ns) * rate_hz / 1e9
            position = exact + np.arange(block.first, block.stop) * step - first
            nearest_each = np.floor(position + 0.5 + _TIE_NS * 1e-9 * rate_hz).astype(np.int64)
            inside = (nearest_each >= 0) & (nearest_each < steps)
            if not inside.any():
                continue
            within = nearest_each[inside]
            kept = np.concatenate(([True], np.diff(within) > 0))
            dropped += int(len(kept) - kept.sum())
            places, part = within[kept], data[inside][kept]
            worst = (position[inside] - within)[np.argmax(np.abs(position[inside] - within))] / rate_hz
            shift_s = worst if abs(worst) > abs(shift_s) else shift_s
            sound = _sound(block, 0, len(data))[inside][kept]
        if values is None or covered is None:
            values, covered = np.zeros(steps, data.dtype), np.zeros(steps, np.bool_)
        elif np.result_type(values, data) != values.dtype:
            values = values.astype(np.result_type(values, data))
        free = sound & ~covered[places]
        values[places] = np.where(free, part, values[places])
        covered[places] |= free
    if values is None or covered is None:
        return Placed(values=np.zeros(steps, np.float32), covered=np.zeros(steps, np.bool_))
    return Placed(
        values=values,
        covered=None if covered.all() else covered,
        shift_s=float(shift_s),
        dropped=dropped,
        is_integer=values.dtype.kind == "i",
    )


def is_even(block: Block, rate_hz: float) -> bool:
    """Return whether a block's run stays within half a sample of a grid of this rate over all its length."""
    return block.rate_hz == rate_hz or abs(block.rate_hz / rate_hz - 1) * block.run_count < 0.5


def nearest_place(block: Block, origin_ns: int, rate_hz: float) -> tuple[int, float]:
    """Return the grid place of the first sample of a block's run, and how much later than it the sample is, in s."""
    exact = (block.run_start_ns - origin_ns) * rate_hz / 1e9
    nearest = math.floor(exact + 0.5 + _TIE_NS * 1e-9 * rate_hz)
    return nearest, (exact - nearest) / rate_hz


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
            begin = block.run_start_ns - origin_ns
            start = math.floor((begin + low * 1e9 / block.rate_hz) * rate_hz / 1e9 + 0.5) - first
            stop = math.floor((begin + high * 1e9 / block.rate_hz) * rate_hz / 1e9 + 0.5) - first
            start, stop = max(start, inside.start), min(stop, inside.stop)
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
    sound = np.ones(len(block.values) if block.values is not None else 0, np.bool_)
    for low, high, _ in block.damage:
        sound[low - block.first : high - block.first] = False
    return sound[first:stop]
