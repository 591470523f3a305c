"""Asks for a caption of an image and for the objects in it, and places them in the original and on the ground.

The answer is `{"caption", "objects": [{label, box or point}]}`; places are counted in pixels of the image as it was
sent, or in thousandths of its width and height.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from s1batch.canonical import digest
from s1batch.columns import Column
from s1batch.errors import SourceError
from s1batch.geometry import Point
from s1batch.jobs.answers import interpret_json
from s1batch.jobs.image_describe.merge import MERGE_COLUMNS, merge_object_pieces
from s1batch.jobs.image_place import ImagePlace, image_name, the_image
from s1batch.jobs.question import Question
from s1batch.jobs.question_job import QuestionJob
from s1batch.jobs.question_spec import closed_object
from s1batch.records import Answer, PlanEntry, Record, Request, Response

if TYPE_CHECKING:
    import polars as pl

    from s1batch.jobs.base import Settings

Locate = Literal["box", "point", "none"]

TAKEN = ("label", "box", "point", "x_min", "y_min", "x_max", "y_max", "geometry")
"""The fields of an object."""

_MILLE = (1000.0, 1000.0)


@dataclass(frozen=True, kw_only=True)
class Objects:
    """How objects are asked for.

    Attributes:
        locate: How they are placed.
        labels: Labels to choose from; None for any.
        max_objects: Most objects of one answer.
        fields: Further fields of an object, with their JSON Schemas.
    """

    locate: Locate
    labels: tuple[str, ...] | None
    max_objects: int
    fields: Mapping[str, Any] = field(default_factory=dict)

    def schema(self, scale: Point | None) -> dict[str, Any]:
        """Return the schema of the answer; with the width and height of the image, one whose places lie in it."""
        label: dict[str, Any] = {"type": "string", "maxLength": 100}
        if self.labels is not None:
            label = {"type": "string", "enum": list(self.labels)}
        item: dict[str, Any] = {"label": label}
        if self.locate != "none":
            item[self.locate] = _place_schema(self.locate, scale)
        item |= self.fields
        return closed_object(
            {
                "caption": {"type": "string", "maxLength": 1000, "description": "the image in one or two sentences"},
                "objects": {"type": "array", "maxItems": self.max_objects, "items": closed_object(item)},
            }
        )


@dataclass(frozen=True, kw_only=True)
class ImageDescribeJob(QuestionJob):
    """Asks for captions and objects of images.

    Attributes:
        question: Templates, schema and how the answer is asked for.
        objects: How objects are asked for.
        per_mille: Whether places are thousandths of the width and height instead of pixels as sent.
        merge_iou: Boxes of one label in different tiles that overlap so much are one object.
    """

    question: Question
    objects: Objects
    per_mille: bool = False
    merge_iou: float = 0.5

    @property
    def columns(self) -> tuple[Column, ...]:
        """`image`, `caption`, `objects` with their places, and how many of them."""
        import pyarrow as pa

        answered = {column.name: column.type for column in self.schema.columns}
        placed = [pa.field(name, pa.float64()) for name in ("x_min", "y_min", "x_max", "y_max")]
        item = pa.struct([*answered["objects"].value_type, *placed, pa.field("geometry", pa.string())])
        doc = (
            "objects: label, place as answered (box or point), x_min to y_max in pixels of the original image, "
            "geometry as GeoJSON in the image's CRS (null without one)"
        )
        return (
            Column(name="image", type=pa.string(), doc="file that the image stands in"),
            Column(name="caption", type=pa.string(), doc="the image in one or two sentences"),
            Column(name="objects", type=pa.list_(item), doc=doc),
            Column(name="n_objects", type=pa.int64(), doc="how many objects"),
        )

    @property
    def prompt_hash(self) -> str:
        """Hash of the question and of what coordinates mean."""
        return digest([*self.question.identity, self.per_mille])

    def outline(self, entry: PlanEntry) -> str:
        """Return the prompt, as for an image of the size in the plan."""
        size = entry.image_sizes[0] if entry.image_sizes else (1000, 1000)
        return self.question.outline(self._names((float(size[0]), float(size[1]))))

    def prepare(self, record: Record, settings: Settings) -> Request:
        """Build the request; its schema is bounded by the size of the image as sent.

        Raises:
            SourceError: The record holds no image, or several, or a template fails on it.
        """
        the_image(record, "image-describe")
        scale = self._scale(ImagePlace.of(record))
        if scale is None:
            raise SourceError("decode_error", "the image's width and height cannot be read")
        names = self._names(scale)
        return self.question.request(record, settings, schema=self.objects.schema(scale), more=names)

    @property
    def checks_values(self) -> bool:
        """True: a row of a table says in its values where its image is."""
        return True

    def interpret(self, record: Record, response: Response) -> Answer:
        """Turn a response into a caption and placed objects.

        A place outside the image, or a box without an area, makes the answer `unparsed`, `out_of_range`.
        """
        answer = interpret_json(response, self.schema)
        if answer.outcome != "ok":
            return answer
        place = ImagePlace.of(record)
        scale = self._scale(place)
        objects = []
        for number, found in enumerate(answer.fields["objects"]):
            wrong = self._misplaced(found, scale)
            if wrong is not None:
                return Answer(outcome="unparsed", reason="out_of_range", detail=f"object {number}: {wrong}")
            objects.append(self._placed(found, place, scale))
        fields = {
            "image": image_name(record),
            "caption": answer.fields["caption"],
            "objects": objects,
            "n_objects": len(objects),
        }
        return Answer(outcome="ok", detail=answer.detail, fields=fields)

    @property
    def merge_columns(self) -> frozenset[str]:
        """What says which image a tile is of, and what is in it."""
        return MERGE_COLUMNS if self.objects.locate != "none" else frozenset()

    def merge(self, rows: pl.DataFrame) -> pl.DataFrame | None:
        """Return one line for each object of an image, merged over overlapping tiles; None without places."""
        import polars as pl

        return pl.concat(list(self.merge_pieces([rows]))) if self.merge_columns else None

    def merge_pieces(self, pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield the same for rows that come in pieces; the tiles of a few images are in memory at once."""
        return merge_object_pieces(pieces, self.merge_iou)

    def _scale(self, place: ImagePlace) -> Point | None:
        """Return what the answer counts the image's width and height as."""
        return _MILLE if self.per_mille else place.sent

    def _names(self, scale: Point | None) -> dict[str, Any]:
        names: dict[str, Any] = {"locate": self.objects.locate}
        if scale is not None:
            names |= {"scale_width": f"{scale[0]:g}", "scale_height": f"{scale[1]:g}"}
        return names

    def _misplaced(self, found: Mapping[str, Any], scale: Point | None) -> str | None:
        """Return why a place is none in the image; None when it is one."""
        if self.objects.locate == "none":
            return None
        numbers = found[self.objects.locate]
        for position, number in enumerate(numbers):
            limit = None if scale is None else scale[position % 2]
            if number < 0 or (limit is not None and number > limit):
                bound = "" if limit is None else f" of 0 to {limit:g}"
                return f"{self.objects.locate} {numbers}: {number:g} lies outside{bound}"
        if self.objects.locate == "box" and not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
            return f"box {numbers} has no area: give [left, top, right, bottom]"
        return None

    def _placed(self, found: Mapping[str, Any], place: ImagePlace, scale: Point | None) -> dict[str, Any]:
        if self.objects.locate == "none":
            return {**found, **dict.fromkeys(("x_min", "y_min", "x_max", "y_max", "geometry"))}
        numbers: Sequence[float] = found[self.objects.locate]
        if self.per_mille:
            # Without the size as sent, thousandths are all that is known.
            numbers = [number * (place.sent or _MILLE)[axis % 2] / 1000 for axis, number in enumerate(numbers)]
        corners = [(numbers[0], numbers[1])]
        if self.objects.locate == "box":
            x_min, y_min, x_max, y_max = numbers
            corners = [(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)]
        first, last = place.original(corners[0]), place.original(corners[len(corners) // 2])
        edges = {"x_min": first[0], "y_min": first[1], "x_max": last[0], "y_max": last[1]}
        return {**found, **edges, "geometry": place.geometry(corners)}


def _place_schema(locate: Locate, scale: Point | None) -> dict[str, Any]:
    size = 4 if locate == "box" else 2
    doc = "[left, top, right, bottom]" if locate == "box" else "[x, y]"
    schema: dict[str, Any] = {"type": "array", "minItems": size, "maxItems": size, "description": doc}
    if scale is None:
        return {**schema, "items": {"type": "number", "minimum": 0}}
    axes = [{"type": "integer", "minimum": 0, "maximum": int(limit)} for limit in scale]
    return {**schema, "prefixItems": axes * (size // 2), "items": False}
