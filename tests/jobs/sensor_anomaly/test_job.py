"""Anomalies are asked for within the window, and placed in time."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import jsonschema
import pytest

from s1batch.errors import JobFileError, SourceError
from s1batch.jobs.template import series_of
from s1batch.records import Chunk, Fields, Record, Response, Slice
from tests.jobs.science import SECOND, SETTINGS, answered, chunk, make_job, window


def interval(start, end, channel=None, kind="spike", **more):
    return {"start_index": start, "end_index": end, "channel": channel, "kind": kind, "reason": "odd", **more}


def said(*intervals, anomalous=True):
    return {"anomalous": anomalous, "intervals": list(intervals)}


class TestQuestion:
    def test_what_all_windows_share_stands_first(self):
        job = make_job("sensor-anomaly")
        texts = []
        for record in (window(100), window(50, long_name="air temperature")):
            message = job.prepare(record, SETTINGS).messages[0]
            assert [type(part).__name__ for part in message.parts] == ["TextPart", "SeriesPart", "TextPart"]
            texts.append((message.parts[0].text, message.parts[2].text))
        assert texts[0][0] == texts[1][0]
        assert "JSON Schema" in texts[0][0]
        assert "100 samples at 10 Hz, channels: temp, wind." in texts[0][1]
        assert '"temp": {"min": 0.0, "mean": 99.0, "max": 198.0' in texts[0][1]
        assert "What is measured: air temperature." in texts[1][1]
        assert "Unit: K." in texts[1][1]

    def test_the_schema_of_a_request_is_bounded_by_its_window(self):
        schema = make_job("sensor-anomaly").prepare(window(100), SETTINGS).schema
        jsonschema.validate(said(interval(0, 99, "wind")), schema)
        for wrong in (interval(0, 100), interval(0, 1, "rain"), interval(0, 1, kind="ghost")):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(said(wrong), schema)

    def test_every_part_of_it_can_be_changed(self):
        job = make_job(
            "sensor-anomaly",
            prompt="Odd?",
            note="{{ steps }}",
            system="Be brief.",
            show_schema=False,
            guided=False,
            kinds=["burst"],
            fields={"severity": {"type": "integer"}},
        )
        request = job.prepare(window(7), SETTINGS)
        assert [message.text for message in request.messages] == ["Be brief.", "Odd?\n\n7"]
        assert request.schema is None
        answer = answered(job, window(7), said(interval(1, 2, kind="burst", severity=3)))
        assert answer.fields["intervals"][0]["severity"] == 3
        assert "severity" in str(job.columns[1].type)

    def test_a_further_field_must_not_hide_a_place(self):
        with pytest.raises(JobFileError, match="'start_time' is a field that this job has already"):
            make_job("sensor-anomaly", fields={"start_time": {"type": "string"}})

    @pytest.mark.parametrize(("count", "what"), [(0, "no series"), (2, "2 series")])
    def test_a_record_needs_one_series(self, count, what):
        series = series_of(window()) * count
        record = Record(chunk=chunk(), payload=Fields(values={}, series=series))
        with pytest.raises(SourceError, match=what):
            make_job("sensor-anomaly").prepare(record, SETTINGS)

    def test_a_row_of_a_table_may_hold_the_series(self):
        series = series_of(window(60))
        values = {"steps": "60", "rate_sent_hz": 10.0, "site": "roof"}
        record = Record(chunk=chunk(), payload=Fields(values=values, series=series))
        job = make_job("sensor-anomaly", prompt="At the {{ site }}?")
        request = job.prepare(record, SETTINGS)
        assert "At the roof?" in request.text
        assert request.series[0].shape.steps == 60
        assert answered(job, record, said(interval(0, 60))).reason == "out_of_range"
        placed = answered(job, record, said(interval(2, 3))).fields["intervals"][0]
        assert (placed["start_time"], placed["start_sample"], placed["end_sample"]) == (None, 2, 4)

    def test_a_job_pickles(self):
        job = make_job("sensor-anomaly")
        assert pickle.loads(pickle.dumps(job)).prompt_hash == job.prompt_hash

    def test_the_hash_knows_the_kinds(self):
        assert make_job("sensor-anomaly").prompt_hash != make_job("sensor-anomaly", kinds=["spike"]).prompt_hash


class TestPlaces:
    def test_intervals_are_placed_in_time_half_open(self):
        answer = answered(make_job("sensor-anomaly"), window(100, start=5 * SECOND), said(interval(10, 19, "temp")))
        (found,) = answer.fields["intervals"]
        assert (found["start_time"], found["end_time"]) == (6 * SECOND, 7 * SECOND)
        assert (found["start_index"], found["end_index"], found["channel"]) == (10, 19, "temp")

    def test_samples_of_the_archive_count_at_the_recorded_rate(self):
        record = window(100, dim="time", start=1000, rate_hz=20.0)
        (found,) = answered(make_job("sensor-anomaly"), record, said(interval(10, 19))).fields["intervals"]
        assert (found["start_sample"], found["end_sample"], found["start_time"]) == (1020, 1040, None)

    def test_arrays_have_samples_and_times(self):
        record = window(100, dim="time", start=1000)
        slices = (*record.chunk.inputs[0].slices, Slice(dim="time_ns", start=7 * SECOND, stop=17 * SECOND))
        address = replace(record.chunk.inputs[0], slices=slices)
        record = replace(record, chunk=Chunk(inputs=(address,)))
        (found,) = answered(make_job("sensor-anomaly"), record, said(interval(10, 19))).fields["intervals"]
        assert (found["start_time"], found["end_time"]) == (8 * SECOND, 9 * SECOND)
        assert (found["start_sample"], found["end_sample"]) == (1010, 1020)

    def test_an_interval_that_reaches_into_the_padding_ends_with_the_data(self):
        record = window(100, pad_frac=0.2)
        (found,) = answered(make_job("sensor-anomaly"), record, said(interval(70, 99))).fields["intervals"]
        assert (found["end_index"], found["end_time"]) == (99, 8 * SECOND)

    @pytest.mark.parametrize(
        ("wrong", "what"),
        [
            (interval(5, 4), "lies before start_index 5"),
            (interval(5, 100), "the window has samples 0 to 99"),
            (interval(80, 90), "lies in the padding"),
            (interval(5, 6, "rain"), "channel 'rain' is none of temp, wind"),
        ],
    )
    def test_an_interval_elsewhere_is_out_of_range(self, wrong, what):
        answer = answered(make_job("sensor-anomaly"), window(100, pad_frac=0.2), said(wrong))
        assert (answer.outcome, answer.reason) == ("unparsed", "out_of_range")
        assert what in answer.detail

    def test_intervals_beside_no_anomaly_are_dropped(self):
        answer = answered(make_job("sensor-anomaly"), window(), said(interval(1, 2), anomalous=False))
        assert answer.outcome == "ok"
        assert answer.fields == {"anomalous": False, "intervals": []}
        assert answer.detail == "1 intervals dropped: anomalous is false"

    def test_intervals_that_are_dropped_are_not_asked_again(self):
        answer = answered(make_job("sensor-anomaly"), window(), said(interval(9, 2), anomalous=False))
        assert (answer.outcome, answer.fields["intervals"]) == ("ok", [])

    def test_a_closer_look_is_worth_it_where_an_interval_lies(self):
        job = make_job("sensor-anomaly")
        fields = answered(job, window(), said(interval(10, 19))).fields
        assert job.places(fields) == ((SECOND, 2 * SECOND),)
        assert job.places({"anomalous": False, "intervals": []}) == ()
        assert job.places({"anomalous": True, "intervals": []}) is None


class TestRepair:
    def repaired(self, wrong):
        job, record = make_job("sensor-anomaly"), window(100, pad_frac=0.2)
        request = job.prepare(record, SETTINGS)
        response = Response(fingerprint="f", text=json.dumps(said(wrong)))
        answer = job.interpret(record, response)
        return job.repair(request, response, answer)

    def test_an_index_outside_goes_back(self):
        again = self.repaired(interval(5, 100))
        assert "the window has samples 0 to 99" in again.messages[-1].text

    def test_one_in_the_padding_does_not(self):
        assert self.repaired(interval(85, 90)) is None
