"""Scores of anomalies on small cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from s1batch.errors import UsageError
from s1batch.jobs.sensor_anomaly.robust_z import flagged_runs
from s1batch.jobs.sensor_anomaly.score import AnomalyMetrics
from s1batch.records import Series
from tests.jobs.science import as_rows, make_job, measure, values, window
from tests.jobs.sensor_anomaly.test_merge import row

JOB = make_job("sensor-anomaly")


def scored(rows, truth, **options):
    found = measure(AnomalyMetrics(), JOB, as_rows(JOB, rows), truth, **options)
    return found, {table.title.split(":")[-1].strip(): table.lines for table in found.tables}


def times(*spans, source="a"):
    return {
        "source": [source] * len(spans),
        "start": [f"1970-01-01T00:00:{start:02d}Z" for start, _ in spans],
        "end": [f"1970-01-01T00:00:{stop:02d}Z" for _, stop in spans],
    }


class TestOwn:
    def test_points_events_and_windows(self):
        # Said: [2, 6) and [12, 14). True: [4, 8) and [17, 18). Windows of 10 s.
        _, tables = scored([row(0, 0, 10, (2, 6)), row(1, 10, 20, (12, 14))], times((4, 8), (17, 18)))
        points = values(tables["extent of what is anomalous"][0].estimates)
        assert points == {
            "precision": pytest.approx(2 / 6),
            "recall": 0.4,
            "recall over all": 0.4,
            "F1": pytest.approx(2 * 2 / (6 + 5), abs=1e-6),
        }
        events = values(tables["any overlap"][0].estimates)
        assert events == {"precision": 0.5, "recall": 0.5, "recall over all": 0.5, "F1": 0.5}
        # The union of [2, 6) and [4, 8) is 6 s, of which 2 s are shared.
        assert values(tables["IoU >= 0.5"][0].estimates)["F1"] == 0.0
        assert values(tables["windows that hold an anomaly"][0].estimates)["F1"] == 1.0

    def test_an_intersection_of_half_the_union_is_enough(self):
        _, tables = scored([row(0, 0, 10, (2, 6))], times((4, 6)))
        assert values(tables["IoU >= 0.5"][0].estimates)["F1"] == 1.0

    def test_truth_without_an_answer_is_missed_over_all_only(self):
        rows = [{**row(0, 0, 10, (2, 6)), "outcome": "ok"}, {**row(1, 10, 20), "outcome": "failed"}]
        _, tables = scored(rows, times((2, 6), (12, 14)))
        for lines in tables.values():
            estimates = values(lines[0].estimates)
            assert (estimates["recall"], estimates["F1"]) == (1.0, 1.0)
            assert estimates["recall over all"] in (pytest.approx(4 / 6, abs=1e-6), 0.5)

    def test_several_said_in_one_true_event_are_all_right(self):
        _, tables = scored([row(0, 0, 10, (2, 3), (5, 6))], times((1, 8)))
        line = tables["any overlap"][0]
        assert values(line.estimates)["precision"] == 1.0
        assert (line.n, line.counts["said"]) == (1, 2)

    def test_without_anomalies_on_either_side_nothing_is_defined(self):
        _, tables = scored([row(0, 0, 10)], {"source": ["a"], "start": ["1970-01-01T00:01:00Z"], "end": [None]})
        assert set(values(tables["any overlap"][0].estimates).values()) == {None}

    def test_one_stream_resamples_its_windows(self):
        _, tables = scored([row(0, 0, 10, (2, 6)), row(1, 10, 20, (12, 14))], times((2, 6), (17, 18)))
        estimate = tables["any overlap"][0].estimates["precision"]
        assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


class TestTruth:
    def test_samples_count_from_the_first_window_and_the_last_one_is_inside(self):
        rows = [row(0, 5, 15, (6, 8), rate_hz=10.0)]
        truth = {"source": ["a"], "start_index": [10], "end_index": [29]}
        _, tables = scored(rows, truth)
        assert values(tables["extent of what is anomalous"][0].estimates)["F1"] == 1.0

    def test_streams_without_times_count_samples(self):
        _, tables = scored([row(0, 0, 10, (2, 6), timed=False)], {"start_index": [2], "end_index": [5]})
        assert values(tables["extent of what is anomalous"][0].estimates)["F1"] == 1.0

    def test_lines_of_other_streams_are_counted(self):
        found, _ = scored([row(0, 0, 10, (2, 6))], times((2, 6), source="b"))
        assert found.notes == ("truth: 1 lines are of streams that the results do not have",)

    @pytest.mark.parametrize("name", ["a b.zarr/temp", "temp"])
    def test_a_stream_is_named_by_its_source_or_its_variable(self, name):
        rows = [row(0, 0, 10, (2, 6), source="a b.zarr/temp", variable="temp"), row(1, 0, 10, source="x", variable="y")]
        _, tables = scored(rows, times((2, 6), source=name))
        assert values(tables["IoU >= 0.5"][0].estimates)["F1"] == 1.0

    def test_of_several_streams_the_truth_must_name_one(self):
        rows = [row(0, 0, 10), row(1, 0, 10, source="b")]
        with pytest.raises(UsageError, match="no column says which stream an anomaly is in"):
            scored(rows, {"start": ["1970-01-01T00:00:02Z"]})


class TestBaselines:
    def test_flagging_all_finds_all_and_flagging_none_nothing(self):
        rows = [row(0, 0, 10, (2, 6)), row(1, 10, 20)]
        _, tables = scored(rows, times((4, 8)), baselines=("all", "none"))
        own, everything, nothing = tables["windows that hold an anomaly"]
        assert values(everything.estimates) == {
            "precision": 0.5,
            "recall": 1.0,
            "recall over all": 1.0,
            "F1": pytest.approx(2 / 3, abs=1e-6),
        }
        assert values(nothing.estimates) == {"precision": None, "recall": 0.0, "recall over all": 0.0, "F1": 0.0}
        assert values(tables["extent of what is anomalous"][1].estimates)["precision"] == 0.2
        assert own.name == "model"

    def test_robust_z_reads_the_same_windows_again(self):
        record = window(100)
        samples = np.tile(np.array([[0.0], [1.0]], np.float32), (50, 1))
        samples[40:50] = 100
        series = Series(values_TC=samples, rate_hz=10.0, channels=("temp",), units="K")
        record = type(record)(chunk=record.chunk, payload=series, lineage=dict(record.lineage))
        line = {**row(0, 0, 10), "chunk_key": record.chunk.key}
        _, tables = scored([line], times((4, 5)), baselines=("robust_z",), again=lambda keys: iter([record]))
        assert values(tables["IoU >= 0.5"][1].estimates)["F1"] == 1.0
        found, _ = scored([line], times((4, 5)), baselines=("robust_z",))
        assert found.notes == ("robust z-score: 1 answered windows cannot be read any more; none flagged there",)

    def test_far_from_the_median_is_more_than_five_deviations(self):
        # Median 0.5, MAD 0.5: the limit is 5 * 1.4826 * 0.5 = 3.7065 from it.
        samples = np.tile(np.array([0.0, 1.0], np.float32), 50)[:, None]
        samples[10], samples[11], samples[20], samples[21] = 4.2, 4.3, -3.3, -3.2
        assert flagged_runs(samples) == [(11, 12), (20, 21)]

    def test_of_a_constant_all_else_is_far(self):
        samples = np.zeros((10, 2), np.float32)
        samples[3:5, 1] = 1e-3
        assert flagged_runs(samples) == [(3, 5)]
        assert flagged_runs(samples[:0]) == []
