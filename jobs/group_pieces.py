"""Rows that come in pieces, as groups that are whole: all passages of a paper, all tiles of an image.

In the order of the plan the rows of one group follow one another, so few groups are in memory at once; in any order the
result is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import polars as pl

Line = Mapping[str, Any]
Key = TypeVar("Key", bound=Hashable)


def whole_groups(
    pieces: Iterable[pl.DataFrame],
    key_of: Callable[[Line], Key | None],
    key_columns: Iterable[str],
) -> Iterator[list[tuple[Key, list[Line]]]]:
    """Yield, for each piece, the groups that no later piece has rows of, in the order of their first rows.

    Args:
        pieces: Rows with the column `outcome`; gone through twice. Rows that are not `ok` belong to no group.
        key_of: The group of a row; None for a row that has none.
        key_columns: The columns that `key_of` looks at, as far as there are any.
    """
    import polars as pl

    wanted = set(key_columns)
    last: dict[Key, int] = {}
    for number, rows in enumerate(pieces):
        answered = rows.filter(pl.col("outcome") == "ok")
        for row in answered.select(name for name in answered.columns if name in wanted).unique().iter_rows(named=True):
            key = key_of(row)
            if key is not None:
                last[key] = number
    groups: dict[Key, list[Line]] = {}
    for number, rows in enumerate(pieces):
        for row in rows.filter(pl.col("outcome") == "ok").iter_rows(named=True):
            key = key_of(row)
            if key is not None:
                groups.setdefault(key, []).append(row)
        done = [key for key in groups if last[key] <= number]
        yield [(key, groups.pop(key)) for key in done]
