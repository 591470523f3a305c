"""A name that no record has ends the plan in one line; what only some records lack costs their rows alone."""

from __future__ import annotations

import json

import pytest

import s1batch
from s1batch.errors import JobFileError
from s1batch.first_prompts import TRIED
from tests.archives import write_archive

LOUD = {"loud": {"type": "boolean"}}
SCHEMA = {"type": "object", "properties": LOUD, "required": ["loud"]}
WIDER = {"type": "object", "properties": {**LOUD, "why": {"type": "string"}}, "required": ["loud"]}


def ask(source, prompt, schema=SCHEMA):
    return {
        "name": "asked",
        "source": source,
        "job": {"kind": "ask", "prompt": prompt, "schema": schema},
        "engine": {"kind": "replay", "function": "tests.test_first_prompts:answer"},
    }


def answer(request):
    return json.dumps({"loud": True})


@pytest.fixture
def minerals(tmp_path):
    path = tmp_path / "minerals.csv"
    path.write_text("name,rank\n" + "".join(f"mineral {number},{number}\n" for number in range(12)))
    return {"kind": "table", "path": str(path)}


@pytest.fixture
def waves(tmp_path):
    folder = write_archive(tmp_path / "archive", stations=1, seconds=100)
    return {"kind": "seismic", "paths": [f"{folder}/**/*"]}


def test_the_error_names_the_field_the_name_and_the_valid_ones(minerals, tmp_path):
    with pytest.raises(JobFileError, match=r"^job.prompt: 'nmae' is undefined; the names are fields, .*name, rank"):
        s1batch.run(ask(minerals, "Is {{ nmae }} loud?"), tmp_path / "out")


def test_a_plan_says_it_too(waves):
    job = {**ask(waves, "Is {{ statoin }} loud?"), "window": {"length": "10s"}}
    with pytest.raises(JobFileError, match="'statoin' is undefined"):
        s1batch.plan(job)


def test_the_mended_job_may_have_other_columns_in_the_same_folder(minerals, tmp_path):
    with pytest.raises(JobFileError):
        s1batch.run(ask(minerals, "Is {{ nmae }} loud?"), tmp_path / "out")
    results = s1batch.run(ask(minerals, "Is {{ name }} loud?", WIDER), tmp_path / "out")
    assert results.verify().complete
    assert results.scan().collect()["outcome"].to_list() == ["ok"] * 12
    assert "why" in results.scan().collect_schema()


def test_names_that_may_be_missing_are_allowed_to_be(minerals, tmp_path):
    results = s1batch.run(ask(minerals, "Is {{ name }}{{ place if place is defined }} loud?"), tmp_path / "out")
    assert results.scan().collect()["outcome"].to_list() == ["ok"] * 12


def test_other_errors_of_the_first_record_cost_its_row_alone(minerals, tmp_path):
    results = s1batch.run(ask(minerals, "Is {{ name }} loud, {{ 10 // (rank | int) }}?"), tmp_path / "out")
    rows = results.scan().sort("row_index").collect()
    assert rows["outcome"].to_list() == ["refused", *["ok"] * 11]
    assert rows["reason"][0] == "prompt_error"


def test_names_that_come_with_the_samples_are_known_once_a_record_was_read(waves, tmp_path):
    job = {**ask(waves, "Is {{ peak }} loud?"), "window": {"length": "10s"}}
    results = s1batch.run(job, tmp_path / "out")
    assert set(results.scan().collect()["outcome"]) == {"ok"}


def sparse(tmp_path, lacking):
    """Lines of which the first lack a field."""
    lines = [{"name": "quartz"}] * lacking + [{"name": "oak", "place": "Harz"}] * 2
    path = tmp_path / "things.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"kind": "table", "path": str(path)}


def test_records_that_lack_a_name_which_an_early_one_has_cost_their_rows_alone(tmp_path):
    results = s1batch.run(ask(sparse(tmp_path, TRIED - 1), "Is {{ name }} of {{ place }} loud?"), tmp_path / "out")
    outcomes = results.scan().sort("row_index").collect()["outcome"].to_list()
    assert outcomes == ["refused"] * (TRIED - 1) + ["ok"] * 2


def test_a_name_that_none_of_the_first_has_needs_a_default(tmp_path):
    source = sparse(tmp_path, TRIED)
    with pytest.raises(JobFileError, match=r"'place' is undefined.*only some records have it.*default\('unknown'\)"):
        s1batch.run(ask(source, "Is {{ name }} of {{ place }} loud?"), tmp_path / "out")
    mended = ask(source, "Is {{ name }} of {{ place | default('unknown') }} loud?")
    results = s1batch.run(mended, tmp_path / "out")
    assert results.scan().collect()["outcome"].to_list() == ["ok"] * (TRIED + 2)
