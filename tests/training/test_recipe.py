"""The recipe of the published weights stays readable by the command that follows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from s1batch.engine.tokens import stride
from s1batch.training.configuration import read_training

RECIPE = sorted((Path(__file__).resolve().parents[2] / "examples" / "nano").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPE, ids=lambda path: path.stem)
def test_every_step_of_the_recipe_is_a_training_at_a_hundred_samples_a_token(path):
    spec = read_training(path)
    assert all(4 * stride(shape.rate_hz) == 100 for shape in spec.data.shapes)
    assert (spec.start is None) == (path is RECIPE[0])
