"""How numbers become grey levels: one range of values for each page, kept with the row.

    level = round(255 (value - low) / (high - low)), cut to 0 to 255

`low` and `high` are, by `source.scaling`: the percentiles of the page's values; its least and largest; the window of
the job or of the file; or IRAF's zscale. NaN, infinities and the page's nodata value do not count, and are drawn black.
A page of one single value is drawn in middle grey. Of pages with more than 4 million pixels, or with damage, a regular
sample counts: at most 8 x 8 blocks of at most 256 x 256 pixels, evenly spread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from s1batch.errors import SourceError
from s1batch.readers.extras import need
from s1batch.readers.images.tiles import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from s1batch.readers.images.facts import PageFacts, StoredValues, Values
    from s1batch.readers.images.spec import ImageSource, Scaling

WHOLE_UP_TO = 4_194_304
"""Pixels of a page up to which all its values count."""

SAMPLE_BLOCKS = 8
SAMPLE_SIDE = 256

_MIDDLE_GREY = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRange:
    """Which value becomes black and which white.

    Attributes:
        low: Black.
        high: White.
        rule: The rule that they follow from; empty where 8-bit values are shown as they are.
    """

    low: float
    high: float
    rule: Scaling | str


def page_range(stored: StoredValues, page: int, facts: PageFacts, spec: ImageSource) -> ValueRange:
    """Return the range of a page's values.

    Raises:
        SourceError: `not_finite`: none of its values is a number; or they cannot be decoded.
    """
    whole = [Box(0, 0, facts.width, facts.height)]
    small = facts.width * facts.height <= WHOLE_UP_TO
    # A window needs no values, only their type.
    sample = _decoded(stored, page, whole if small and spec.scaling != "window" else _blocks(facts), facts)
    first = next(sample)
    if first.levels is not None and not (spec.scaling == "window" and (spec.value_window or first.window)):
        return ValueRange(low=0.0, high=float(first.levels), rule="")
    if spec.scaling == "window":
        window = spec.value_window or first.window
        if window is not None:
            return ValueRange(low=window[0], high=window[1], rule="window")
        sample = _decoded(stored, page, whole if small else _blocks(facts), facts)
        first = next(sample)
    found = [_valid(first), *map(_valid, sample)]
    values = np.concatenate(found)
    if not values.size:
        raise SourceError("not_finite", "none of the values is a number that counts")
    rule = "percentile" if spec.scaling == "window" else spec.scaling
    match rule:
        case "minmax":
            low, high = values.min(), values.max()
        case "zscale":
            low, high = _zscale(values)
        case _:
            low, high = np.percentile(values, spec.percentiles)
    return ValueRange(low=float(low), high=float(high), rule=rule)


def _decoded(stored: StoredValues, page: int, boxes: list[Box], facts: PageFacts) -> Iterator[Values]:
    """Yield the values of boxes; those that cannot be decoded are left out, but for all of them.

    Raises:
        SourceError: None of them can.
    """
    failed: SourceError | None = None
    good = 0
    for box in boxes:
        try:
            values = stored.values(page, box)
        except SourceError as error:
            failed = failed or error
            continue
        good += 1
        yield values
    if not good and len(boxes) == 1 and facts.decode_pixels < boxes[0].pixels:
        # A part of the page is damaged; its other tiles may still be shown.
        yield from _decoded(stored, page, _blocks(facts), replace(facts, decode_pixels=boxes[0].pixels))
    elif not good and failed is not None:
        raise failed


def _blocks(facts: PageFacts) -> list[Box]:
    return sample_boxes(facts.width, facts.height)


def sample_boxes(width: int, height: int) -> list[Box]:
    """Return blocks that are evenly spread over a page, the corners among them."""
    side = min(SAMPLE_SIDE, -(-max(width, height) // SAMPLE_BLOCKS))
    # A page that is long and narrow gets blocks of the same area.
    wide = min(width, side * side // min(side, height))
    tall = min(height, side * side // wide)
    return [
        Box(round(x * (width - wide)), round(y * (height - tall)), wide, tall)
        for y in _places(height, tall)
        for x in _places(width, wide)
    ]


def grey_levels(values: Values, found: ValueRange) -> NDArray[np.uint8]:
    """Return values as bytes: (H, W) or (H, W, 3)."""
    given = values.values
    if values.levels is not None and not found.rule:
        shown = given.astype(np.uint8, copy=False)
        if values.levels != 255:
            shown = (shown.astype(np.uint16) * 255 // values.levels).astype(np.uint8)
    elif given.dtype.kind in "iub" and given.dtype.itemsize <= 2:
        shown = _by_table(given, found)
    else:
        shown = _levels(given, found)
    if values.inverted:
        shown = 255 - shown
    if (lost := _lost(values)) is not None:
        shown = np.where(lost, np.uint8(0), shown)
    return np.ascontiguousarray(shown)


def _by_table(given: NDArray[Any], found: ValueRange) -> NDArray[np.uint8]:
    """Look each of the at most 65,536 values up."""
    given = given.view(np.uint8) if given.dtype == bool else given
    native = given.astype(given.dtype.newbyteorder("="), copy=False)
    limits = np.iinfo(native.dtype)
    table = _levels(np.arange(limits.min, limits.max + 1, dtype=np.int64), found)
    unsigned = native.view(np.dtype(f"u{native.dtype.itemsize}"))
    # Negative values stand behind the others, as two's complement has them.
    shown: NDArray[np.uint8] = (np.roll(table, limits.min) if limits.min < 0 else table)[unsigned]
    return shown


def _levels(given: NDArray[Any], found: ValueRange) -> NDArray[np.uint8]:
    if found.high <= found.low:
        return np.full(given.shape, _MIDDLE_GREY, np.uint8)
    # float32 tells 16 million steps apart, and there are 256; but the range may be narrow against its place.
    fine = np.float64 if given.dtype.itemsize > 4 or given.dtype.kind in "iu" else np.float32
    if abs(found.low) + abs(found.high) > 4096 * (found.high - found.low):
        fine = np.float64
    with np.errstate(all="ignore"):
        shown: NDArray[Any] = given.astype(fine)
        shown -= found.low
        shown *= 255.0 / (found.high - found.low)
        # fmin and fmax take the number where the other is none.
        return np.asarray(np.rint(np.fmax(np.fmin(shown, 255.0), 0.0))).astype(np.uint8)


def _lost(values: Values) -> NDArray[np.bool_] | None:
    """Return which values do not count; None when all do."""
    given = values.values
    lost: NDArray[np.bool_] | None = None
    if given.dtype.kind == "f":
        lost = ~np.isfinite(given)
    if values.nodata is not None and not np.isnan(values.nodata):
        # A number that the type cannot hold is in no pixel.
        stands = _as_stored(values.nodata, given.dtype)
        if stands is not None:
            same = given == stands
            lost = same if lost is None else lost | same
    if lost is None or not lost.any():
        return None
    return lost


def _as_stored(nodata: float, dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if nodata != int(nodata) or not limits.min <= nodata <= limits.max:
            return None
    with np.errstate(over="ignore"):
        return dtype.type(nodata)


def _valid(values: Values) -> NDArray[Any]:
    lost = _lost(values)
    return values.values.ravel() if lost is None else values.values[~lost]


def _places(length: int, block: int) -> NDArray[np.float64]:
    """Return where blocks begin along a side, as shares of the room that they have."""
    count = min(SAMPLE_BLOCKS, -(-length // block))
    return np.linspace(0.0, 1.0, count) if count > 1 else np.zeros(1)


def _zscale(values: NDArray[Any]) -> tuple[float, float]:
    visualization = need("astropy.visualization", "images", "limits of `scaling: zscale`")
    low, high = visualization.ZScaleInterval().get_limits(values.astype(np.float64))
    return float(low), float(high)
