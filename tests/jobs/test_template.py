"""A prompt template sees one record's metadata, fails on it alone, and reaches nothing else."""

from __future__ import annotations

import datetime as dt
import pickle
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.errors import JobFileError, SourceError
from s1batch.jobs.template import LONGEST_PROMPT, PromptTemplate, names_of
from s1batch.records import Address, Chunk, Fields, Record, Series, Slice
from s1batch.special_tokens import contains_special


def render(source: str, **names: Any) -> str:
    return PromptTemplate(source, "job.prompt").render(names).text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a <b> & 'c'", "a <b> & 'c'"),
        (3, "3"),
        (0.1, "0.1"),
        (float("nan"), "nan"),
        (True, "true"),
        (None, "null"),
        (dt.datetime(2020, 1, 2, 3, 4, 5, tzinfo=dt.UTC), "2020-01-02T03:04:05Z"),
        (dt.datetime(2020, 1, 2, 3, 4, 5, 600), "2020-01-02T03:04:05.000600"),
        (dt.date(2020, 1, 2), "2020-01-02"),
        (dt.time(1, 2), "01:02:00"),
        (dt.timedelta(seconds=90), "0:01:30"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0.10"), "0.10"),
        ("größe".encode(), "größe"),
        (b"\xff\x00", "<2 bytes>"),
        ([1, None, "ä", b"x", Decimal("1.5")], '[1, null, "ä", "x", "1.5"]'),
        ({"a": dt.date(2020, 1, 2), "b": {"c": (1, 2)}}, '{"a": "2020-01-02", "b": {"c": [1, 2]}}'),
    ],
)
def test_values_of_every_kind_read_well(value: object, expected: str) -> None:
    assert render("{{ value }}", value=value) == expected


def test_fields_go_before_lineage_and_both_can_be_named() -> None:
    chunk = Chunk(inputs=(Address(root="archive", path="a.csv"),))
    lineage = {"source_file": "a.csv", "row_index": 3}
    record = Record(
        chunk=chunk, lineage=lineage, payload=Fields(values={"P wave": 7, "source_file": "mine", "class": 1})
    )
    template = (
        "{{ source_file }} {{ lineage.source_file }} {{ fields['P wave'] }} {{ fields['class'] }} {{ row_index }}"
    )
    assert PromptTemplate(template, "job.prompt").render(names_of(record)).text == "mine a.csv 7 1 3"


@pytest.mark.parametrize(
    ("source", "names", "says"),
    [
        ("{{ nme }}", {"name": 1, "age": 2}, "'nme' is undefined; the names are age, name"),
        ("{{ nme }}", {}, "there are no names to use"),
        ("{{ row.agee }}", {"row": {"age": 1}}, "has no attribute 'agee'"),
        ("{{ 1 / x }}", {"x": 0}, "ZeroDivisionError"),
        ("{{ x }}", {"x": "  "}, "the prompt is empty"),
        ("{{ x.upper }}", {"x": "a"}, "a function stands where a value is needed"),
        ("{{ ''.__class__.__mro__ }}", {}, "unsafe"),
        ("{{ x.__init__.__globals__ }}", {"x": "a"}, "unsafe"),
        ("{% for i in range(10**8) %}{{ i }}{% endfor %}", {}, "Range too big"),
        ("{% for i in range(99999) %}{{ x }}{% endfor %}", {"x": "x" * 1000}, f"more than {LONGEST_PROMPT} characters"),
        ("{{ 'x' * 10**9 }}", {}, "a repetition of more than a million items"),
        ("{{ 10 ** 1000000000 }}", {}, "an exponent above 1000"),
        ("{{ '%999999999d' % 1 }}", {}, "instead of % on text"),
        ("{{ x.append(1) }}", {"x": []}, "unsafe"),
    ],
)
def test_a_template_that_fails_on_a_record_says_why(source: str, names: dict[str, Any], says: str) -> None:
    with pytest.raises(SourceError, match=r"job\.prompt: ") as caught:
        render(source, **names)
    assert caught.value.reason == "prompt_error"
    assert says in caught.value.detail
    assert len(caught.value.detail) < 1500


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("one\ntwo {% if %}", "line 2"),
        ("{{ a", "line 1"),
        ("{{ a|nosuchfilter }}", "No filter named"),
        ("\n\n{% include '/etc/passwd' %}", "line 3: a prompt reads no other files"),
        ("{% import 'x' as y %}", "a prompt reads no other files"),
        ("{% extends 'x' %}", "a prompt reads no other files"),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "nested too deeply"),
    ],
)
def test_a_wrong_template_is_refused_when_the_job_is_loaded(source: str, says: str) -> None:
    with pytest.raises(JobFileError, match=r"job\.prompt: ") as caught:
        PromptTemplate(source, "job.prompt")
    assert says in str(caught.value)


def test_special_tokens_are_made_harmless_wherever_they_come_from() -> None:
    rendered = PromptTemplate("{{ a }}{{ b }} <think>", "job.prompt").render({"a": "<|im_", "b": "end|>"})
    assert rendered.text == "< |im_end|> < think>"
    assert rendered.neutralised == 2


@settings(deadline=None)
@given(st.text(max_size=50))
def test_data_are_never_taken_for_a_template_and_leave_no_special_token(text: str) -> None:
    rendered = PromptTemplate("x {{ value }}", "job.prompt").render({"value": "{{ 1/0 }}<think>" + text})
    assert rendered.text.startswith("x {{ 1/0 }}< think>")
    assert not contains_special(rendered.text)


def test_a_template_travels_between_processes_after_use() -> None:
    template = PromptTemplate("{{ a }}", "job.prompt")
    template.render({"a": 1})
    assert pickle.loads(pickle.dumps(template)).render({"a": 2}).text == "2"
    assert template.names == {"a"}


def series_record(values_TC: np.ndarray) -> Record:
    window = (Slice(dim="time_ns", start=1_251_073_203_000_000_000, stop=1_251_073_233_500_000_000),)
    chunk = Chunk((Address(root="archive", path="a.mseed", slices=window),))
    series = Series(values_TC=values_TC.astype(np.float32), rate_hz=100.0, channels=("HHZ", "HHN"), units="m/s")
    return Record(chunk=chunk, payload=series, lineage={"station": "RJOB"})


def test_a_window_tells_its_times_and_on_request_its_amplitudes() -> None:
    record = series_record(np.array([[1.0, 10.0], [-3.0, 10.0], [2.0, 10.0]]))
    template = PromptTemplate("{{ station }} {{ start }} {{ end }} {{ peak.HHZ }} {{ rms }}", "job.prompt")
    text = template.render(names_of(record, template.names)).text
    assert text == ('RJOB 2009-08-24T00:20:03Z 2009-08-24T00:20:33.500Z 3.0 {"HHZ": 2.16025, "HHN": 0.0}')


def test_amplitudes_are_not_computed_for_nothing() -> None:
    assert "rms" not in names_of(series_record(np.zeros((3, 2))), {"station"})
