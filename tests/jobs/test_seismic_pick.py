"""The seismic-pick job asks one fixed question and believes only indices that lie in the window's data."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.errors import SourceError
from s1batch.jobs.base import Settings
from s1batch.jobs.seismic_pick import SeismicPickJob
from s1batch.jobs.seismic_pick_spec import SeismicPickSpec
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
    SeriesShape,
    Slice,
)

START_NS = 1_600_000_000_123_456_789
SETTINGS = Settings(model=ModelIdentity(name="m"), sampling=Sampling())

GOLDEN = (
    "Please determine whether an Earthquake event has occurred. If so, specify P-wave and S-wave starting indices.\n"
    'Answer with one JSON object and nothing else: {"contain": true or false, "p_index": integer or null, "s_index": '
    "integer or null}. Indices count samples from 0 at the start of the series; null means that the phase does not "
    "start in it.\n"
)


def make_job(**fields: Any) -> SeismicPickJob:
    job = SeismicPickSpec(kind="seismic-pick", **fields).build(Path())
    assert isinstance(job, SeismicPickJob)
    return job


def make_record(steps: int = 6000, rate_hz: float = 100.0, pad_frac: float = 0.0) -> Record:
    stop = START_NS + round(steps * 1e9 / rate_hz)
    address = Address(
        source="BW.RJOB..EHZ", root="archive", path="a", slices=(Slice(dim="time_ns", start=START_NS, stop=stop),)
    )
    series = Series(
        values_TC=np.zeros((steps, 3), np.float32), rate_hz=rate_hz, channels=("EHZ", "EHN", "EHE"), start_ns=START_NS
    )
    lineage = {"station": "RJOB", "steps": steps, "rate_sent_hz": rate_hz, "pad_frac": pad_frac}
    return Record(chunk=Chunk(inputs=(address,)), payload=series, lineage=lineage)


def interpret(text: str, **window: Any) -> Any:
    record = make_record(**window).without_payload()
    return make_job().interpret(record, Response(fingerprint="f", text=text))


def answer(contain: Any, p: Any, s: Any) -> str:
    return json.dumps({"contain": contain, "p_index": p, "s_index": s})


def test_the_prompt_is_the_documented_question_then_the_series_then_what_differs() -> None:
    request = make_job().prepare(make_record(), SETTINGS)
    [message] = request.messages
    first, series, note = message.parts
    assert message.role == "user"
    assert first.text == GOLDEN  # type: ignore[union-attr]
    assert isinstance(series, SeriesPart)
    assert series.rate_hz == 100.0
    assert note.text == "\nThe series has 6000 samples at 100 Hz."  # type: ignore[union-attr]
    assert request.neutralised == 0


def test_windows_of_one_length_share_everything_but_the_series() -> None:
    one = make_job().prepare(make_record(), SETTINGS)
    other = make_job().prepare(make_record(), SETTINGS)
    assert one.text == other.text
    assert one.fingerprint == other.fingerprint


def test_a_guided_answer_cannot_lie_outside_the_window() -> None:
    schema = make_job().prepare(make_record(steps=3001), SETTINGS).schema
    assert schema is not None
    assert schema["properties"]["p_index"]["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 3000}
    assert schema["required"] == ["contain", "p_index", "s_index"]
    assert schema["additionalProperties"] is False


def test_the_schema_goes_along_unless_the_job_says_so_and_the_engine_decides_while_it_thinks() -> None:
    thinking = replace(SETTINGS, sampling=Sampling(thinking=True))
    assert make_job().prepare(make_record(), thinking).schema is not None
    assert make_job(guided=False).prepare(make_record(), SETTINGS).schema is None


def test_prompts_can_be_replaced_and_use_the_lineage() -> None:
    job = make_job(prompt="Picks at {{ station }}? <think>", note="", system="Answer for {{ rate_sent_hz }} Hz.")
    request = job.prepare(make_record(), SETTINGS)
    assert [message.text for message in request.messages] == ["Answer for 100.0 Hz.", "Picks at RJOB? < think>\n"]
    assert request.neutralised == 1
    assert job.prompt_hash != make_job().prompt_hash


def test_a_record_that_is_no_waveform_is_refused() -> None:
    record = replace(make_record(), payload=Fields(values={"a": 1}))
    with pytest.raises(SourceError, match="needs a series"):
        make_job().prepare(record, SETTINGS)
    with pytest.raises(SourceError, match="'nothing' is undefined"):
        make_job(prompt="{{ nothing }}").prepare(make_record(), SETTINGS)


def test_the_outline_of_the_plan_is_the_text_of_the_request() -> None:
    record = make_record()
    entry = PlanEntry(chunk=record.chunk, series=SeriesShape(steps=6000, channels=3, rate_hz=100.0))
    job = make_job(system="Be brief.")
    assert job.outline(entry).split() == job.prepare(record, SETTINGS).text.split()
    assert "{{ station }}" in make_job(prompt="At {{ station }}").outline(entry)


@settings(deadline=None)
@given(
    st.integers(1, 240_000).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(0, steps - 1))),
    st.sampled_from([0.1, 20.0, 50.0, 99.99, 100.0, 200.0, 500.0]),
)
def test_times_count_from_the_start_of_the_window_at_the_rate_that_was_sent(
    window: tuple[int, int], rate: float
) -> None:
    steps, index = window
    record = replace(make_record(), payload=None, lineage={"steps": steps, "rate_sent_hz": rate, "pad_frac": 0.0})
    found = make_job().interpret(record, Response(fingerprint="f", text=answer(True, index, None)))
    assert found.outcome == "ok"
    assert found.fields == {
        "contain": True,
        "p_index": index,
        "s_index": None,
        "p_time": START_NS + round(index * 1e9 / rate),
        "s_time": None,
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (answer(True, 6000, None), "p_index 6000 lies outside"),
        (answer(True, 10, 6001), "s_index 6001 lies outside"),
        (answer(True, -1, None), "less than the minimum"),
        (answer(True, 2**63, None), "does not fit"),
        (answer(False, 9999, None), "p_index 9999 lies outside"),
    ],
)
def test_an_index_outside_the_window_is_out_of_range(text: str, says: str) -> None:
    found = interpret(text)
    assert (found.outcome, found.reason) == ("unparsed", "out_of_range")
    assert says in found.detail
    assert found.fields == {}


def test_an_index_in_the_padding_is_out_of_range() -> None:
    assert interpret(answer(True, 4499, None), pad_frac=0.25).outcome == "ok"
    found = interpret(answer(True, 4500, None), pad_frac=0.25)
    assert found.reason == "out_of_range"
    assert "in the padding: the window has data at 0 to 4499" in found.detail


def test_contradictions_are_told_and_resolved_as_documented() -> None:
    dropped = interpret(answer(False, 10, 20))
    assert dropped.outcome == "ok"
    assert (dropped.fields["p_index"], dropped.fields["s_time"]) == (None, None)
    assert dropped.detail == "p_index 10 dropped: contain is false; s_index 20 dropped: contain is false"
    kept = interpret(answer(True, 20, 10))
    assert kept.outcome == "ok"
    assert (kept.fields["p_index"], kept.fields["s_index"]) == (20, 10)
    assert kept.detail == "s_index 10 is not behind p_index 20"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_answer"),
        ("No earthquake.", "not_json"),
        ('{"contain": true}', "not_in_schema"),
        ('{"contain": "true", "p_index": null, "s_index": null}', "not_in_schema"),
        ('{"contain": true, "p_index": 1.5, "s_index": null}', "not_in_schema"),
        ('{"contain": true, "p_index": 1, "s_index": null, "why": "x"}', "not_in_schema"),
    ],
)
def test_an_answer_outside_the_schema_is_unparsed(text: str, reason: str) -> None:
    found = interpret(text)
    assert (found.outcome, found.reason) == ("unparsed", reason)


def test_a_repair_is_told_and_keeps_the_picks() -> None:
    found = interpret("```json\n" + answer(True, 12.0, None) + "\n```")
    assert found.fields["p_index"] == 12
    assert "JSON taken out of" in found.detail


def test_every_answer_fills_only_declared_columns_and_the_job_pickles() -> None:
    job = pickle.loads(pickle.dumps(make_job()))
    assert {column.name for column in job.columns} == set(interpret(answer(True, 1, 2)).fields)
    assert job.prompt_hash == make_job().prompt_hash
