"""The format is told from the content, and no content is ever executed."""

from __future__ import annotations

import bz2
import gzip
import os
import pickle
from pathlib import Path

import pytest

from s1batch.errors import SourceError
from s1batch.readers.seismic.compressed import unpacked
from s1batch.readers.seismic.detect import detect_format
from tests.readers.seismic.waveforms import OBSPY_IO, T0_NS, write_mseed

SAMPLES = {
    "mseed/tests/data/test.mseed": "MSEED",
    "mseed/tests/data/fullseed.mseed": "MSEED",
    "mseed/tests/data/various_noise_records.mseed": "MSEED",
    "sac/tests/data/LMOW.BHE.SAC": "SAC",
    "sac/tests/data/testxy.sac": "SACXY",
    "gse2/tests/data/loc_RJOB20050831023349.z": "GSE2",
    "gse2/tests/data/loc_STAU20031119011659.z": "GSE1",
    "nied/tests/data/test.knet": "KNET",
    "kinemetrics/tests/data/BI008_MEMA-04823.evt": "KINEMETRICS_EVT",
    "kinemetrics/tests/data/STNA.20020722.044649.evt.gz": "KINEMETRICS_EVT",
    "seisan/tests/data/2001-01-13-1742-24S.KONO__004": "SEISAN",
    "segy/tests/data/1.sgy_first_trace": "SEGY",
    "ascii/tests/data/slist.ascii.bz2": "SLIST",
    "ascii/tests/data/tspair.ascii.gz": "TSPAIR",
    "gcf/tests/data/20160603_1955n.gcf": "GCF",
    "reftek/tests/data/225051000_00008656": "REFTEK130",
}


@pytest.mark.parametrize(("name", "expected"), SAMPLES.items())
def test_obspys_samples_are_recognised_under_any_name(tmp_path: Path, name: str, expected: str) -> None:
    source = OBSPY_IO / name
    copy = tmp_path / f"x[1]*.mseed{source.suffix if source.suffix in ('.gz', '.bz2') else ''}"
    copy.write_bytes(source.read_bytes())
    assert detect_format(str(copy)) == expected


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_of_miniseed_are_recognised(tmp_path: Path, version: int) -> None:
    path = write_mseed(tmp_path / "x", [("XX.A..BHZ", T0_NS, 100.0, 50)], version)
    assert detect_format(str(path)) == "MSEED"
    for name, pack in (("x.gz", gzip.compress), ("x.bz2", bz2.compress)):
        (tmp_path / name).write_bytes(pack(path.read_bytes()))
        assert detect_format(str(tmp_path / name)) == "MSEED"


class Bomb:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_never_executed(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "executed"
    path = tmp_path / "evil.mseed"
    path.write_bytes(pickle.dumps(Bomb(str(target)), protocol))
    with pytest.raises(SourceError) as caught:
        detect_format(str(path))
    assert caught.value.reason == "unknown_format"
    assert not target.exists()


def test_what_is_no_waveform_file_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "empty.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "text.mseed").write_text("These are not the samples you are looking for.\n" * 100)
    (tmp_path / "zeros.mseed").write_bytes(bytes(4096))
    (tmp_path / "torn.gz").write_bytes(gzip.compress(os.urandom(10_000))[:5000])
    (tmp_path / "fake.gz").write_bytes(b"no gzip")
    reasons = {}
    for name in ("empty", "empty.gz", "text.mseed", "zeros.mseed", "torn.gz", "fake.gz", "absent", "."):
        with pytest.raises(SourceError) as caught:
            detect_format(str(tmp_path / name))
        reasons[name] = caught.value.reason
    assert reasons == {
        "empty": "empty_file",
        "empty.gz": "empty_file",
        "text.mseed": "unknown_format",
        "zeros.mseed": "unknown_format",
        "torn.gz": "not_readable",
        "fake.gz": "not_readable",
        "absent": "not_readable",
        ".": "not_readable",
    }


def test_a_file_whose_first_record_is_damaged_is_still_miniseed(tmp_path: Path) -> None:
    path = write_mseed(tmp_path / "x", [("XX.A..BHZ", T0_NS, 100.0, 5000)], 2)
    path.write_bytes(b"\x01" * 100 + path.read_bytes()[100:])
    assert detect_format(str(path)) == "MSEED"


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(10_000_000)))
    with (
        pytest.raises(SourceError, match="more than 1000000 bytes"),
        unpacked(str(tmp_path / "bomb.gz"), limit_bytes=1_000_000),
    ):
        pass
