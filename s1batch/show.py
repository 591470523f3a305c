"""Rows on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from s1batch.api import Results
from s1batch.errors import UsageError
from s1batch.wording import printable

if TYPE_CHECKING:
    import polars as pl

LINE_WIDTH = 160
CELL_WIDTH = 40
PLACES = ("start", "start_time", "end_time", "start_sample", "end_sample")
LEAST_WIDTH = 6
"""Of a column, when there are more than fit the line."""


def show_lines(
    results: Results,
    *,
    count: int = 20,
    outcomes: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    merged: bool = False,
    wide: bool = False,
) -> Iterator[str]:
    """Yield a table.

    Args:
        results: What to show.
        count: At most so many rows.
        outcomes: Only rows with these; empty means all.
        columns: Which columns; None picks those that tell most: source, time, outcome, reason and the answer.
        merged: Merged answers instead of rows.
        wide: Show values whole.

    Raises:
        UsageError: A column does not exist.
    """
    import polars as pl

    from s1batch.results.rows_file import naming_damage

    frame = results.merged() if merged else results.scan(unfinished=True)
    with naming_damage(results.path):
        known = frame.collect_schema().names()
    chosen = list(columns) if columns is not None else _telling(results, known, merged=merged)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise UsageError(f"--columns: no column {', '.join(unknown)} (valid: {', '.join(known)})")
    if outcomes and not merged:
        frame = frame.filter(pl.col("outcome").is_in(list(outcomes)))
    with naming_damage(results.path):
        total = frame.select(pl.len()).collect().item()
        shown = frame.select(chosen).head(count).collect()
    if columns is None:
        # Images and passages have no time, arrays no date or no sample: columns of dashes tell nothing.
        shown = shown.drop([name for name in PLACES if name in shown.columns and shown[name].is_null().all()])
    yield from _table(shown, wide=wide)
    yield f"{min(count, total):,} of {total:,} rows"


def _telling(results: Results, known: Sequence[str], *, merged: bool) -> list[str]:
    if merged:
        return [name for name in known if name != "group_id" and not name.endswith("chunk_keys")]
    answer = [column.name for column in results.schema.answer] or ["text"]
    return ["source", "start", "outcome", "reason", *answer]


def _table(frame: pl.DataFrame, *, wide: bool) -> Iterator[str]:
    import polars as pl
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_edge=False, pad_edge=False)
    cells = [[_cell(value, wide=wide) for value in row] for row in frame.iter_rows()]
    columns = [list(column) for column in zip(frame.columns, *cells, strict=True)]
    natural = [max(map(cell_len, column)) for column in columns]
    cut = [kind.is_nested() or kind == pl.String for kind in frame.dtypes]
    widths = [None] * len(natural) if wide else _fitting(natural, cut, LINE_WIDTH - 3 * len(natural))
    for (name, kind), width in zip(frame.schema.items(), widths, strict=True):
        justify: Literal["right", "left"] = "right" if kind.is_numeric() else "left"
        table.add_column(Text(name), justify=justify, no_wrap=not wide, width=width)
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console(width=None if wide else LINE_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    yield from captured.get().splitlines()


def _fitting(widths: Sequence[int], cut: Sequence[bool], total: int) -> list[int | None]:
    """Return widths that make at most the total: the widest columns of texts give way, numbers and times stay whole."""
    fitting = list(widths)
    texts = [number for number, may_be_cut in enumerate(cut) if may_be_cut]
    while sum(fitting) > total and texts:
        widest = max(texts, key=lambda number: fitting[number])
        if fitting[widest] <= LEAST_WIDTH:
            break
        fitting[widest] -= 1
    return [*fitting]


def _cell(value: object, *, wide: bool) -> str:
    """Return a value as printable text: control characters from a model or a file must not reach the terminal."""
    from datetime import datetime

    if value is None:
        return "-"
    if isinstance(value, datetime):
        text = value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    elif isinstance(value, float):
        text = f"{value:g}"
    elif isinstance(value, (list, dict)):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    if not wide:
        text = text[: 16 * CELL_WIDTH]  # an answer may be megabytes long
    text = printable(text)
    return text if wide or len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 1] + "…"
