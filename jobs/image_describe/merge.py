"""One line for each object of an image, from tiles that overlap.

Non-maximum suppression without scores: boxes of one label are gone through from the largest to the smallest, and one is
dropped when a box of another tile that stays overlaps it by a stated IoU, or holds nearly all of it (an object that the
edge of a tile cut). Boxes of one tile are never merged: the model saw them as two.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from s1batch.geometry import Box
from s1batch.jobs.group_pieces import Line, whole_groups

if TYPE_CHECKING:
    import polars as pl

MERGE_COLUMNS = frozenset(["chunk_key", "outcome", "image", "page", "objects"])
"""The columns of results that merging looks at."""

CONTAINED = 0.8
"""A box of which so much lies in a larger one of another tile is a part of it."""

_COLUMNS = ("x_min", "y_min", "x_max", "y_max")


def merge_object_pieces(pieces: Iterable[pl.DataFrame], iou_limit: float) -> Iterator[pl.DataFrame]:
    """Merge the objects of rows that come in pieces.

    Args:
        pieces: Rows of an `image-describe` job with `MERGE_COLUMNS`, as far as there are any; gone through twice.
        iou_limit: Boxes of one label in different tiles that overlap so much are one.

    Yields:
        Lines with `group_id`, `image`, `page`, `label`, `x_min`, `y_min`, `x_max`, `y_max` (pixels of the original),
        `geometry`, `count` (boxes that were merged) and `source_chunk_keys`; each once.
    """
    import polars as pl

    schema: dict[str, Any] = {
        "group_id": pl.String,
        "image": pl.String,
        "page": pl.Int64,
        "label": pl.String,
        **dict.fromkeys(_COLUMNS, pl.Float64),
        "geometry": pl.String,
        "count": pl.Int64,
        "source_chunk_keys": pl.List(pl.String),
    }

    def key_of(row: Line) -> tuple[str, int]:
        return (row["image"], row.get("page") or 0)

    for groups in whole_groups(pieces, key_of, ["image", "page"]):
        lines = [line for (image, page), tiles in groups for line in merge_objects(image, page, tiles, iou_limit)]
        yield pl.DataFrame(lines, schema=schema)


def merge_objects(image: str, page: int, tiles: Sequence[Line], iou_limit: float) -> list[dict[str, Any]]:
    """Return the objects of one image.

    Args:
        image: Its file.
        page: Its page or frame.
        tiles: The rows of its tiles, with `chunk_key` and `objects`.
        iou_limit: As in `merge_object_pieces`.
    """
    by_label: dict[str, list[tuple[str, Box, Mapping[str, Any]]]] = defaultdict(list)
    for tile in tiles:
        for found in tile["objects"] or ():
            if found["x_min"] is not None:
                box = tuple(found[name] for name in _COLUMNS)
                by_label[found["label"].strip().casefold()].append((tile["chunk_key"], box, found))
    lines = []
    for label in sorted(by_label):
        for group in suppress(by_label[label], iou_limit):
            _, box, best = group[0]
            keys = list(dict.fromkeys(chunk_key for chunk_key, _, _ in group))
            where = repr((image, page, label, box, keys))
            lines.append(
                {
                    "group_id": hashlib.sha256(where.encode()).hexdigest()[:32],
                    "image": image,
                    "page": page,
                    "label": best["label"].strip(),
                    **dict(zip(_COLUMNS, box, strict=True)),
                    "geometry": best["geometry"],
                    "count": len(group),
                    "source_chunk_keys": keys,
                }
            )
    return lines


def suppress(
    found: Sequence[tuple[str, Box, Mapping[str, Any]]], iou_limit: float
) -> list[list[tuple[str, Box, Mapping[str, Any]]]]:
    """Return the groups of boxes (chunk key, box, object) that are one object each, the largest of a group first."""
    groups: list[list[tuple[str, Box, Mapping[str, Any]]]] = []
    for one in sorted(found, key=lambda one: (-area(one[1]), one[1], one[0])):
        best, best_iou = None, 0.0
        for group in groups:
            if any(member[0] == one[0] for member in group):
                continue
            overlap = iou(one[1], group[0][1])
            if overlap >= max(iou_limit, best_iou) or (best is None and _inside(one[1], group[0][1])):
                best, best_iou = group, overlap
        if best is None:
            groups.append([one])
        else:
            best.append(one)
    return groups


def area(box: Box) -> float:
    """Return the area of a box in square pixels."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def shared_area(one: Box, other: Box) -> float:
    """Return the area that two boxes share."""
    return area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))


def iou(one: Box, other: Box) -> float:
    """Return the intersection of two boxes over their union (Jaccard index); 1 for two that are the same point."""
    shared = shared_area(one, other)
    union = area(one) + area(other) - shared
    return shared / union if union > 0 else float(one == other)


def _inside(box: Box, larger: Box) -> bool:
    own = area(box)
    return own > 0 and shared_area(box, larger) / own >= CONTAINED
