"""Times with nanoseconds as Python values, without pandas: Python's own times end at microseconds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Self

_EPOCH = dt.datetime(1970, 1, 1)


class NanosecondTime(dt.datetime):
    """A time with nanoseconds behind its microseconds.

    Attributes:
        nanosecond: 0 to 999.
    """

    nanosecond: int

    @classmethod
    def of(cls, time: dt.datetime, nanosecond: int) -> Self:
        """Return a time with so many nanoseconds more."""
        found = cls(
            time.year, time.month, time.day, time.hour, time.minute, time.second, time.microsecond, time.tzinfo,
            fold=time.fold,
        )  # fmt: skip
        found.nanosecond = nanosecond
        return found

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        """Return ISO 8601 with nine digits behind the second."""
        if timespec != "auto":
            return super().isoformat(sep, timespec)
        text = super().isoformat(sep, "microseconds")
        return f"{text[:26]}{getattr(self, 'nanosecond', 0):03d}{text[26:]}"

    def __str__(self) -> str:
        return self.isoformat(" ")

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        whole = dt.datetime.combine(self.date(), self.time(), self.tzinfo)
        return NanosecondTime.of, (whole, getattr(self, "nanosecond", 0))


def as_microseconds(batch: Any) -> tuple[Any, dict[str, list[Any]]]:
    """Return a batch that Python's own types hold, and its columns of times in nanoseconds as Python values.

    Times inside of lists and structs, times of day and durations lose what lies behind the microsecond.
    """
    import pyarrow as pa

    if not any(_has_ns(field.type) for field in batch.schema):
        return batch, {}
    times: dict[str, list[Any]] = {}
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            times[field.name] = _times(column)
            column = pa.nulls(len(column))
        elif _has_ns(field.type):
            column = column.cast(_in_us(field.type), safe=False)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names), times


def with_times(rows: list[dict[str, Any]], times: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Put columns of times back into the rows."""
    for name, values in times.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def _times(column: Any) -> list[dt.datetime | None]:
    import pyarrow as pa

    zone = None if column.type.tz is None else pa.lib.string_to_tzinfo(column.type.tz)
    found: list[dt.datetime | None] = []
    for ns in column.view(pa.int64()).to_pylist():
        if ns is None:
            found.append(None)
            continue
        microseconds, rest = divmod(ns, 1000)
        time = _EPOCH + dt.timedelta(microseconds=microseconds)
        if zone is not None:
            time = time.replace(tzinfo=dt.UTC).astimezone(zone)
        found.append(NanosecondTime.of(time, rest) if rest else time)
    return found


def _has_ns(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_nested(kind):
        return any(_has_ns(kind.field(number).type) for number in range(kind.num_fields))
    return pa.types.is_temporal(kind) and getattr(kind, "unit", None) == "ns"


def _in_us(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_in_us(field.type)) for field in kind])
    if pa.types.is_large_list(kind):
        return pa.large_list(_in_us(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_in_us(kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_in_us(kind.value_type))
    if not _has_ns(kind) or pa.types.is_nested(kind):
        return kind
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.time64("us") if pa.types.is_time(kind) else pa.duration("us")
