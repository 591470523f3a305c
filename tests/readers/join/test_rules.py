"""What makes two pieces partners, and which rules make no sense."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from obspy import UTCDateTime

from s1batch.errors import JobFileError
from s1batch.jobfile import load_job
from s1batch.readers.join.rules import as_key, as_ns
from tests.readers.join.joins import join_job, planned, reader_of, two_tables, wave_job


@pytest.mark.parametrize(
    ("value", "key"),
    [(5, "5"), (5.0, "5"), ("5", "5"), (5.5, "5.5"), (None, None), ("", None), (float("nan"), None), (True, "true")],
)
def test_keys_are_compared_as_text(value: Any, key: str | None) -> None:
    assert as_key(value) == key


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("2020-01-01T00:00:00Z", 1_577_836_800 * 10**9),
        ("2020-01-01 00:00:00.000001", 1_577_836_800 * 10**9 + 1000),
        ("2020-01-01T01:00:00+01:00", 1_577_836_800 * 10**9),
        (dt.datetime(2020, 1, 1), 1_577_836_800 * 10**9),
        (dt.date(2020, 1, 1), 1_577_836_800 * 10**9),
        (1.5, 1_500_000_000),
        ("yesterday", None),
        (True, None),
        (float("inf"), None),
        (None, None),
    ],
)
def test_times_are_read_as_utc(value: Any, ns: int | None) -> None:
    assert as_ns(value) == ns


def test_the_years_of_records_are_no_trouble() -> None:
    assert as_ns(UTCDateTime(1900, 1, 1).datetime) == int(UTCDateTime(1900, 1, 1).timestamp) * 10**9


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"primary": "b"}, "primary: 'b' is none of a, c"),
        ({"on": {"a": "x"}}, "on: name the field of c too"),
        ({"on": {"a": "x", "c": "y", "d": "z"}}, "on: 'd' is none of a, c"),
        ({"many": ["a"]}, "many: 'a' is the primary source"),
        ({"tolerance": "5s"}, "have no meaning with `by: key`"),
        ({"by": "time", "tolerance": "5"}, "tolerance: 5: give seconds"),
        ({"sources": {"A b": {"kind": "table", "path": "x"}, "c": {"kind": "table", "path": "x"}}}, "is no name"),
    ],
)
def test_a_block_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    sources = {"a": {"kind": "table", "path": "a.csv"}, "c": {"kind": "table", "path": "c.csv"}}
    whole = {"sources": sources, "primary": "a", "on": {"a": "x", "c": "y"}, **fields}
    with pytest.raises(JobFileError, match=message):
        load_job(join_job(whole.pop("sources"), **whole))


def test_a_source_without_times_must_name_a_field(tmp_path: Path) -> None:
    sources = two_tables(tmp_path, pl.DataFrame({"t": [1]}), pl.DataFrame({"t": [1]}))
    job = join_job(sources, primary="figure", by="time", time={"figure": "t"})
    with pytest.raises(JobFileError, match="the pieces of paper have no times of their own"):
        planned(reader_of(job, tmp_path))
    job = join_job(sources, primary="figure", on={"figure": "chunk.size", "paper": "t"})
    with pytest.raises(JobFileError, match=r"chunk\.size is none of chunk\.path"):
        planned(reader_of(job, tmp_path))


def test_what_is_wrong_with_one_source_is_said_under_its_name(waves: Path) -> None:
    job = wave_job()
    job["source"]["sources"]["events"]["path"] = "no/*.csv"
    with pytest.raises(JobFileError, match=r"^source\.sources\.events\.path: 'no/\*\.csv' matches no file"):
        list(reader_of(job, waves).plan())
