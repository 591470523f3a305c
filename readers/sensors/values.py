"""From stored numbers to float32: CF packing undone, missing values found and dealt with.

CF conventions 1.11, sections 2.5.1 and 8.1: value = stored * scale_factor + add_offset; `_FillValue`, `missing_value`,
`valid_range`, `valid_min` and `valid_max` are compared with the stored numbers. `_Unsigned` (NetCDF users guide) says
that integers are meant without sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from s1batch.errors import SourceError
from s1batch.readers.sensors.stores import ArrayInfo

_ROWS = 1 << 16
"""Steps that are unpacked together, through float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How stored numbers become values.

    Attributes:
        view: Type that the stored bytes are meant as.
        scale: Factor.
        offset: What is added.
        missing: Stored numbers that stand for no value.
        low: Smallest valid stored number.
        high: Largest one.
    """

    view: np.dtype[Any]
    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[float | int, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def is_plain(self) -> bool:
        """Whether stored numbers are the values, and only NaN stands for none."""
        return (
            self.scale == 1.0
            and self.offset == 0.0
            and self.low is None
            and self.high is None
            and not any(value == value for value in self.missing)
        )


def packing_of(info: ArrayInfo, further: Sequence[float] = ()) -> Packing:
    """Return the packing that an array's attributes state.

    Args:
        info: The array.
        further: Stored numbers that the job file calls missing.

    Raises:
        SourceError: `unknown_format`: its values are no real numbers.
    """
    dtype = info.dtype
    if dtype.kind not in "iufb":
        kinds = {"c": "complex numbers", "O": "objects", "S": "text", "U": "text", "T": "text", "V": "records"}
        raise SourceError("unknown_format", f"{info.name} holds {kinds.get(dtype.kind, str(dtype))}, no real numbers")
    attrs = info.attrs
    unsigned = str(attrs.get("_Unsigned", "")).lower()
    view = dtype
    if unsigned == "true" and dtype.kind == "i":
        view = np.dtype(dtype.str.replace("i", "u"))
    elif unsigned == "false" and dtype.kind == "u":
        view = np.dtype(dtype.str.replace("u", "i"))
    missing: list[float | int] = []
    for found in (attrs.get("_FillValue"), attrs.get("missing_value"), info.fill, list(further)):
        missing += [number for number in _numbers(found) if number == number]
    missing = [_as_view(number, dtype, view) for number in missing]
    low, high = (_first(attrs.get(name)) for name in ("valid_min", "valid_max"))
    pair = _numbers(attrs.get("valid_range"))
    if len(pair) == 2:
        low, high = pair
    return Packing(
        view=view,
        scale=_factor(attrs, "scale_factor", 1.0, info.name),
        offset=_factor(attrs, "add_offset", 0.0, info.name),
        missing=tuple(dict.fromkeys(missing)),
        low=None if low is None else _as_view(low, dtype, view),
        high=None if high is None else _as_view(high, dtype, view),
    )


def unpack(stored_TC: NDArray[Any], packing: Packing, *, owned: bool) -> tuple[NDArray[np.float32], bool]:
    """Return values as float32, NaN where there is none, and whether there may be any NaN or infinity.

    Args:
        stored_TC: As stored, (T, C).
        packing: How they are packed.
        owned: Whether nobody else looks at that memory, so that it may be returned as it is.
    """
    if stored_TC.dtype != packing.view:
        stored_TC = stored_TC.view(packing.view)
    if packing.is_plain:
        # Copies only what is not a row-major float32 array of this machine's byte order already.
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(stored_TC, np.float32)
            if values is stored_TC or np.may_share_memory(values, stored_TC):
                values = values if owned and values.flags.writeable else values.copy()
            doubtful = packing.view.kind == "f" and not np.isfinite(np.add.reduce(values, axis=None))
        return values, doubtful
    values = np.empty(stored_TC.shape, np.float32)
    for begin in range(0, len(stored_TC), _ROWS):
        part = stored_TC[begin : begin + _ROWS]
        absent = _absent(part, packing)
        wide = part.astype(np.float64)
        if packing.scale != 1.0:
            wide *= packing.scale
        if packing.offset != 0.0:
            wide += packing.offset
        if absent is not None:
            wide[absent] = np.nan
        with np.errstate(over="ignore"):
            values[begin : begin + _ROWS] = wide
    return values, True


def _absent(stored: NDArray[Any], packing: Packing) -> NDArray[np.bool_] | None:
    absent: NDArray[np.bool_] | None = None

    def add(found: NDArray[np.bool_]) -> None:
        nonlocal absent
        absent = found if absent is None else absent | found

    for number in packing.missing:
        add(np.asarray(stored == _exact(number, stored.dtype)))
    if packing.low is not None:
        add(np.asarray(stored < _exact(packing.low, stored.dtype)))
    if packing.high is not None:
        add(np.asarray(stored > _exact(packing.high, stored.dtype)))
    return absent


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What was done about missing values.

    Attributes:
        nan_frac: Share of the values that were missing.
        empty: Channels (numbers) without a single value; they are all zero.
    """

    nan_frac: float = 0.0
    empty: tuple[int, ...] = ()


def mend(
    values_TC: NDArray[np.float32], policy: Literal["refuse", "interpolate", "mask"], longest: int, names: Sequence[str]
) -> Mended:
    """Replace missing values in place.

    Args:
        values_TC: The window; infinite where a value is beyond float32.
        policy: `refuse`; `interpolate`: a line between the neighbours, constant at the ends; `mask`: the mean of the
            channel's values in the window, zero where it has none.
        longest: Longest stretch that `interpolate` bridges.
        names: Channels, for messages.

    Raises:
        SourceError: `not_finite`: the policy refuses, a stretch is too long, nothing is left, or values are infinite.
    """
    absent = np.isnan(values_TC)
    count = int(np.count_nonzero(absent))
    infinite = np.isinf(values_TC)
    if infinite.any():
        channel = names[int(np.argmax(infinite.any(axis=0)))]
        raise SourceError("not_finite", f"{channel}: infinity, or a value beyond float32, in the window")
    if not count:
        return Mended()
    share = count / values_TC.size
    columns: list[int] = np.flatnonzero(absent.any(axis=0)).tolist()
    if policy == "refuse":
        raise SourceError(
            "not_finite", f"{names[columns[0]]}: {share:.2%} of the window's values are missing (source.nan: refuse)"
        )
    if count == values_TC.size:
        raise SourceError("not_finite", "no value in the window")
    empty: list[int] = []
    for column in columns:
        gone = absent[:, column]
        values = values_TC[:, column]
        if gone.all():
            if policy == "interpolate":
                raise SourceError("not_finite", f"{names[column]}: no value in the window (source.nan: interpolate)")
            values[:] = 0
            empty.append(column)
            continue
        if policy == "mask":
            values[gone] = values[~gone].mean(dtype=np.float64)
            continue
        stretch = _longest_stretch(gone)
        if stretch > longest:
            raise SourceError(
                "not_finite", f"{names[column]}: {stretch} missing values in a row (source.nan_longest: {longest})"
            )
        places = np.flatnonzero(~gone)
        values[gone] = np.interp(np.flatnonzero(gone), places, values[places])
    return Mended(nan_frac=share, empty=tuple(empty))


def _longest_stretch(gone: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], gone.view(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max())


def _numbers(found: Any) -> list[float | int]:
    """Return the numbers of an attribute, which may be one, several, or nothing that is a number."""
    if found is None or isinstance(found, (str, bytes)):
        return []
    array = np.atleast_1d(np.asarray(found)).ravel()
    return [each.item() for each in array] if array.dtype.kind in "iuf" else []


def _first(found: Any) -> float | int | None:
    numbers = _numbers(found)
    return numbers[0] if numbers else None


def _factor(attrs: Mapping[str, Any], name: str, default: float, array: str) -> float:
    if name not in attrs:
        return default
    number = _first(attrs[name])
    if number is None or not np.isfinite(number):
        raise SourceError("unknown_format", f"{array}: its {name} is {attrs[name]!r}, no number")
    return float(number)


def _as_view(number: float | int, dtype: np.dtype[Any], view: np.dtype[Any]) -> float | int:
    """Return a number of the stored type as `_Unsigned` means it."""
    if dtype == view or not float(number).is_integer():
        return number
    whole = int(number)
    bits = 8 * dtype.itemsize
    if view.kind == "u" and whole < 0:
        return whole + (1 << bits)
    if view.kind == "i" and whole >= 1 << (bits - 1):
        return whole - (1 << bits)
    return whole


def _exact(number: float | int, dtype: np.dtype[Any]) -> Any:
    """Return a number to compare with: rounded to the stored floats, which is what a file of that type holds."""
    return dtype.type(number) if dtype.kind == "f" and np.isfinite(number) else number
