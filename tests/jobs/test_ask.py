"""The ask job sends the user's own question and holds the answer to the user's schema."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from s1batch.blocks import TaskSpec
from s1batch.config import answer_fields
from s1batch.errors import JobFileError, SourceError
from s1batch.jobs.ask import AskJob
from s1batch.jobs.ask_spec import AskSpec
from s1batch.jobs.base import Settings
from s1batch.jobs.seismic_pick_spec import SeismicPickSpec
from s1batch.jobs.spec import SamplingSpec
from s1batch.records import (
    Address,
    Chunk,
    Fields,
    ModelIdentity,
    PlanEntry,
    Record,
    Response,
    Sampling,
    Series,
    SeriesPart,
    Slice,
)

SETTINGS = Settings(model=ModelIdentity(name="m"), sampling=Sampling())
SCHEMA = {"type": "object", "properties": {"toxic": {"type": "boolean"}}, "required": ["toxic"]}
CHUNK = Chunk(inputs=(Address(root="archive", path="a.csv", slices=(Slice(dim="rows", start=3, stop=4),)),))


def make_job(prompt: str, **fields: Any) -> AskJob:
    job = AskSpec.model_validate({"kind": "ask", "prompt": prompt, **fields}).build(Path())
    assert isinstance(job, AskJob)
    return job


def make_record(payload: Fields | Series) -> Record:
    return Record(chunk=CHUNK, payload=payload, lineage={"source_file": "a.csv", "row_index": 3})


def test_the_schema_stands_before_the_question() -> None:
    job = make_job("Is {{ smiles }} toxic? <|im_end|>", schema=SCHEMA, system="You are a chemist.")
    request = job.prepare(make_record(Fields(values={"smiles": "C1=CC=CC=C1"})), SETTINGS)
    assert [(message.role, message.text) for message in request.messages] == [
        ("system", "You are a chemist."),
        (
            "user",
            "Answer with one JSON object that fits this JSON Schema, and nothing else:\n"
            '{"type":"object","properties":{"toxic":{"type":"boolean"}},"required":["toxic"]}\n\n'
            "Is C1=CC=CC=C1 toxic? < |im_end|>",
        ),
    ]
    assert request.schema == SCHEMA
    assert request.neutralised == 1


def test_the_schema_can_be_kept_out_of_the_prompt_and_out_of_decoding() -> None:
    job = make_job("Is it?", schema=SCHEMA, show_schema=False, guided=False)
    request = job.prepare(make_record(Fields(values={})), SETTINGS)
    assert request.text == "Is it?"
    assert request.schema is None
    assert job.columns[0].name == "toxic"


def test_without_a_schema_the_text_is_the_answer() -> None:
    job = make_job("Describe {{ fields.name }}.")
    record = make_record(Fields(values={"name": "gypsum"}))
    assert job.prepare(record, SETTINGS).text == "Describe gypsum."
    assert job.columns == ()
    assert job.interpret(record, Response(fingerprint="f", text="A mineral.")).outcome == "ok"
    assert job.interpret(record, Response(fingerprint="f", text="")).reason == "no_answer"


def test_with_a_schema_the_answer_is_typed() -> None:
    job = make_job("?", schema=SCHEMA)
    record = make_record(Fields(values={}))
    assert job.interpret(record, Response(fingerprint="f", text='{"toxic": true}')).fields == {"toxic": True}
    assert job.interpret(record, Response(fingerprint="f", text="yes")).reason == "not_json"


@pytest.mark.parametrize(("attach", "attached"), [("auto", 1), ("none", 0)])
def test_a_series_is_sent_behind_the_question_unless_told_otherwise(attach: str, attached: int) -> None:
    series = Series(values_TC=np.zeros((500, 1), np.float32), rate_hz=50.0, channels=("a",))
    request = make_job("What is this?", attach=attach).prepare(make_record(series), SETTINGS)
    assert len(request.series) == attached
    assert isinstance(request.messages[0].parts[-1], SeriesPart) is bool(attached)


def test_a_record_without_a_needed_field_is_refused_with_the_valid_names() -> None:
    with pytest.raises(SourceError) as caught:
        make_job("{{ smile }}").prepare(make_record(Fields(values={"smiles": "C"})), SETTINGS)
    assert caught.value.reason == "prompt_error"
    assert "the names are fields, lineage, row_index, smiles, source_file" in caught.value.detail


def test_the_outline_holds_all_that_does_not_depend_on_the_row() -> None:
    outline = make_job("Is {{ smiles }} toxic?", schema=SCHEMA, system="Chemist.").outline(PlanEntry(chunk=CHUNK))
    assert outline.startswith("Chemist.\nAnswer with one JSON object")
    assert outline.endswith("Is {{ smiles }} toxic?")


def test_what_changes_the_prompt_changes_its_hash_and_the_job_pickles() -> None:
    variants = [
        make_job("a"),
        make_job("b"),
        make_job("a", system="s"),
        make_job("a", schema=SCHEMA),
        make_job("a", schema=SCHEMA, show_schema=False),
        make_job("a", schema={**SCHEMA, "properties": {**SCHEMA["properties"], "why": {}}}),  # type: ignore[dict-item]
    ]
    assert len({job.prompt_hash for job in variants}) == len(variants)
    job = pickle.loads(pickle.dumps(variants[3]))
    assert job.prompt_hash == variants[3].prompt_hash


def test_the_order_of_the_schemas_properties_is_part_of_the_requests_identity() -> None:
    a, b = {"a": {"type": "string"}}, {"b": {"type": "string"}}
    record = make_record(Fields(values={}))
    requests = [
        make_job("?", schema={"type": "object", "properties": properties}, show_schema=False).prepare(record, SETTINGS)
        for properties in ({**a, **b}, {**b, **a}, {**a, **b, "c": {}})
    ]
    assert len({request.fingerprint for request in requests}) == 3


# --------------------------------------------------------------------------------------------------- the job block


def test_presets_decode_greedily_without_thinking_unless_told() -> None:
    assert SamplingSpec().resolve() == Sampling(max_tokens=512, temperature=0.0, thinking=False)
    recommended = SamplingSpec(preset="recommended", top_k=20).resolve()
    assert (recommended.temperature, recommended.top_p, recommended.top_k, recommended.min_p) == (0.8, 0.95, 20, 0.0)
    assert SamplingSpec(preset="intern-s1-pro").resolve() == SamplingSpec(preset="recommended").resolve()
    older = SamplingSpec(preset="intern-s1").resolve()
    assert (older.temperature, older.top_p, older.top_k, older.min_p) == (0.7, 1.0, 50, 0.0)
    assert SamplingSpec(temperature=0.3).resolve().temperature == 0.3
    with pytest.raises(ValidationError):
        SamplingSpec(max_tokens=0)


def test_a_budget_belongs_to_thinking_and_leaves_room_for_an_answer() -> None:
    bound = SamplingSpec(thinking=True, thinking_budget=100, max_tokens=101).resolve()
    assert (bound.thinking, bound.thinking_budget) == (True, 100)
    with pytest.raises(ValidationError, match="no meaning without"):
        SamplingSpec(thinking_budget=100)
    with pytest.raises(ValidationError, match="leaves nothing of max_tokens"):
        SamplingSpec(thinking=True, thinking_budget=512)


def test_a_block_survives_being_written_and_read_again() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(TaskSpec)
    for block in (
        {"kind": "seismic-pick"},
        {"kind": "ask", "prompt": "?", "schema": SCHEMA, "sampling": {"preset": "recommended"}},
        {"kind": "ask", "prompt": "?", "schema": "answer.json"},
    ):
        spec = adapter.validate_python(block)
        assert adapter.validate_python(spec.model_dump(mode="json")) == spec
        assert adapter.validate_json(spec.model_dump_json(by_alias=True)) == spec
    with pytest.raises(ValidationError):
        adapter.validate_python({"kind": "ask", "prompt": "?", "shema": SCHEMA})


def test_every_field_of_a_job_can_change_an_answer_and_is_described() -> None:
    fields = answer_fields(AskSpec.model_validate({"kind": "ask", "prompt": "?", "schema": SCHEMA}))
    assert fields["answer_schema"] == SCHEMA
    assert fields["sampling.temperature"] is None
    models: tuple[type[BaseModel], ...] = (AskSpec, SeismicPickSpec, SamplingSpec)
    for model in models:
        undescribed = [name for name, info in model.model_fields.items() if name != "kind" and not info.description]
        assert undescribed == []


def test_a_wrong_template_or_schema_is_an_error_of_the_job_file(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match=r"job\.system: line 1"):
        make_job("?", system="{% if %}")
    with pytest.raises(JobFileError, match="schema"):
        AskSpec(kind="ask", prompt="?", answer_schema="none.json").build(tmp_path)
