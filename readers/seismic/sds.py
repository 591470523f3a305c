"""The files of a SeisComP Data Structure: YEAR/NET/STA/CHAN.D/NET.STA.LOC.CHAN.D.YEAR.DAY.

Folders and files whose names say that nothing in them is asked for are not opened. Names are trusted to a day, because
a day file may hold the last seconds of the day before or the first of the next. A file with any other name in a
matching folder is taken: its headers decide.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

from s1batch.readers.files import is_folder, list_folder
from s1batch.readers.seismic.selection import matches
from s1batch.readers.seismic.spec import SeismicSource

_YEAR = re.compile(r"[0-9]{4}")
_DAY_FILE = re.compile(
    r"(?P<net>[^.]*)\.(?P<sta>[^.]*)\.(?P<loc>[^.]*)\.(?P<cha>[^.]*)\.D\.(?P<year>[0-9]{4})\.(?P<day>[0-9]{3})(\..*)?"
)
_ONE_DAY = timedelta(days=1)


def sds_files(root: str, spec: SeismicSource) -> Iterator[str]:
    """Yield the files that can hold what is asked for, and folders that cannot be listed.

    Args:
        root: The archive, absolute.
        spec: The patterns and the range of time.
    """
    first, last = _days(spec)

    def is_year(name: str) -> bool:
        return _YEAR.fullmatch(name) is not None and first.year <= int(name) <= last.year

    def is_channel(name: str) -> bool:
        code, dot, kind = name.rpartition(".")
        return bool(dot) and kind == "D" and matches(code, spec.channel)

    levels: tuple[Callable[[str], bool], ...] = (
        is_year,
        lambda name: matches(name, spec.network),
        lambda name: matches(name, spec.station),
        is_channel,
    )
    yield from _descend(root, levels, spec, first, last)


def _descend(
    folder: str, levels: tuple[Callable[[str], bool], ...], spec: SeismicSource, first: date, last: date
) -> Iterator[str]:
    entries = list_folder(folder)
    if entries is None:
        yield folder
        return
    for entry in entries:
        if levels:
            if is_folder(entry) and levels[0](entry.name):
                yield from _descend(entry.path, levels[1:], spec, first, last)
            continue
        is_file = os.path.isfile(entry.path) or not os.path.exists(entry.path)
        if is_file and _may_hold(entry.name, spec, first, last):
            yield entry.path


def _may_hold(name: str, spec: SeismicSource, first: date, last: date) -> bool:
    found = _DAY_FILE.fullmatch(name)
    if found is None:
        return not name.startswith(".")
    patterns = (("net", spec.network), ("sta", spec.station), ("loc", spec.location), ("cha", spec.channel))
    if not all(matches(found[part], wanted) for part, wanted in patterns):
        return False
    try:
        day = date(int(found["year"]), 1, 1) + (int(found["day"]) - 1) * _ONE_DAY
    except (ValueError, OverflowError):
        return True
    return first <= day <= last


def _days(spec: SeismicSource) -> tuple[date, date]:
    """First and last day of which a file may hold something, one day of tolerance included."""
    first = date.min if spec.starttime is None else _utc_day(spec.starttime, -_ONE_DAY, date.min)
    last = date.max if spec.endtime is None else _utc_day(spec.endtime, _ONE_DAY, date.max)
    return first, last


def _utc_day(time: datetime, tolerance: timedelta, limit: date) -> date:
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    try:
        return (aware.astimezone(UTC) + tolerance).date()
    except OverflowError:
        return limit
