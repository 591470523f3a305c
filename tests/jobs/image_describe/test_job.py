"""Objects are placed in the image as sent, in the original, and on the ground."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import polars as pl
import pytest

from s1batch.errors import SourceError
from s1batch.jobs.image_describe.merge import area, iou, suppress
from s1batch.records import Fields, ImagePart, Record, Response
from tests.jobs.science import SETTINGS, answered, as_rows, chunk, image, make_job

TILE: dict[str, Any] = {
    "source_file": "scene.tif",
    "tile_x": 1000,
    "tile_y": 2000,
    "tile_width": 128,
    "tile_height": 96,
    "sent_width": 64,
    "sent_height": 48,
}


def said(*boxes, label="tree", caption="trees"):
    return {"caption": caption, "objects": [{"label": label, "box": list(box)} for box in boxes]}


class TestQuestion:
    def test_places_are_bounded_by_the_size_that_was_sent(self):
        request = make_job("image-describe").prepare(image(64, 48), SETTINGS)
        assert "the whole image is 64 wide and 48 high" in request.text
        jsonschema.validate(said((0, 0, 64, 48)), request.schema)
        for wrong in ((0, 0, 65, 48), (0, 0, 64, 49), (0, 0, 1), (0.5, 0, 1, 1)):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(said(wrong), request.schema)

    def test_thousandths_are_the_same_for_all_images(self):
        request = make_job("image-describe", coordinates="per_mille").prepare(image(), SETTINGS)
        assert "1000 wide and 1000 high" in request.text
        jsonschema.validate(said((0, 0, 1000, 1000)), request.schema)

    def test_labels_may_be_given(self):
        job = make_job("image-describe", labels=["tree", "house"], locate="none")
        assert answered(job, image(), {"caption": "", "objects": [{"label": "car"}]}).reason == "not_in_schema"
        answer = answered(job, image(), {"caption": "c", "objects": [{"label": "tree"}]})
        assert (answer.outcome, answer.fields["objects"][0]["x_min"]) == ("ok", None)
        assert job.merge_columns == frozenset()

    @pytest.mark.parametrize(("images", "what"), [((), "no image"), ((ImagePart(b"x"),) * 2, "2 images")])
    def test_a_record_needs_one_image(self, images, what):
        record = Record(chunk=chunk(), payload=Fields(values={}, images=images))
        with pytest.raises(SourceError, match=what):
            make_job("image-describe").prepare(record, SETTINGS)

    def test_an_image_without_a_header_is_a_row(self):
        record = Record(chunk=chunk(), payload=Fields(values={}, images=(ImagePart(b"no image"),)))
        with pytest.raises(SourceError, match="width and height cannot be read"):
            make_job("image-describe").prepare(record, SETTINGS)


class TestPlaces:
    def test_a_tile_is_part_of_a_larger_image(self):
        answer = answered(make_job("image-describe"), image(**TILE), said((1, 2, 10, 12)))
        (found,) = answer.fields["objects"]
        assert [found[edge] for edge in ("x_min", "y_min", "x_max", "y_max")] == [1002, 2004, 1020, 2024]
        assert (found["box"], found["geometry"]) == ([1, 2, 10, 12], None)
        assert (answer.fields["image"], answer.fields["n_objects"]) == ("scene.tif", 1)

    def test_a_transform_of_the_image_as_sent_gives_its_place_on_the_ground(self):
        transform = [500_000.0, 20.0, 0.0, 7_000_000.0, 0.0, -20.0]
        answer = answered(make_job("image-describe"), image(**TILE, transform=transform), said((1, 2, 10, 12)))
        shape = json.loads(answer.fields["objects"][0]["geometry"])
        assert shape["type"] == "Polygon"
        assert shape["coordinates"] == [
            [[500020, 6999960], [500200, 6999960], [500200, 6999760], [500020, 6999760], [500020, 6999960]]
        ]

    def test_thousandths_count_over_the_tile(self):
        job = make_job("image-describe", coordinates="per_mille")
        (found,) = answered(job, image(**TILE), said((500, 500, 1000, 1000))).fields["objects"]
        assert [found[edge] for edge in ("x_min", "y_min", "x_max", "y_max")] == [1064, 2048, 1128, 2096]

    def test_points(self):
        job = make_job("image-describe", locate="point")
        answer = answered(job, image(**TILE), {"caption": "c", "objects": [{"label": "tree", "point": [3, 4]}]})
        (found,) = answer.fields["objects"]
        assert (found["x_min"], found["x_max"], found["y_min"]) == (1006, 1006, 2008)

    @pytest.mark.parametrize(
        ("box", "what"),
        [
            ((0, 0, 65, 10), "65 lies outside of 0 to 64"),
            ((0, 0, 10, 49), "49 lies outside of 0 to 48"),
            ((10, 0, 10, 5), "has no area"),
            ((5, 9, 10, 5), "has no area"),
        ],
    )
    def test_a_box_elsewhere_is_out_of_range(self, box, what):
        job, record = make_job("image-describe"), image(**TILE)
        answer = answered(job, record, said(box))
        assert (answer.outcome, answer.reason) == ("unparsed", "out_of_range")
        assert what in answer.detail
        response = Response(fingerprint="f", text=json.dumps(said(box)))
        assert what in job.repair(job.prepare(record, SETTINGS), response, answer).messages[-1].text

    def test_a_row_of_a_table_tells_what_it_knows(self):
        record = image(values={"tile_x": "7", "tile_y": 0}, image_files=["b.png"], source_file="t.csv", row_index=3)
        answer = answered(make_job("image-describe"), record, said((1, 2, 10, 12)))
        assert answer.fields["image"] == "b.png"
        assert answer.fields["objects"][0]["x_min"] == 8

    def test_images_that_stand_in_a_table_are_told_apart_by_their_rows(self):
        record = image(source_file="t.parquet", row_index=3, image_files=[""])
        assert answered(make_job("image-describe"), record, said()).fields["image"] == "t.parquet:3"


class TestMerge:
    def merged(self, *tiles, limit=0.5):
        job = make_job("image-describe", merge_iou=limit)
        rows = [
            {
                "chunk_key": f"k{number}",
                **answered(job, image(100, 100, source_file=name, tile_x=x, tile_y=0), answer).fields,
            }
            for number, (name, x, answer) in enumerate(tiles)
        ]
        return job, as_rows(job, rows)

    def test_one_object_in_two_tiles_is_one(self):
        # In the original [60, 100) and [62, 100): the second is 38 of the 40 columns of the first.
        job, rows = self.merged(("a", 0, said((60, 0, 100, 10))), ("a", 50, said((12, 0, 50, 10))))
        found = job.merge(rows)
        assert found.select("x_min", "x_max", "count", "page").rows() == [(60, 100, 2, 0)]
        assert found["source_chunk_keys"].to_list() == [["k0", "k1"]]

    def test_a_part_that_a_tile_cut_off_belongs_to_the_whole(self):
        job, rows = self.merged(("a", 0, said((90, 0, 100, 10))), ("a", 50, said((40, 0, 80, 10))))
        assert job.merge(rows).select("x_min", "x_max", "count").rows() == [(90, 130, 2)]

    def test_what_one_tile_saw_as_two_stays_two(self):
        job, rows = self.merged(("a", 0, said((60, 0, 100, 10), (61, 0, 100, 10))))
        assert job.merge(rows).height == 2

    def test_labels_and_images_stay_apart(self):
        box = (60, 0, 100, 10)
        job, rows = self.merged(
            ("a", 0, said(box)),
            ("a", 0, said(box, label="house")),
            ("b", 0, said(box)),
            ("a", 0, said(box, label="Tree")),
        )
        assert sorted(job.merge(rows).select("image", "label", "count").rows()) == [
            ("a", "house", 1),
            ("a", "tree", 2),
            ("b", "tree", 1),
        ]

    def test_pieces_make_no_difference(self):
        tiles = [(name, 50 * number, said((60, 0, 100, 10), (0, 0, 9, 9))) for number, name in enumerate("abab")]
        job, rows = self.merged(*tiles)
        whole = job.merge(rows).sort("group_id")
        for cut in range(5):
            pieces = pl.concat(list(job.merge_pieces([rows[:0], rows[:cut], rows[cut:]])))
            assert pieces.sort("group_id").equals(whole)

    def test_areas(self):
        assert area((0, 0, 2, 3)) == 6
        assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(2 / 6)
        assert iou((0, 0, 1, 1), (2, 0, 3, 1)) == 0
        assert iou((1, 1, 1, 1), (1, 1, 1, 1)) == 1
        groups = suppress([("k0", (0, 0, 2, 2), {}), ("k1", (1, 0, 3, 2), {})], 1 / 3)
        assert [len(group) for group in groups] == [2]
