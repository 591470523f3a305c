"""Truth is read from the tables and event files that people have, and what is not understood is said."""

from __future__ import annotations

from pathlib import Path

import obspy
import polars as pl
import pytest

from s1batch.errors import UsageError
from s1batch.jobs.scoring.archive_files import ArchiveFiles, Stream
from s1batch.jobs.scoring.matching import Points
from s1batch.jobs.scoring.phases import Phase, onset_phase
from s1batch.jobs.scoring.placing import median_s_minus_p_ns, place_onsets
from s1batch.jobs.scoring.truth import ONSETS, read_truth
from s1batch.times import format_ns

SHIPPED = Path(obspy.__file__).parent
START_NS = 1_577_836_800 * 10**9  # 2020-01-01
FILES = ArchiveFiles.of(
    [
        Stream(path="a/one.mseed", source="XX.ONE..HHZ", start_ns=START_NS, rate_hz=100.0),
        Stream(path="a/one.mseed", source="XX.ONE..HHN", start_ns=START_NS + 10, rate_hz=100.0),
        Stream(path="a/twin.mseed", source="XX.ONE..HHZ", start_ns=START_NS, rate_hz=100.0),
        Stream(path="b/twin.mseed", source="XX.TWO..HHZ", start_ns=START_NS, rate_hz=100.0),
        Stream(path="rates.mseed", source="XX.ONE..HHZ", start_ns=START_NS, rate_hz=100.0),
        Stream(path="rates.mseed", source="XX.ONE..HNZ", start_ns=START_NS, rate_hz=200.0),
    ]
)


def onsets(truth):
    return [(*line[:-1], format_ns(line[-1])) for line in truth.onsets.sort("time_ns", "phase").iter_rows()]


def read(tmp_path, text, name="truth.csv"):
    path = tmp_path / name
    path.write_text(text)
    return read_truth(path, FILES)


class TestTables:
    def test_samples_of_files_of_the_archive(self, tmp_path):
        found = read(tmp_path, "file,p_index,s_index\none.mseed,100,250.5\nabsent.mseed,1,2\n")
        assert onsets(found) == [
            ("XX", "ONE", "", "HH", "P", "2020-01-01T00:00:01Z"),
            ("XX", "ONE", "", "HH", "S", "2020-01-01T00:00:02.505Z"),
        ]
        assert found.unplaced == 2

    def test_samples_from_a_start_time_with_the_rate_of_the_file(self, tmp_path):
        text = "file,network,station,channels,start_time,p_index,s_index\n"
        found = read(tmp_path, text + "one.mseed,BG,ACR,DPE_DPN_DPZ,2012-08-25T05:14:29.600000Z,3000,\n")
        assert onsets(found) == [("BG", "ACR", "", "DP", "P", "2012-08-25T05:14:59.600Z")]

    def test_picks_as_quakeflow_writes_them(self, tmp_path):
        text = (
            "station_id,phase_index,phase_time,phase_score,phase_type\n"
            "CI.CCC..BH,1200,2019-07-04T22:00:12.123456789,0.9,P\n"
            "CI.CCC.10.BHZ,1500,2019-07-05T00:00:15.5+02:00,0.8,S\n"
            "CI.CCC..BH,1500,2019-07-04T22:00:20.0Z,0.8,PmP\n"
        )
        found = read(tmp_path, text)
        assert onsets(found) == [
            ("CI", "CCC", "", "BH", "P", "2019-07-04T22:00:12.123456789Z"),
            ("CI", "CCC", "10", "BH", "S", "2019-07-04T22:00:15.500Z"),
        ]
        assert found.other_phases == 1

    def test_metadata_as_seisbench_writes_them(self, tmp_path):
        text = (
            "trace_name,trace_start_time,trace_sampling_rate_hz,station_network_code,station_code,trace_channel,"
            "trace_Pg_arrival_sample,trace_Pn_arrival_sample,trace_Sg_arrival_sample,trace_PmP_arrival_sample\n"
            '"bucket0$0,:3,:6000",2020-01-01T00:00:00.000000Z,50.0,CH,DAVOX,HH,500.0,450.0,,600\n'
            '"bucket0$1,:3,:6000",2020-01-01T01:00:00.000000Z,50.0,CH,DAVOX,HH,nan,,800.0,\n'
        )
        found = read(tmp_path, text, "metadata.csv")
        assert onsets(found) == [
            ("CH", "DAVOX", "", "HH", "P", "2020-01-01T00:00:09Z"),
            ("CH", "DAVOX", "", "HH", "S", "2020-01-01T01:00:16Z"),
        ]
        # Pg follows Pn, and PmP is no direct wave.
        assert found.other_phases == 2

    def test_times_in_columns_win_over_samples(self, tmp_path):
        found = read(tmp_path, "station;p_index;p_time\nONE;7;2020-01-01 00:00:05\n")
        assert onsets(found) == [("", "ONE", "", "", "P", "2020-01-01T00:00:05Z")]

    def test_seconds_since_1970_and_upper_case_columns(self, tmp_path):
        found = read(tmp_path, "STATION\tPHASE\tTIME\nONE\tS\t1577836800.25\n", "truth.tsv")
        assert onsets(found) == [("", "ONE", "", "", "S", "2020-01-01T00:00:00.250Z")]

    def test_parquet_and_tables_in_memory(self, tmp_path):
        table = pl.DataFrame({"network": ["NA"], "station": ["ONE"], "phase": ["P"], "time": [START_NS]}).with_columns(
            pl.col("time").cast(pl.Datetime("ns"))
        )
        table.write_parquet(tmp_path / "truth.parquet")
        expected = [("NA", "ONE", "", "", "P", "2020-01-01T00:00:00Z")]
        assert onsets(read_truth(tmp_path / "truth.parquet", FILES)) == expected
        assert onsets(read_truth(table, FILES)) == expected

    def test_a_byte_order_mark_and_empty_lines_do_no_harm(self, tmp_path):
        found = read(tmp_path, "\ufeffstation,phase,time\nONE,P,2020-01-01T00:00:00Z\nONE,,\nONE,P,\n")
        assert len(onsets(found)) == 1

    def test_a_table_without_a_line_holds_no_onset(self, tmp_path):
        assert read(tmp_path, "station,phase,time\n").onsets.schema == ONSETS


class TestWhatIsNotUnderstood:
    def test_a_strange_table_is_told_its_columns_and_those_that_are_understood(self, tmp_path):
        with pytest.raises(
            UsageError, match=r"where an onset is .* and when it is .*found: a, b\..*phase_time.*p_index"
        ):
            read(tmp_path, "a,b\n1,2\n")

    def test_a_table_without_times(self, tmp_path):
        with pytest.raises(UsageError, match="does not say when it is"):
            read(tmp_path, "station,phase\nONE,P\n")

    @pytest.mark.parametrize("time", ["yesterday", "2020-13-01T00:00:00", "inf"])
    def test_a_malformed_time_is_named_with_its_line(self, tmp_path, time):
        with pytest.raises(UsageError, match=rf"line 3: '{time}' is no time"):
            read(tmp_path, f"station,phase,time\nONE,P,2020-01-01T00:00:00Z\nONE,P,{time}\n")

    def test_a_malformed_sample_is_named(self, tmp_path):
        with pytest.raises(UsageError, match="'x' is no number"):
            read(tmp_path, "file,p_index\none.mseed,x\n")

    def test_a_sample_without_a_start(self, tmp_path):
        with pytest.raises(UsageError, match="needs a start time and a rate"):
            read(tmp_path, "station,p_index\nONE,5\n")

    @pytest.mark.parametrize(("name", "what"), [("twin.mseed", "files"), ("rates.mseed", "sampling rates")])
    def test_a_file_name_that_is_not_clear(self, tmp_path, name, what):
        with pytest.raises(UsageError, match=f"has 2 {what} by that name"):
            read(tmp_path, f"file,p_index\n{name},5\n")

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00binary"])
    @pytest.mark.parametrize("name", ["truth.csv", "truth.parquet", "truth.xml", "truth"])
    def test_other_files(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match="truth"):
            read_truth(tmp_path / name, FILES)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(UsageError, match="no such file"):
            read_truth(tmp_path / "none.csv", FILES)
        with pytest.raises(UsageError, match="no truth there"):
            read_truth(tmp_path, FILES)


class TestEventFiles:
    def test_quakeml(self):
        found = read_truth(SHIPPED / "io/quakeml/tests/data/quakeml_1.2_pick.xml", FILES)
        assert onsets(found) == [("BW", "FUR", "", "", "P", "2005-09-18T22:04:35Z")]
        assert found.other_phases == 1  # a pick whose phase nobody says

    def test_quakeml_of_a_located_event(self):
        found = read_truth(SHIPPED / "io/nlloc/tests/data/nlloc.qml", FILES)
        assert len(onsets(found)) == 5
        assert onsets(found)[0] == ("", "HM02", "", "", "P", "2006-07-15T17:21:20.630Z")

    def test_nonlinloc(self):
        assert read_truth(SHIPPED / "io/nlloc/tests/data/nlloc.hyp", FILES).onsets.height > 0

    def test_of_one_event_and_station_the_earliest_of_a_wave_counts(self, tmp_path):
        catalogue = obspy.read_events(str(SHIPPED / "io/nlloc/tests/data/nlloc.qml"), format="QUAKEML")
        first, second, third = catalogue[0].picks[:3]
        for pick in (second, third):
            pick.waveform_id = first.waveform_id
        third.time -= 60
        third.evaluation_status = "rejected"
        catalogue.write(str(tmp_path / "picks.xml"), format="QUAKEML")
        found = read_truth(tmp_path / "picks.xml", FILES)
        assert len(onsets(found)) == 3
        assert found.other_phases == 2
        assert onsets(found)[0][-1] == format_ns(first.time.ns)

    def test_a_folder_is_read_as_a_whole(self, tmp_path):
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep/a.csv").write_text("station,phase,time\nONE,P,2020-01-01T00:00:00Z\n")
        source = SHIPPED / "io/quakeml/tests/data/quakeml_1.2_pick.xml"
        (tmp_path / "b.xml").write_bytes(source.read_bytes())
        (tmp_path / "stations.xml").write_text("<FDSNStationXML/>")
        (tmp_path / "notes.txt").write_text("nothing to see")
        found = read_truth(tmp_path, FILES)
        assert len(onsets(found)) == 2
        assert found.skipped == ("stations.xml",)


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("P", "P"),
        ("p", "P"),
        ("Pg", "P"),
        ("PN", "P"),
        ("iP", "P"),
        ("PKIKP", "P"),
        ("S", "S"),
        ("eSg", "S"),
        (" Sn ", "S"),
    ]
    + [(name, None) for name in ("PmP", "pP", "PcP", "sS", "LR", "", "AML", "SP")],
)
def test_phases(name, phase):
    assert onset_phase(name) == phase


class TestPlacing:
    INSTRUMENTS = (("XX", "A", "00", "HH"), ("XX", "A", "10", "HN"), ("YY", "A", "", "HH"), ("", "B", "", "EH"))

    def groups(self, network="", station="A", location="", band=""):
        table = pl.DataFrame([(network, station, location, band, "P", 5)], schema=ONSETS, orient="row")
        placed, elsewhere = place_onsets(table, self.INSTRUMENTS)
        return placed["P"].group.tolist(), elsewhere

    def test_an_onset_belongs_to_every_instrument_of_its_station(self):
        assert self.groups("XX") == ([0, 1], 0)

    def test_a_band_or_location_narrows_where_it_is_known(self):
        assert self.groups("XX", band="HN") == ([1], 0)
        assert self.groups("XX", location="00") == ([0], 0)
        assert self.groups("XX", band="EH") == ([0, 1], 0)

    def test_a_missing_network_is_not_compared(self):
        assert self.groups() == ([0, 1, 2], 0)
        assert self.groups("ZZ", "B") == ([3], 0)

    def test_other_stations_are_counted(self):
        assert self.groups("XX", "C") == ([], 1)
        assert self.groups("ZZ", "A") == ([], 1)

    def test_equal_onsets_count_once(self):
        table = pl.DataFrame([("XX", "A", "00", "", "P", 5)] * 2, schema=ONSETS, orient="row")
        assert len(place_onsets(table, self.INSTRUMENTS)[0]["P"]) == 1


def test_the_median_s_minus_p_pairs_each_p_with_the_next_s():
    def at(*pairs):
        table = pl.DataFrame(pairs, schema=["group", "time"], orient="row")
        return Points(group=table["group"].to_numpy(), time_ns=table["time"].to_numpy())

    # Delays 10, 20 and 40; the P at 300 has no S before the next P, that at 900 none within 100.
    truth: dict[Phase, Points] = {
        "P": at((0, 0), (0, 300), (0, 400), (1, 0), (1, 900)),
        "S": at((0, 10), (0, 420), (1, 40), (1, 1001)),
    }
    assert median_s_minus_p_ns(truth, 100) == 20
    assert median_s_minus_p_ns({"P": at((0, 0)), "S": at((1, 5))}, 100) is None
