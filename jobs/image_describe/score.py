"""How good captions and boxes are.

    boxes     said and true boxes of one label of an image are a pair when their intersection over union is at least
              0.5 (as in PASCAL VOC, Everingham et al. 2010, IJCV), each in one pair at most, the largest IoU first
    caption   the mean of token F1 and of ROUGE-L of the captions of whole images (one that was not tiled, or its
              overview pass), the best of several references counting

    precision = pairs / boxes said    recall = pairs / true boxes    F1 = 2 pairs / (said + true)

Boxes are in pixels of the original image, merged over overlapping tiles. Only images that the truth has are scored.
Lines of truth with `label, x_min, y_min, x_max, y_max` are boxes, those with `caption` captions; an image without
objects is a line with neither.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath

import polars as pl

from s1batch.errors import UsageError
from s1batch.geometry import Box
from s1batch.jobs.image_describe.merge import MERGE_COLUMNS, iou
from s1batch.jobs.scoring.answer_scores import Answers, Measured, ScoreLine, ScoreTable, image_labels
from s1batch.jobs.scoring.shares import by_unit, mean_of, precision_recall
from s1batch.jobs.scoring.text_metrics import best, rouge_l, token_f1
from s1batch.jobs.scoring.truth_lines import KEYS, TruthLines

LEAST_IOU = 0.5
EDGES = ("x_min", "y_min", "x_max", "y_max")

Image = tuple[str, int]
"""A file and its page."""

Labelled = tuple[str, Box]


@dataclass(frozen=True, slots=True)
class ImageMetrics:
    """The metrics of `image-describe`."""

    needs_truth: bool = True
    unit: str = "images"
    valid_baselines: tuple[str, ...] = ()

    @property
    def columns(self) -> frozenset[str]:
        """What merging looks at, the caption, and which part of an image a row is."""
        return MERGE_COLUMNS | {"caption", "overview", "source_file", "row_index"}

    def labels(self, rows: pl.DataFrame) -> list[str]:
        """Return the image of each row."""
        return image_labels(rows)

    def measure(self, answers: Answers) -> Measured:
        """Return the scores of boxes, and of captions, as far as the truth has them."""
        truth = answers.truth
        if truth is None:
            raise UsageError("descriptions of images are scored against truth")
        image = truth.need("which image a line is about", *KEYS["image"])
        caption, label = truth.find("caption", "description", "reference"), truth.find("label", "class", "category")
        if caption is None and (label is None or any(truth.find(edge) is None for edge in EDGES)):
            raise UsageError(
                f"{truth.name}: give captions (caption) or boxes (label, {', '.join(EDGES)}). "
                f"Columns found: {', '.join(truth.columns)}"
            )
        names = _Images.of(answers, truth, image)
        tables = []
        if label is not None:
            tables.append(_boxes(answers, truth, names, label))
        if caption is not None:
            tables.append(_captions(answers, truth, names, caption))
        notes = (
            [f"truth: {names.missed:,} lines are about images without an answer; not scored"] if names.missed else []
        )
        return Measured(tables=tuple(tables), notes=tuple(notes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Images:
    """The answered images, and which of them each line of truth is about.

    Attributes:
        of_line: The image of each line; None where there is none.
        unit: The unit of each image.
        missed: Lines about no answered image.
    """

    of_line: tuple[Image | None, ...]
    unit: dict[Image, int]
    missed: int

    @classmethod
    def of(cls, answers: Answers, truth: TruthLines, column: str) -> _Images:
        by_name = not any("/" in truth.value(number, column) for number in range(len(truth.lines)))
        page = truth.find(*KEYS["page"])
        unit: dict[Image, int] = {}
        places: dict[Image, Image] = {}
        answered = answers.rows.with_columns(pl.Series("_unit", answers.resampling.of_window)).filter(
            pl.col("outcome") == "ok"
        )
        for row in answered.iter_rows(named=True):
            image = (row["image"], row.get("page") or 0)
            unit.setdefault(image, row["_unit"])
            places[(PurePosixPath(image[0]).name if by_name else image[0], image[1])] = image
        of_line = tuple(
            places.get((truth.value(number, column), int(truth.number(number, page) or 0)))
            for number in range(len(truth.lines))
        )
        return cls(of_line=of_line, unit=unit, missed=sum(image is None for image in of_line))


def _boxes(answers: Answers, truth: TruthLines, images: _Images, label: str) -> ScoreTable:
    true: dict[Image, list[Labelled]] = {}
    for number, image in enumerate(images.of_line):
        if image is None:
            continue
        found = true.setdefault(image, [])
        edges = [truth.number(number, edge) for edge in EDGES]
        name = truth.value(number, label)
        if name and all(edge is not None for edge in edges):
            found.append((_folded(name), tuple(edges)))  # type: ignore[arg-type]
    said: dict[Image, list[Labelled]] = defaultdict(list)
    merged = answers.job.merge(answers.rows)
    for one in () if merged is None else merged.iter_rows(named=True):
        box = (one["x_min"], one["y_min"], one["x_max"], one["y_max"])
        said[(one["image"], one["page"])].append((_folded(one["label"]), box))
    rights, saids, trues, units = [], [], [], []
    for image, boxes in true.items():
        rights.append(matched_boxes(said[image], boxes))
        saids.append(len(said[image]))
        trues.append(len(boxes))
        units.append(images.unit[image])
    resampling = answers.resampling
    right, whole, wanted = (by_unit(resampling, units, values) for values in (rights, saids, trues))
    estimates = precision_recall(resampling, (right, whole), (right, wanted))
    counts = {"said": sum(saids), "pairs": sum(rights), "images": len(true)}
    line = ScoreLine(name=answers.name, n=sum(trues), counts=counts, estimates=estimates)
    return ScoreTable(title=f"boxes: IoU >= {LEAST_IOU:g} and the same label", of="true boxes", lines=(line,))


def _captions(answers: Answers, truth: TruthLines, images: _Images, caption: str) -> ScoreTable:
    references: dict[Image, list[str]] = defaultdict(list)
    for number, image in enumerate(images.of_line):
        if image is not None and (reference := truth.value(number, caption)):
            references[image].append(reference)
    answered = answers.rows.filter(pl.col("outcome") == "ok")
    pieces = Counter((row["image"], row.get("page") or 0) for row in answered.iter_rows(named=True))
    said: dict[Image, str] = {}
    for row in answered.iter_rows(named=True):
        image = (row["image"], row.get("page") or 0)
        if row.get("overview") or pieces[image] == 1:
            said[image] = row["caption"]
    scored = [image for image in references if image in said]
    units = [images.unit[image] for image in scored]
    estimates = {
        name: mean_of(answers.resampling, [best(metric, said[image], references[image]) for image in scored], units)
        for name, metric in (("token F1", token_f1), ("ROUGE-L", rouge_l))
    }
    line = ScoreLine(name=answers.name, n=len(scored), counts={"images": len(references)}, estimates=estimates)
    return ScoreTable(title="captions of whole images", of="captions", lines=(line,))


def matched_boxes(said: list[Labelled], true: list[Labelled], least: float = LEAST_IOU) -> int:
    """Return how many pairs of a box said and a true one there are, the largest IoU first."""
    pairs = [
        (iou(mine, theirs), number, place)
        for number, (label, mine) in enumerate(said)
        for place, (other, theirs) in enumerate(true)
        if label == other
    ]
    taken: tuple[set[int], set[int]] = (set(), set())
    for overlap, number, place in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if overlap >= least and number not in taken[0] and place not in taken[1]:
            taken[0].add(number)
            taken[1].add(place)
    return len(taken[0])


def _folded(label: str) -> str:
    return " ".join(label.casefold().split())
