"""The rows of one merged part: of several for one chunk the best counts, and the others are kept aside.

Best is what says most: ok before unparsed, length, skipped, failed, refused and unreadable; of equals that of the
folder named first. Rows that answer different requests under one key are of different data, and are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from s1batch.errors import ConflictError
from s1batch.merging.parents import Parent
from s1batch.outcome_ranks import BEST_FIRST
from s1batch.records import Turn, turns_from_text
from s1batch.results.content_digest import content_digest
from s1batch.results.part_writer import journal_content, part_journals
from s1batch.results.schema import RowSchema


@dataclass(frozen=True, slots=True)
class PartRows:
    """What is there for one merged part.

    Attributes:
        rows: One row for each chunk that has any, in the order of the plan.
        others: Rows of those chunks that do not count, different ones only.
        turns: Turns of chunks that have no row.
        written_ns: When the last of the rows was written; 0 for those of journals alone.
    """

    rows: pa.Table
    others: pa.Table
    turns: dict[str, tuple[Turn, ...]] = field(default_factory=dict)
    written_ns: int = 0


def gather(schema: RowSchema, keys: Sequence[str], part: int, found: Sequence[tuple[Parent, int]]) -> PartRows:
    """Return the rows of a merged part.

    Args:
        schema: Columns of the rows.
        keys: The part's chunks, in the order of the plan.
        part: Its number.
        found: Folders that may have rows of these chunks, with the numbers of their own parts, in their order.

    Raises:
        ConflictError: Two folders asked different things about one chunk.
        ResultsError: Rows cannot be read.
    """
    tables: list[pa.Table] = []
    paths: list[Path] = []
    turns: dict[str, tuple[Turn, ...]] = {}
    written = 0
    for parent, number in found:
        if number in parent.files.finished:
            table = parent.files.read(number)
            written = max(written, parent.written_ns.get(number, 0))
        else:
            content, open_turns = journal_content(part_journals(parent.store.layout, number), schema)
            table = schema.to_table(list(content.values()))
            for key, received in open_turns:
                turns.setdefault(key, received)
        if table.num_rows:
            tables.append(renumbered(schema, table, part))
            paths.append(parent.path)
    if len(tables) == 1 and tables[0].column("chunk_key").to_pylist() == list(keys):
        return PartRows(tables[0], tables[0].slice(0, 0), {}, written)
    empty = schema.arrow.empty_table()
    whole = pa.concat_tables([empty, *tables])
    names = pl.DataFrame(whole.select(["chunk_key", "outcome", "fingerprint", "turns"])).with_columns(
        pl.Series("_from", np.repeat(np.arange(len(tables)), [table.num_rows for table in tables]), pl.Int64),
        pl.col("outcome").replace_strict(list(BEST_FIRST), list(range(len(BEST_FIRST)))).alias("_rank"),
    )
    order = pl.DataFrame({"chunk_key": list(keys)}, schema={"chunk_key": pl.String}).with_row_index("_place")
    names = names.with_row_index("_line").join(order, on="chunk_key").sort("_place", "_rank", "_from", "_line")
    _check_questions(names, paths)
    best = names.unique("chunk_key", keep="first", maintain_order=True)
    rows = whole.take(best["_line"].to_arrow())
    others = names.join(best.select("_line"), on="_line", how="anti")
    if len(others):
        chosen = dict(zip(best["chunk_key"], range(len(best)), strict=True))
        differing = [
            line
            for line, key in others.select("_line", "chunk_key").iter_rows()
            if content_digest(whole.slice(line, 1)) != content_digest(rows.slice(chosen[key], 1))
        ]
        kept = whole.take(pa.array(differing, pa.int64()))
    else:
        kept = empty
    answered = set(best["chunk_key"])
    wanted = set(keys) - answered
    return PartRows(rows, kept, {key: turns[key] for key in turns if key in wanted}, written)


def renumbered(schema: RowSchema, table: pa.Table, part: int) -> pa.Table:
    """Return rows with another number of their part."""
    table = table.cast(schema.arrow)
    numbers = pa.array(np.full(table.num_rows, part, np.int32))
    return table.set_column(table.schema.get_field_index("part"), schema.arrow.field("part"), numbers)


def _check_questions(names: pl.DataFrame, paths: Sequence[Path]) -> None:
    twice = names.filter(pl.col("chunk_key").is_duplicated() & (pl.col("fingerprint") != ""))
    asked: dict[str, tuple[str, int]] = {}
    for key, fingerprint, text, source in twice.select("chunk_key", "fingerprint", "turns", "_from").iter_rows():
        earlier = turns_from_text(text)
        question = earlier[0].response.fingerprint if earlier else fingerprint
        first, folder = asked.setdefault(key, (question, source))
        if first != question:
            raise ConflictError(
                f"chunk {key} was asked differently in {paths[folder]} (request {first}) and {paths[source]} (request "
                f"{question}): its data differ; give archives different names below one source.root, and run again"
            )


def is_complete(found: PartRows, keys: Sequence[str]) -> bool:
    """Whether every chunk has its row."""
    return bool(
        found.rows.num_rows == len(keys) and pc.count_distinct(found.rows.column("chunk_key")).as_py() == len(keys)
    )
