"""Job files: what is wrong is said by field, value and valid ones."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from s1batch.config import answer_fields
from s1batch.errors import JobFileError, UsageError
from s1batch.jobfile import job_schema, load_job
from s1batch.readers.seismic.spec import SeismicSource
from tests.archives import pick_job


def job(**changes):
    return {**pick_job("archive"), **changes}


class TestMessages:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"engin": {}}, r"engin: unknown field; did you mean engine\? \(valid: name, source, window"),
            ({"window": {"lenght": "60s"}}, r"window\.lenght: unknown field; did you mean length\? \(valid: length, "),
            ({"window": {"length": "60 parsecs"}}, r"window\.length: '60 parsecs': give seconds \(60s"),
            ({"window": {"tail": "drop"}}, r"window\.tail: 'drop' is not valid \(valid: 'shift', 'pad' or 'short'\)"),
            (
                {"source": {"kind": "seismik"}},
                r"source\.kind: 'seismik' is not valid \(valid: 'seismic', 'sensors', 'table', .*\)",
            ),
            ({"source": {"paths": ["a"]}}, r"source\.kind: missing \(valid: 'seismic', 'sensors', 'table', .*\)"),
            ({"source": {"kind": "seismic"}}, r"source: give exactly one of paths, sds and manifest"),
            ({"source": {"kind": "seismic", "paths": ["a"], "rate_hz": -1}}, r"source\.rate_hz: -1: Input should be"),
            ({"job": {"kind": "seismic-pick", "sampling": {"max_tokens": 0}}}, r"job\.sampling\.max_tokens: 0: "),
            (
                {"engine": {"kind": "reference", "max_bach": 3}},
                r"engine\.max_bach: unknown field; did you mean max_batch",
            ),
            ({"source": {"kind": "table", "path": "a.csv"}}, r"job: "),
        ],
    )
    def test_name_the_field_the_value_and_the_valid_ones(self, changes, message):
        with pytest.raises(JobFileError, match=message):
            load_job(job(**changes))

    def test_missing_blocks_are_named(self):
        with pytest.raises(JobFileError, match=r"(?s)3 things.*source: missing.*job: missing.*engine: missing"):
            load_job({"name": "empty"})

    @pytest.mark.parametrize(("text", "message"), [("a: [", "not valid YAML"), ("- a", "is a mapping with the keys")])
    def test_a_file_that_is_no_mapping(self, tmp_path, text, message):
        path = tmp_path / "job.yaml"
        path.write_text(text)
        with pytest.raises(JobFileError, match=message):
            load_job(path)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(JobFileError, match=r"none\.yaml: cannot read the job file: No such file"):
            load_job(tmp_path / "none.yaml")


class TestOverrides:
    def test_reach_nested_fields_in_yaml(self):
        loaded = load_job(job(), ["window.length=30s", "run.accept=[refused]", "source.rate_hz=50"])
        assert str(loaded.spec.windows.length) == "30s"
        assert loaded.spec.run.accept == ("refused",)
        assert isinstance(loaded.spec.source, SeismicSource)
        assert loaded.spec.source.rate_hz == 50

    def test_do_not_change_the_mapping_that_was_given(self):
        given = job()
        load_job(given, ["window.length=30s"])
        assert given == job()

    @pytest.mark.parametrize("text", ["window.length", "=3", "a..b=1", "name.first=x", "window=["])
    def test_malformed_ones_are_usage_errors(self, text):
        with pytest.raises(UsageError):
            load_job(job(), [text])


def test_paths_are_relative_to_the_job_file(tmp_path):
    path = tmp_path / "folder" / "job.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(job(output="out")))
    assert load_job(path).output == path.parent / "out"


def test_placement_fields_are_not_among_the_answer_fields():
    fields = answer_fields(load_job(job()).spec)
    assert "window.length" in fields
    assert "source.components" in fields
    assert not {"name", "output", "source.sds"} & fields.keys()
    assert not any(name.startswith("run.") for name in fields)


def test_a_resolved_job_is_a_job_again():
    spec = load_job(job()).spec
    assert load_job(spec.model_dump(mode="json", by_alias=True)).spec == spec


def test_the_schema_describes_the_jobs():
    schema = job_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(job(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job(window={"lenght": 1}), schema)
