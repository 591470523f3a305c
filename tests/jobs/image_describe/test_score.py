"""Scores of boxes and captions on small cases computed by hand."""

from __future__ import annotations

import pytest

from s1batch.errors import UsageError
from s1batch.jobs.image_describe.score import ImageMetrics, matched_boxes
from tests.jobs.image_describe.test_job import said
from tests.jobs.science import answered, as_rows, image, make_job, measure, values

JOB = make_job("image-describe")


def rows(*images):
    """Rows of (file, answer), or of (file, answer, overview)."""
    lines = [
        {
            "chunk_key": f"k{number}",
            "source": name,
            "overview": bool(more),
            **answered(JOB, image(100, 100, source_file=name), answer).fields,
        }
        for number, (name, answer, *more) in enumerate(images)
    ]
    return as_rows(JOB, lines)


def boxes(*lines):
    names = ("file", "label", "x_min", "y_min", "x_max", "y_max")
    return {name: [line[place] for line in lines] for place, name in enumerate(names)}


def test_boxes_are_matched_by_label_and_half_of_the_union():
    results = rows(("d/a.png", said((0, 0, 10, 10), (50, 50, 60, 60))), ("d/b.png", said((0, 0, 10, 10))))
    truth = boxes(
        ("a.png", "Tree", 0, 0, 10, 20),
        ("a.png", "house", 50, 50, 60, 60),
        ("b.png", "", None, None, None, None),
        ("c.png", "tree", 0, 0, 1, 1),
    )
    found = measure(ImageMetrics(), JOB, results, truth)
    (line,) = found.tables[0].lines
    # The first true tree has exactly half of the union; the house was called a tree; b.png holds nothing.
    assert values(line.estimates) == {
        "precision": pytest.approx(1 / 3, abs=1e-6),
        "recall": 0.5,
        "F1": 0.4,
    }
    assert (line.n, line.counts) == (2, {"said": 3, "pairs": 1, "images": 2})
    assert found.notes == ("truth: 1 lines are about images without an answer; not scored",)


def test_a_true_box_is_found_once():
    one, other = ("tree", (0.0, 0.0, 10.0, 10.0)), ("tree", (0.0, 0.0, 10.0, 9.0))
    assert matched_boxes([one, other], [one]) == 1
    assert matched_boxes([other, one], [one, other]) == 2
    assert matched_boxes([one], []) == 0


def test_captions_of_whole_images_are_compared_with_the_best_reference():
    results = rows(
        ("a.png", said(caption="a red house")),
        ("b.png", said(caption="part of it")),
        ("b.png", said(caption="two trees"), True),
        ("c.png", said(caption="left")),
        ("c.png", said(caption="right")),
    )
    truth = {
        "image": ["a.png", "a.png", "b.png", "c.png"],
        "caption": ["the house", "red barn there", "trees", "both"],
    }
    (line,) = measure(ImageMetrics(), JOB, results, truth).tables[0].lines
    # token F1: a: {red, house} to {house} 2/3; b: {two, trees} to {trees} 2/3. c has tiles only.
    # ROUGE-L: a: "a red house" to "the house" 2 * 1 / 5; b: 2 * 1 / 3.
    assert values(line.estimates) == {
        "token F1": pytest.approx(2 / 3, abs=1e-6),
        "ROUGE-L": pytest.approx((2 / 5 + 2 / 3) / 2, abs=1e-6),
    }
    assert (line.n, line.counts) == (2, {"images": 3})


def test_a_truth_of_neither_is_none():
    with pytest.raises(UsageError, match=r"give captions \(caption\) or boxes"):
        measure(ImageMetrics(), JOB, rows(("a.png", said())), {"file": ["a.png"], "x": [1]})
