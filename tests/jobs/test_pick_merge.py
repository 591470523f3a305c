"""Merged picks cover every pick once, are farther apart than the tolerance, and do not depend on the order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.errors import UsageError
from s1batch.jobs.pick_merge import band_of, merge_picks
from s1batch.jobs.quakeflow import quakeflow_picks

SECOND = 10**9
T0 = 1_600_000_000 * SECOND
UTC = pl.Datetime("ns", "UTC")


def rows_of(*windows: dict[str, Any]) -> pl.DataFrame:
    """Make result rows; times are seconds after T0."""
    plain = []
    for number, window in enumerate(windows):
        start, stop = window.get("start", 0.0), window.get("end", 60.0)
        times = {"start": start, "end": stop, "p_time": window.get("p"), "s_time": window.get("s")}
        core = window.get("core", (None, None))
        plain.append(
            {
                "chunk_key": window.get("key", f"k{number}"),
                "outcome": window.get("outcome", "ok"),
                "network": "BW",
                "station": window.get("station", "RJOB"),
                "location": None,
                "channels": window.get("channels", ["EHZ", "EHN", "EHE"]),
                "rate_sent_hz": window.get("rate", 100.0),
                "core_start_ns": None if core[0] is None else T0 + round(core[0] * SECOND),
                "core_stop_ns": None if core[1] is None else T0 + round(core[1] * SECOND),
                "p_index": None if times["p_time"] is None else 1,
                "s_index": None if times["s_time"] is None else 2,
                **{name: None if value is None else T0 + round(value * SECOND) for name, value in times.items()},
            }
        )
    schema: dict[str, Any] = {
        "chunk_key": pl.String,
        "outcome": pl.String,
        "network": pl.String,
        "station": pl.String,
        "location": pl.String,
        "channels": pl.List(pl.String),
        "rate_sent_hz": pl.Float64,
        "core_start_ns": pl.Int64,
        "core_stop_ns": pl.Int64,
        "p_index": pl.Int64,
        "s_index": pl.Int64,
        "start": UTC,
        "end": UTC,
        "p_time": UTC,
        "s_time": UTC,
    }
    return pl.DataFrame(plain, schema=schema)


def seconds(merged: pl.DataFrame) -> list[float]:
    return [(time - T0) / SECOND for time in merged["time"].cast(pl.Int64)]


def test_two_windows_that_say_the_same_give_one_pick_at_the_median() -> None:
    merged = merge_picks(rows_of({"p": 40.0, "s": 45.0}, {"p": 40.3, "start": 30.0, "end": 90.0}), 0.5)
    assert merged.columns == [
        "group_id",
        "network",
        "station",
        "location",
        "band",
        "phase",
        "time",
        "count",
        "spread_s",
        "rate_hz",
        "source_chunk_keys",
    ]
    first, second = merged.rows(named=True)
    assert (first["network"], first["station"], first["location"], first["band"]) == ("BW", "RJOB", "", "EH")
    assert (first["phase"], first["count"], first["source_chunk_keys"]) == ("P", 2, ["k0", "k1"])
    assert first["spread_s"] == pytest.approx(0.3)
    assert (second["phase"], second["count"]) == ("S", 1)
    assert seconds(merged) == [40.15, 45.0]
    assert merged["time"].dtype == UTC


def test_the_median_is_exact_to_the_nanosecond() -> None:
    rows = rows_of({"p": 0.0}).with_columns(p_time=pl.lit(T0 + 7).cast(UTC))
    assert merge_picks(rows, 0.5)["time"].cast(pl.Int64).to_list() == [T0 + 7]


def test_phases_stations_and_bands_are_kept_apart() -> None:
    windows: list[dict[str, Any]] = [
        {"p": 40.0, "s": 40.0},
        {"p": 40.0, "station": "RMOA"},
        {"p": 40.0, "channels": ["HHZ"]},
    ]
    assert merge_picks(rows_of(*windows), 0.5)["count"].to_list() == [1, 1, 1, 1]


def test_rows_without_an_answer_give_no_picks() -> None:
    rows = rows_of({"p": 40.0, "outcome": "unparsed"}, {})
    assert merge_picks(rows, 0.5).height == 0
    assert merge_picks(rows, 0.5).schema == merge_picks(rows_of({"p": 1.0}), 0.5).schema


def test_a_pick_in_the_halo_gives_way_to_the_core_that_covers_its_time() -> None:
    first = {"p": 55.0, "core": (0.0, 45.0)}
    neighbour = {"start": 30.0, "end": 90.0, "core": (45.0, 90.0)}
    assert merge_picks(rows_of(first, neighbour), 0.5).height == 0
    assert merge_picks(rows_of(first, {**neighbour, "p": 55.1}), 0.5)["source_chunk_keys"].to_list() == [["k1"]]


def test_a_pick_in_the_halo_stays_where_no_answered_core_covers_it() -> None:
    first = {"p": 55.0, "core": (0.0, 45.0)}
    failed = {"start": 30.0, "end": 90.0, "core": (45.0, 90.0), "outcome": "failed"}
    elsewhere = {"start": 30.0, "end": 90.0, "core": (45.0, 90.0), "station": "RMOA"}
    assert seconds(merge_picks(rows_of(first, failed, elsewhere), 0.5)) == [55.0]


def test_a_long_core_still_covers_after_a_short_one_has_begun_and_ended() -> None:
    windows: list[dict[str, Any]] = [
        {"core": (0.0, 100.0), "end": 100.0},
        {"core": (10.0, 20.0)},
        {"p": 50.0, "core": (15.0, 30.0)},
    ]
    assert merge_picks(rows_of(*windows), 0.5).height == 0


def test_missing_columns_mean_whole_windows_and_one_station() -> None:
    rows = rows_of({"p": 40.0}, {"p": 40.2}).select("chunk_key", "outcome", "p_time", "s_time", source=pl.lit("X.Y..Z"))
    [merged] = merge_picks(rows, 0.5).rows(named=True)
    assert (merged["station"], merged["band"], merged["count"], merged["rate_hz"]) == ("X.Y..Z", "", 2, None)


@pytest.mark.parametrize(
    ("channels", "band"),
    [
        (["HHZ", "HHN"], "HH"),
        (["HHZ", "", None], "HH"),
        (["EHZ", "HHN"], "EH+HH"),
        ([], ""),
        (None, ""),
        ("HHZ, HHN", "HH"),
        (["BW.RJOB..EHZ", "BW.RJOB..HHN", ""], "EH+HH"),
    ],
)
def test_the_band_is_what_the_channel_codes_share(channels: Any, band: str) -> None:
    dtype = pl.String if isinstance(channels, str) else pl.List(pl.String)
    assert band_of(pl.Series([channels, channels], dtype=dtype)).to_list() == [band, band]


WINDOWS = st.lists(
    st.fixed_dictionaries(
        {
            "p": st.none() | st.integers(0, 40).map(lambda tenths: tenths / 10),
            "s": st.none() | st.integers(0, 40).map(lambda tenths: tenths / 10),
            "station": st.sampled_from(["A", "B"]),
            "outcome": st.sampled_from(["ok", "ok", "ok", "failed"]),
        }
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(WINDOWS, st.sampled_from([0.0, 0.1, 0.5, 2.0]), st.randoms(use_true_random=False))
def test_every_pick_lies_in_one_merged_pick_and_no_two_of_these_are_close(
    windows: list[dict[str, Any]], tolerance_s: float, random: Any
) -> None:
    rows = rows_of(*windows)
    merged = merge_picks(rows, tolerance_s)
    shuffled = list(range(rows.height))
    random.shuffle(shuffled)
    assert merge_picks(rows[shuffled], tolerance_s).equals(merged)

    asked = [
        (window["station"], phase.upper(), f"k{number}", window[phase])
        for number, window in enumerate(windows)
        for phase in ("p", "s")
        if window["outcome"] == "ok" and window[phase] is not None
    ]
    given_keys = sorted((station, phase, key) for station, phase, key, _ in asked)
    found = [(row["station"], row["phase"], key) for row in merged.rows(named=True) for key in row["source_chunk_keys"]]
    assert sorted(found) == given_keys
    assert merged["count"].to_list() == merged["source_chunk_keys"].list.len().to_list()
    assert merged["group_id"].n_unique() == merged.height

    at_ns = {(station, phase, key): round(time * SECOND) for station, phase, key, time in asked}
    tolerance_ns = round(tolerance_s * SECOND)
    for _, group in merged.group_by("station", "phase"):
        chains = [
            [at_ns[row["station"], row["phase"], key] for key in row["source_chunk_keys"]]
            for row in group.sort("time").rows(named=True)
        ]
        assert all(later[0] - earlier[-1] > tolerance_ns for earlier, later in pairwise(chains))
        for chain, time in zip(chains, group.sort("time")["time"].cast(pl.Int64), strict=True):
            assert chain[0] <= time - T0 <= chain[-1]
            assert all(0 <= later - earlier <= tolerance_ns for earlier, later in pairwise(chain))


def test_a_group_keeps_its_identity_when_other_windows_are_added() -> None:
    few = merge_picks(rows_of({"p": 40.0}), 0.5)
    more = merge_picks(rows_of({"p": 40.0}, {"p": 50.0}), 0.5)
    assert few["group_id"].to_list() == more["group_id"].to_list()[:1]


def test_quakeflow_names_from_rows_and_from_merged_picks() -> None:
    rows = rows_of({"p": 40.0, "s": 45.0}, {"p": 41.0, "outcome": "unparsed"})
    names = [
        "station_id",
        "phase_time",
        "phase_type",
        "phase_score",
        "phase_index",
        "phase_amplitude",
        "phase_polarity",
        "event_id",
    ]
    single, merged = quakeflow_picks(rows), quakeflow_picks(merge_picks(rows, 0.5))
    assert single.columns == merged.columns == names
    assert single.schema == merged.schema
    assert single["station_id"].to_list() == merged["station_id"].to_list() == ["BW.RJOB..EH"] * 2
    assert single["phase_type"].to_list() == merged["phase_type"].to_list() == ["P", "S"]
    assert single["phase_index"].to_list() == [1, 2]
    assert merged["phase_index"].to_list() == [None, None]
    assert single["phase_time"].equals(merged["phase_time"])
    assert single["phase_score"].null_count() == single.height
    with pytest.raises(UsageError, match="no picks"):
        quakeflow_picks(pl.DataFrame({"a": [1]}))
