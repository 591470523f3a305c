"""One plan out of several: each chunk once, in the order of the folders, and the archive's inventory once.

Plans that are the same stay as they are. The chunks of any other one follow with new numbers of parts; those that an
earlier plan has are left out, and their rows go to the earlier plan's part. What is known of each chunk takes twelve
bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from s1batch.errors import ConflictError
from s1batch.merging.parents import Parent
from s1batch.plan_columns import INVENTORY, PLAN
from s1batch.results.atomic import atomic_path
from s1batch.results.layout import Layout

_LINES = 8192
_STATUSES = ("selected", "unreadable", "duplicate", "not_selected")
"""Of two inventories that say different things of one stretch, the one that does more with it counts."""

_STRETCH = ["root", "path", "source", "unit", "start", "stop", "count", "rate_hz"]
_STREAM = ["root", "path", "source", "unit"]

Numbers = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True, slots=True)
class MergedPlan:
    """How the parts of the merged plan come from those of the others.

    Attributes:
        origins: For each merged part, the number of its plan and its part there.
        targets: For each plan, the merged part of each of its parts; -1 where earlier plans have all of its chunks.
        shared: For each merged part, further (plan, part) that have some of its chunks.
        chunks: How many chunks there are.
    """

    origins: list[tuple[int, int]]
    targets: list[Numbers]
    shared: dict[int, set[tuple[int, int]]]
    chunks: int


def write_merged_plan(layout: Layout, parents: Sequence[Parent]) -> MergedPlan:
    """Write plan.parquet and inventory.parquet of the merged results.

    Raises:
        ConflictError: The folders say different things of one file, or a scan was planned in one of them and the
            windows that depend on it in another.
        ResultsError: They cannot be read or written.
    """
    first = {parent.plan_number: parent for parent in reversed(parents)}
    different = [first[number] for number in sorted(first)]
    _write_inventory(layout, different)
    origins: list[tuple[int, int]] = []
    targets: list[Numbers] = []
    shared: dict[int, set[tuple[int, int]]] = {}
    hashes, places = np.zeros(0, np.uint64), np.zeros(0, np.int32)
    chunks = 0
    with atomic_path(layout.plan()) as temporary:
        writer = pq.ParquetWriter(temporary, PLAN, compression="zstd", write_page_checksum=True)
        try:
            for number, parent in enumerate(different):
                target = np.full(parent.plan.parts(), -1, np.int32)
                new_hashes, new_places = [hashes], [places]
                for table in parent.plan.tables(PLAN.names, _LINES):
                    own = pl.DataFrame(table.select(["chunk_key"]))["chunk_key"].hash().to_numpy()
                    parts = table.column("part").to_numpy()
                    at = np.minimum(np.searchsorted(hashes, own), max(len(hashes) - 1, 0))
                    known = hashes[at] == own if len(hashes) else np.zeros(len(own), bool)
                    for place, part in set(zip(places[at[known]].tolist(), parts[known].tolist(), strict=True)):
                        shared.setdefault(place, set()).add((number, part))
                    _check_scans(table, known, hashes, parent)
                    kept = table.filter(pa.array(~known))
                    for part in np.unique(parts[~known]):
                        if target[part] < 0:
                            target[part] = len(origins)
                            origins.append((number, int(part)))
                    moved = target[parts[~known]]
                    kept = kept.set_column(kept.schema.get_field_index("part"), PLAN.field("part"), pa.array(moved))
                    if kept.num_rows:
                        writer.write_table(kept.cast(PLAN))
                    chunks += kept.num_rows
                    new_hashes.append(own[~known])
                    new_places.append(moved)
                targets.append(target)
                if number + 1 < len(different):
                    hashes, places = np.concatenate(new_hashes), np.concatenate(new_places)
                    order = np.argsort(hashes, kind="stable")
                    hashes, places = hashes[order], places[order]
            sizes = {"n_chunks": chunks, "n_parts": len(origins), "first_part": 0}
            writer.add_key_value_metadata({name: str(value) for name, value in sizes.items()})
        finally:
            writer.close()
    return MergedPlan(origins, targets, shared, chunks)


def _check_scans(table: pa.Table, known: np.ndarray[Any, Any], hashes: np.ndarray[Any, Any], parent: Parent) -> None:
    """Refuse windows whose scan is planned in another folder: what it decided cannot be proved any more."""
    if not len(hashes):
        return
    new = pl.DataFrame(table.select(["chunk_key", "condition"])).filter(~known).drop_nulls("condition")
    if not len(new):
        return
    scans = new["condition"].hash().to_numpy()
    elsewhere = hashes[np.minimum(np.searchsorted(hashes, scans), len(hashes) - 1)] == scans
    if elsewhere.any():
        raise ConflictError(
            f"{parent.path}: window {new['chunk_key'][int(elsewhere.argmax())]} depends on a scan that an earlier "
            "folder has planned, without this window; run one job over all of the data instead"
        )


def _write_inventory(layout: Layout, different: Sequence[Parent]) -> None:
    if len(different) == 1:
        whole = different[0].plan.inventory().collect()
    else:
        frames = [
            parent.plan.inventory().with_columns(pl.lit(number).alias("_from")).collect()
            for number, parent in enumerate(different)
        ]
        everything = pl.concat(frames)
        _check_files(everything, different)
        rank = pl.col("status").replace_strict(list(_STATUSES), list(range(len(_STATUSES))), return_dtype=pl.Int8)
        whole = (
            everything.with_row_index("_line")
            .sort(rank, "_from", "_line", maintain_order=True)
            .unique(_STRETCH, keep="first", maintain_order=True)
            .sort("_from", "_line")
        )
        _check_stretches(everything, whole, different)
        whole = whole.drop("_from", "_line")
    table = whole.select(INVENTORY.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(INVENTORY)
    with atomic_path(layout.inventory()) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def _check_files(everything: pl.DataFrame, different: Sequence[Parent]) -> None:
    """Refuse two archives that have different files of one name."""
    sizes = everything.group_by("root", "path").agg(
        pl.col("size").n_unique().alias("sizes"),
        pl.col("sha256").filter(pl.col("sha256") != "").n_unique().alias("contents"),
    )
    other = sizes.filter((pl.col("sizes") > 1) | (pl.col("contents") > 1)).sort("path")
    if len(other):
        raise ConflictError(
            f"{other['path'][0]} (and {len(other) - 1} more) is another file in each of "
            f"{', '.join(str(parent.path) for parent in different)}: set source.root to a folder above all archives "
            "before they are run, so that their files have different names"
        )


def _check_stretches(everything: pl.DataFrame, whole: pl.DataFrame, different: Sequence[Parent]) -> None:
    """Refuse inventories that cut one file into different stretches, whose samples would be counted twice."""
    each = everything.group_by(*_STREAM, "_from").agg(pl.col("count").sum())
    most = each.group_by(_STREAM).agg(pl.col("count").max().alias("most"))
    joined = whole.group_by(_STREAM).agg(pl.col("count").sum()).join(most, on=_STREAM)
    wrong = joined.filter(pl.col("count") != pl.col("most")).sort("path")
    if len(wrong):
        raise ConflictError(
            f"{wrong['path'][0]}, {wrong['source'][0]}: {', '.join(str(parent.path) for parent in different)} take up "
            "different pieces of it, which do not add up; run one job over all of the data, or cut at the same times"
        )
