"""The plan lists what every window draws from, and the inventory adds up to the archive."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from s1batch.errors import SourceError, UsageError
from s1batch.paths import encode_path
from s1batch.readers.seismic.margin import margin_ns
from s1batch.readers.seismic.scan import scan_file
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.records import InventoryItem, PlanEntry
from tests.readers.seismic.waveforms import DAY_NS, OBSPY_IO, T0_NS, Segment, mseed_bytes, plan, samples, write_mseed

S = 10**9


def channels(
    codes: str, start_ns: int = T0_NS, rate_hz: float = 100.0, count: int = 1000, station: str = "A"
) -> list[Segment]:
    return [(f"XX.{station}..BH{code}", start_ns, rate_hz, count) for code in codes]


def spans(entries: list[PlanEntry]) -> list[tuple[float, float]]:
    """Start and stop of each chunk in seconds after T0."""
    return [((e.chunk.start - T0_NS) / S, (e.chunk.stop - T0_NS) / S) for e in entries]  # type: ignore[operator]


def sources(entry: PlanEntry) -> list[str]:
    return [address.source[-1] for address in entry.chunk.inputs]


def by_status(items: list[InventoryItem]) -> Counter[tuple[str, str, str]]:
    found: Counter[tuple[str, str, str]] = Counter()
    for item in items:
        found[item.status, item.reason, item.unit] += item.count
    return found


def test_windows_hold_the_components_in_the_order_asked_for(tmp_path: Path) -> None:
    write_mseed(tmp_path / "x.mseed", channels("ENZ"))
    items, entries = plan(tmp_path, window={"length": "4s", "overlap": "1s"})
    assert spans(entries) == [(0, 4), (3, 7), (6, 10)]
    assert all(sources(entry) == ["Z", "N", "E"] for entry in entries)
    (address, *_) = entries[0].chunk.inputs
    assert (address.source, address.root, address.path, address.rate_hz) == ("XX.A..BHZ", "archive", "x.mseed", 100.0)
    shape = entries[0].series
    assert shape is not None
    assert (shape.steps, shape.channels, shape.rate_hz) == (400, 3, 100.0)
    assert entries[0].label == "XX.A..BH?"
    assert samples(items, "selected") == samples(items) == 3000
    assert {item.status for item in items} == {"selected"}
    assert 0 < entries[0].nbytes < (tmp_path / "x.mseed").stat().st_size


def test_a_window_across_midnight_lists_both_files(tmp_path: Path) -> None:
    start_ns = T0_NS + DAY_NS - 10 * S
    for name, offset in (("day1", 0), ("day2", 10 * S)):
        write_mseed(tmp_path / f"{name}.mseed", channels("Z", start_ns + offset))
    items, entries = plan(tmp_path, components="Z", window={"length": "15s"})
    assert [[address.path for address in entry.chunk.inputs] for entry in entries] == [
        ["day1.mseed", "day2.mseed"],
        ["day1.mseed", "day2.mseed"],
    ]
    assert all(entry.gap_frac == 0 for entry in entries)
    assert samples(items, "selected") == 2000


def test_of_the_same_data_in_two_files_the_first_in_file_order_wins(tmp_path: Path) -> None:
    write_mseed(tmp_path / "b.mseed", channels("Z", count=1500))
    write_mseed(tmp_path / "a.mseed", channels("Z", T0_NS + 5 * S, count=500))
    items, entries = plan(tmp_path, components="Z", window={"length": "15s"})
    assert [(item.path, item.status, item.count) for item in items] == [
        ("a.mseed", "selected", 500),
        ("b.mseed", "selected", 500),
        ("b.mseed", "duplicate", 500),
        ("b.mseed", "selected", 500),
    ]
    (entry,) = entries
    assert [address.path for address in entry.chunk.inputs] == ["a.mseed", "b.mseed"]
    assert entry.gap_frac == 0


def test_data_twice_in_one_file_and_out_of_order_are_counted_once(tmp_path: Path) -> None:
    data = mseed_bytes(channels("Z", count=5000), 2)
    records = [data[i : i + 512] for i in range(0, len(data), 512)]
    (tmp_path / "x.mseed").write_bytes(b"".join([*records[::-1], *records[2:4]]))
    items, entries = plan(tmp_path, components="Z", window={"length": "10s"})
    assert samples(items, "selected") == 5000
    assert samples(items, "duplicate") > 500
    assert spans(entries) == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)]
    assert all(entry.gap_frac == 0 and len(entry.chunk.inputs) == 1 for entry in entries)


def test_a_short_gap_is_bridged_and_counted_and_a_long_one_starts_anew(tmp_path: Path) -> None:
    offsets = (0, 12 * S, 100 * S + 3_000_000)
    write_mseed(tmp_path / "x.mseed", [s for o in offsets for s in channels("Z", T0_NS + o)])
    _, entries = plan(tmp_path, components="Z", window={"length": "8s", "max_gap_frac": 0.2})
    assert spans(entries) == [(0, 8), (8, 16), (14, 22), (100.003, 108.003), (102.003, 110.003)]
    assert [entry.gap_frac for entry in entries] == [0, 0.25, 0, 0, 0]
    assert [entry.refusal.reason if entry.refusal else None for entry in entries] == [None, "gap_too_large"] + [
        None
    ] * 3


def test_a_gap_of_years_costs_nothing(tmp_path: Path) -> None:
    write_mseed(tmp_path / "x.mseed", channels("Z") + channels("Z", T0_NS + 9000 * DAY_NS))
    _, entries = plan(tmp_path, components="Z", window={"length": "5s"})
    assert len(entries) == 4


def test_a_missing_component_is_absent_or_refused(tmp_path: Path) -> None:
    write_mseed(tmp_path / "x.mseed", channels("ZN") + channels("E", T0_NS + 5 * S, count=500))
    _, entries = plan(tmp_path, window={"length": "5s"})
    assert [sources(entry) for entry in entries] == [["Z", "N"], ["Z", "N", "E"]]
    assert all(entry.refusal is None and entry.gap_frac == 0 for entry in entries)
    _, entries = plan(tmp_path, missing="refuse", window={"length": "5s"})
    refusal = entries[0].refusal
    assert refusal is not None
    assert (refusal.outcome, refusal.reason) == ("refused", "missing_component")
    assert "E" in refusal.detail
    assert entries[1].refusal is None


def test_what_is_not_asked_for_is_counted_as_not_selected(tmp_path: Path) -> None:
    write_mseed(tmp_path / "x.mseed", [*channels("ZNEF", count=100), ("XX.B..BHZ", T0_NS, 100.0, 70)])
    items, entries = plan(tmp_path, station=["A"])
    assert by_status(items) == {
        ("selected", "", "samples"): 300,
        ("not_selected", "component", "samples"): 100,
        ("not_selected", "channel", "samples"): 70,
    }
    assert len(entries) == 1


def test_a_range_of_time_cuts_between_samples(tmp_path: Path) -> None:
    write_mseed(tmp_path / "x.mseed", channels("Z"))
    items, entries = plan(
        tmp_path,
        components="Z",
        starttime="2023-11-15T00:00:02",
        endtime="2023-11-15T00:00:06.005Z",
        window={"length": "4s"},
    )
    assert by_status(items) == {("selected", "", "samples"): 401, ("not_selected", "time_range", "samples"): 599}
    assert spans(entries) == [(2, 6), (2.01, 6.01)]
    with pytest.raises(UsageError, match="must be later"):
        plan(tmp_path, starttime="2024-01-02", endtime="2024-01-01")


def test_jitter_of_the_rate_stays_one_group_and_a_change_makes_two(tmp_path: Path) -> None:
    write_mseed(tmp_path / "a.mseed", channels("Z", count=1000))
    write_mseed(tmp_path / "b.mseed", channels("Z", T0_NS + 10 * S, rate_hz=100.002, count=500))
    write_mseed(tmp_path / "c.mseed", channels("Z", T0_NS + 15 * S, rate_hz=50.0, count=500))
    items, entries = plan(tmp_path, components="Z", window={"length": "5s"})
    assert samples(items, "selected") == 2000
    assert [(entry.chunk.inputs[0].rate_hz, entry.series.steps) for entry in entries if entry.series] == [
        (100.0, 500),
        (100.0, 500),
        (100.0, 500),
        (50.0, 250),
        (50.0, 250),
    ]


def test_n_and_1_at_one_time_do_not_meet_in_one_window(tmp_path: Path) -> None:
    write_mseed(tmp_path / "x.mseed", channels("ZNE12", count=100))
    items, entries = plan(tmp_path)
    assert {entry.label: sources(entry) for entry in entries} == {
        "XX.A..BH?": ["Z", "N", "E"],
        "XX.A..BH[12]": ["1", "2"],
    }
    assert samples(items, "selected") == 500


def test_a_station_that_was_renamed_stays_one_group(tmp_path: Path) -> None:
    write_mseed(tmp_path / "x.mseed", channels("12") + channels("NE", T0_NS + 10 * S) + channels("Z", count=2000))
    _, entries = plan(tmp_path, window={"length": "10s"})
    assert [sources(entry) for entry in entries] == [["Z", "1", "2"], ["Z", "N", "E"]]


def test_the_grid_runs_at_the_rate_that_is_sent(tmp_path: Path) -> None:
    write_mseed(tmp_path / "x.mseed", channels("Z", rate_hz=100.0, count=6000))
    for sent_hz, steps in ((50.0, 1500), (200.0, 6000), (30.0, 900)):
        _, entries = plan(tmp_path, components="Z", rate_hz=sent_hz, window={"length": "30s"})
        assert spans(entries) == [(0, 30), (30, 60)]
        assert [entry.series.steps for entry in entries if entry.series] == [steps, steps]
        assert {address.rate_hz for entry in entries for address in entry.chunk.inputs} == {100.0}


def test_strong_decimation_leaves_no_sample_behind_the_last_window(tmp_path: Path) -> None:
    write_mseed(tmp_path / "x.mseed", channels("Z", count=250))
    _, entries = plan(tmp_path, components="Z", rate_hz=1.0, window={"length": 10, "tail": "short"})
    assert spans(entries) == [(0, 3)]


def test_processing_lists_the_files_of_its_margin(tmp_path: Path) -> None:
    for i in range(4):
        write_mseed(tmp_path / f"{i}.mseed", channels("Z", T0_NS + 100 * i * S, count=10_000))
    settings: dict[str, object] = {"components": "Z", "filter": {"type": "highpass", "freqmin_hz": 1.0}}
    spec = SeismicSource.model_validate({"kind": "seismic", "paths": ["*.mseed"], **settings})
    margin_s = margin_ns(spec, 100.0) / S
    assert 0 < margin_s < 40
    _, entries = plan(tmp_path, window={"length": "50s"}, **settings)
    listed = {
        start: [int(address.path[0]) for address in entry.chunk.inputs]
        for entry, (start, _) in zip(entries, spans(entries), strict=True)
    }
    for start, files in listed.items():
        wanted = [i for i in range(4) if 100 * i < start + 50 + margin_s and 100 * (i + 1) > start - margin_s]
        assert files == wanted
        assert entries[0].chunk.stop == T0_NS + 50 * S


def test_padding_is_part_of_the_window_and_no_gap(tmp_path: Path) -> None:
    write_mseed(tmp_path / "x.mseed", channels("Z"))
    _, entries = plan(tmp_path, components="Z", window={"length": "6s", "tail": "pad", "max_gap_frac": 0.0})
    assert spans(entries) == [(0, 6), (6, 12)]
    assert [entry.gap_frac for entry in entries] == [0, 0]
    assert [entry.refusal for entry in entries] == [None, None]
    assert entries[1].chunk.core == (T0_NS + 6 * S, T0_NS + 10 * S)


def test_blinding_shrinks_the_core_at_inner_edges_only(tmp_path: Path) -> None:
    write_mseed(tmp_path / "x.mseed", channels("Z"))
    _, entries = plan(tmp_path, components="Z", window={"length": "4s", "overlap": "1s", "blinding": "0.5s"})
    cores = [entry.chunk.core for entry in entries]
    assert [(c[0] - T0_NS, c[1] - T0_NS) for c in cores if c] == [
        (0, 3.5 * S),
        (3.5 * S, 6.5 * S),
        (6.5 * S, 10 * S),
    ]


def test_files_that_cannot_be_read_are_an_item_and_a_refused_chunk(tmp_path: Path) -> None:
    write_mseed(tmp_path / "good.mseed", channels("Z"))
    (tmp_path / "empty.mseed").touch()
    (tmp_path / "text.mseed").write_text("hello " * 100)
    (tmp_path / "torn.mseed.gz").write_bytes(gzip.compress(os.urandom(9000))[:4000])
    name = os.path.join(os.fsencode(tmp_path), b"\xff bad\n.mseed")
    with open(name, "wb") as stream:
        stream.write(b"\xfe" * 33)
    items, entries = plan(tmp_path, components="Z", paths=["*.mseed*", "absent.mseed"], window={"length": "10s"})
    unreadable = {item.path: (item.reason, item.unit, item.count) for item in items if item.status == "unreadable"}
    assert unreadable == {
        "absent.mseed": ("source_missing", "bytes", 0),
        "empty.mseed": ("empty_file", "bytes", 0),
        "text.mseed": ("unknown_format", "bytes", 600),
        "torn.mseed.gz": ("not_readable", "bytes", 4000),
        encode_path(os.fsdecode(b"\xff bad\n.mseed")): ("unknown_format", "bytes", 33),
    }
    refused = {entry.chunk.inputs[0].path: entry for entry in entries if entry.refusal}
    assert set(refused) == set(unreadable)
    for path, entry in refused.items():
        (address,) = entry.chunk.inputs
        assert [(part.dim, part.start, part.stop) for part in address.slices] == [("bytes", 0, unreadable[path][2])]
        assert entry.refusal is not None
        assert (entry.refusal.outcome, entry.refusal.reason) == ("unreadable", unreadable[path][0])
        assert str(tmp_path) not in entry.refusal.detail
    assert len(entries) == len(refused) + 1


def test_a_damaged_stretch_costs_its_bytes_and_has_its_own_row(tmp_path: Path) -> None:
    data = bytearray(mseed_bytes(channels("Z", count=5000), 2))
    data[1024:1536] = b"\x55" * 512
    (tmp_path / "x.mseed").write_bytes(data)
    items, entries = plan(tmp_path, components="Z", window={"length": "10s"})
    (bad,) = (item for item in items if item.status == "unreadable")
    assert (bad.unit, bad.count, bad.reason) == ("bytes", 512, "not_readable")
    (row,) = (entry for entry in entries if entry.refusal)
    assert row.chunk.inputs[0].slices[0].start == 1024
    lost = 5000 - samples(items, "selected")
    assert 0 < lost < 1000
    gaps = sum(round(entry.gap_frac * entry.series.steps) for entry in entries if entry.series)
    assert gaps == lost


def test_a_wrong_window_is_told_before_a_file_is_opened(tmp_path: Path) -> None:
    for window in ({"length": "60s", "overlap": "10s", "blinding": "6s"}, {"length": "max"}, {"blinding": "20%"}):
        with pytest.raises(UsageError, match=r"window\."):
            plan(tmp_path / "absent", window=dict(window))


def test_hash_and_identity_are_recorded(tmp_path: Path) -> None:
    import hashlib

    path = write_mseed(tmp_path / "x.mseed", channels("Z"))
    items, _ = plan(tmp_path, components="Z")
    assert (items[0].size, items[0].mtime_ns, items[0].sha256) == (path.stat().st_size, path.stat().st_mtime_ns, "")
    items, _ = plan(tmp_path, components="Z", hash=True)
    assert items[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_sds_archive_is_planned_per_station_with_days_joined(tmp_path: Path) -> None:
    for station in ("A", "B"):
        for code in "ZNE":
            for day in (318, 319, 320):
                name = f"2023/XX/{station}/BH{code}.D/XX.{station}..BH{code}.D.2023.{day}"
                start_ns = T0_NS + (day - 319) * DAY_NS
                write_mseed(tmp_path / name, [(f"XX.{station}..BH{code}", start_ns, 1.0, 86_400)])
    items, entries = plan(tmp_path, sds=".", window={"length": "10h"})
    assert samples(items, "selected") == samples(items) == 2 * 3 * 3 * 86_400
    assert Counter(entry.label for entry in entries) == {"XX.A..BH?": 8, "XX.B..BH?": 8}
    assert [entry.label for entry in entries] == sorted(entry.label for entry in entries)
    assert max(len(entry.chunk.inputs) for entry in entries) == 6
    items, entries = plan(
        tmp_path, sds=".", station=["A"], starttime="2023-11-15", endtime="2023-11-16", window={"length": "24h"}
    )
    assert samples(items, "selected") == 3 * 86_400
    assert len(entries) == 1


def test_an_sds_tree_moved_elsewhere_keeps_its_chunk_keys(tmp_path: Path) -> None:
    keys = []
    for base in ("old", "new/place"):
        name = "2023/XX/A/BHZ.D/XX.A..BHZ.D.2023.319"
        write_mseed(tmp_path / base / name, [("XX.A..BHZ", T0_NS, 1.0, 1000)])
        _, entries = plan(tmp_path, sds=base, components="Z")
        keys.append([entry.chunk.key for entry in entries])
    assert keys[0] == keys[1]


def test_the_plan_does_not_depend_on_the_hash_seed_or_the_order_of_the_folder(tmp_path: Path) -> None:
    names = ["c", "a", "d", "b"]
    for base, order in (("x", names), ("y", names[::-1])):
        for name in order:
            station = name.upper()
            write_mseed(tmp_path / base / f"{name}.mseed", channels("E1Z2N", count=250, station=station))
    program = (
        "import sys; from pathlib import Path; from tests.readers.seismic.waveforms import plan\n"
        "from dataclasses import replace\n"
        "items, entries = plan(Path(sys.argv[1]))\n"
        "print([(i.path, i.source, i.status, i.count) for i in items], [(e.chunk.key, e.label) for e in entries])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / base)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for base, seed in (("x", "0"), ("y", "1"), ("x", "77"))
    }
    assert len(printed) == 1
    assert len(printed.pop()) > 1000


FORMATS = ["ah", "alsep", "cybershake", "dmx", "gcf", "gse2", "kinemetrics", "mseed", "nied", "pdas", "reftek", "rg16"]
FORMATS += ["sac", "segy", "seisan", "wav", "win", "y"]


@pytest.mark.parametrize("folder", FORMATS)
def test_the_account_of_obspys_samples_balances(folder: str) -> None:
    data = OBSPY_IO / folder / "tests" / "data"
    items, entries = plan(data, paths=["*"], aliases={"0": "Z"}, window={"length": "10s"})
    held: Counter[str] = Counter()
    unreadable = set()
    for path in data.iterdir():
        if path.is_file() and not path.name.startswith("."):
            try:
                held[encode_path(path.name)] = sum(segment.samples for segment in scan_file(str(path)).segments)
            except SourceError:
                unreadable.add(encode_path(path.name))
    counted: Counter[str] = Counter()
    for item in items:
        counted[item.path] += item.count if item.unit == "samples" else 0
    assert {name: count for name, count in counted.items() if count} == {n: c for n, c in held.items() if c}
    assert unreadable <= {item.path for item in items if item.status == "unreadable"}
    assert {item.path for item in items} == set(held) | unreadable
    assert len({entry.chunk.key for entry in entries}) == len(entries)


def test_spellings_of_one_code_in_one_time_each_get_their_own_windows(tmp_path: Path) -> None:
    segments = [(f"XX.A..{code}", T0_NS, 100.0, 100) for code in ("BHZ", "BhZ", "bHZ", "bhz")]
    write_mseed(tmp_path / "x.mseed", segments)
    items, entries = plan(tmp_path, components="Z")
    assert samples(items, "selected") == 400
    assert {entry.chunk.inputs[0].source for entry in entries} == {segment[0] for segment in segments}


def test_a_file_without_samples_is_named_and_counts_nothing(tmp_path: Path) -> None:
    data = bytearray(mseed_bytes(channels("Z", count=100), 2)[:512])
    data[30:32] = b"\x00\x00"
    (tmp_path / "x.mseed").write_bytes(data)
    items, entries = plan(tmp_path)
    assert [(item.path, item.status, item.reason, item.count) for item in items] == [
        ("x.mseed", "not_selected", "no_samples", 0)
    ]
    assert entries == []


def test_control_headers_of_a_full_seed_volume_are_metadata(tmp_path: Path) -> None:
    path = tmp_path / "x.mseed"
    path.write_bytes((OBSPY_IO / "mseed/tests/data/fullseed.mseed").read_bytes())
    items, _ = plan(tmp_path, components="Z", aliases={"E": "Z", "N": "Z"})
    counts = by_status(items)
    assert counts["not_selected", "control_headers", "bytes"] > 0
    assert samples(items) == 1835
