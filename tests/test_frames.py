"""`df.s1.infer`: one answer for each row, in the order of the rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel

import s1batch  # noqa: F401  (registers the namespace)
from s1batch.errors import JobFileError
from tests.engine.reference.conftest import picture

ROOT = Path(__file__).resolve().parent.parent
ECHO = {"kind": "replay", "function": "tests.answers:echo"}
SCHEMA = {
    "type": "object",
    "properties": {"length": {"type": "integer"}, "first": {"type": "string"}},
    "required": ["length", "first"],
}


class Echo(BaseModel):
    """What `tests.answers.echo` answers."""

    length: int
    first: str


frame: Any = pl.DataFrame({"name": ["quartz", "oak", "basalt"], "hardness": [7.0, None, 6.0]})


@pytest.mark.parametrize("schema", [SCHEMA, Echo, "tests.test_frames:Echo"])
def test_answers_become_typed_columns_in_the_order_of_the_rows(schema):
    answered = frame.s1.infer("{{ name }}", schema=schema, engine=ECHO)
    assert answered.columns[:2] == frame.columns
    assert answered["name"].to_list() == frame["name"].to_list()
    assert answered["outcome"].to_list() == ["ok"] * 3
    assert answered.schema["length"] == pl.Int64


def test_with_an_output_folder_nothing_is_asked_twice(tmp_path):
    once = frame.s1.infer("{{ name }}", schema=SCHEMA, engine=ECHO, output=tmp_path)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "results/rows").iterdir()}
    again = frame.s1.infer("{{ name }}", schema=SCHEMA, engine=ECHO, output=tmp_path)
    assert again.equals(once)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results/rows").iterdir()} == written


def test_a_prompt_that_fails_on_a_row_costs_that_row_only():
    answered = frame.s1.infer("{{ 14 / (hardness - 7) }} {{ name }}", schema=SCHEMA, engine=ECHO)
    assert answered["outcome"].to_list() == ["refused", "refused", "ok"]
    assert answered["reason"].to_list() == ["prompt_error", "prompt_error", None]


def test_a_column_that_exists_already_needs_a_prefix():
    clashing = frame.with_columns(text=pl.lit("mine"))
    with pytest.raises(JobFileError, match="give a prefix"):
        clashing.s1.infer("{{ name }}", engine=ECHO)
    assert "s1_text" in clashing.s1.infer("{{ name }}", engine=ECHO, prefix="s1_").columns


@pytest.mark.parametrize("order", ["import polars as pl, s1batch", "import s1batch, polars as pl"])
def test_the_namespace_is_there_whatever_is_imported_first(order):
    code = f"{order}\nprint(pl.DataFrame({{'a': [1]}}).s1.infer.__name__)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "infer", done.stderr


def test_columns_of_images_and_series_are_sent(tmp_path):
    waves: Any = pl.DataFrame({"wave": [[float(i % 7) for i in range(200)]] * 2, "rate": [50.0, 100.0]})
    options: dict[str, Any] = {"engine": {"kind": "replay", "function": "tests.answers:images"}, "rate_hz": "rate"}
    drawn = waves.s1.infer("?", series="wave", render="image", plot="spectrogram", **options)
    assert drawn["text"].to_list() == ["1 image/png"] * 2
    assert drawn["wave"].to_list() == waves["wave"].to_list()
    (tmp_path / "a.png").write_bytes(picture(64, 48).data)
    pictures: Any = pl.DataFrame({"file": ["a.png", "b.png"], "bytes": [picture(64, 48).data] * 2})
    answered = pictures.s1.infer("?", images=["file", "bytes"], image_root=tmp_path, engine=options["engine"])
    assert answered["text"].to_list() == ["2 image/png", None] or answered["text"].to_list() == ["2 image/png", ""]
    assert answered["reason"].to_list() == [None, "source_missing"]


def test_a_series_without_a_rate_is_an_error_of_the_caller():
    waves: Any = pl.DataFrame({"wave": [[1.0, 2.0]]})
    with pytest.raises(JobFileError, match="series needs rate_hz"):
        waves.s1.infer("?", series="wave", engine=ECHO)


def test_a_lazy_frame_is_collected_and_answered():
    lazy: Any = frame.lazy().filter(pl.col("hardness").is_not_null())
    answered = lazy.s1.infer("{{ name }}", schema=SCHEMA, engine=ECHO)
    assert answered["name"].to_list() == ["quartz", "basalt"]
    assert answered["outcome"].to_list() == ["ok", "ok"]
