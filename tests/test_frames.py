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
