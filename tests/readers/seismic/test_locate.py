"""The files of a source: globs, SDS archives and manifests, whatever the names."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from s1batch.errors import SourceError, UsageError
from s1batch.paths import encode_path
from s1batch.readers.seismic.locate import locate, resolve, root_folder
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.records import Address


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(base: Path, **source: object) -> list[str]:
    return [file.name for file in locate(SeismicSource.model_validate({"kind": "seismic", **source}), base)]


def test_globs_are_relative_sorted_and_without_repeats(tmp_path: Path) -> None:
    touch(tmp_path / "a/b/2.mseed", tmp_path / "a/1.mseed", tmp_path / "a/.hidden.mseed", tmp_path / "a/note.txt")
    (tmp_path / "a/folder.mseed").mkdir()
    assert names(tmp_path, paths=["a/**/*.mseed", "a/*.mseed", "a/1.mseed"]) == ["1.mseed", "b/2.mseed"]
    assert names(tmp_path, paths=["a/**"]) == ["1.mseed", "b/2.mseed", "note.txt"]
    assert names(tmp_path, paths=["a/[0-9].mseed"]) == ["1.mseed"]


def test_the_root_is_the_deepest_folder_that_patterns_share(tmp_path: Path) -> None:
    touch(tmp_path / "x/a/1.mseed", tmp_path / "x/b/2.mseed")
    spec = SeismicSource(kind="seismic", paths=("x/a/*.mseed", "x/b/2.mseed"))
    assert root_folder(spec, tmp_path) == str(tmp_path / "x")
    assert names(tmp_path, paths=["x/a/*.mseed", "x/b/2.mseed"]) == ["a/1.mseed", "b/2.mseed"]
    assert names(tmp_path, paths=["x/a/*.mseed"], root=".") == ["x/a/1.mseed"]
    assert names(tmp_path / "x", paths=[str(tmp_path / "x/a/*.mseed")]) == ["1.mseed"]


def test_a_file_outside_of_the_root_is_a_usage_error(tmp_path: Path) -> None:
    touch(tmp_path / "a/1.mseed", tmp_path / "b/2.mseed")
    with pytest.raises(UsageError, match=r"outside of the root .* set source\.root"):
        names(tmp_path, paths=["a/*.mseed", "b/*.mseed"], root="a")


def test_links_that_lead_back_up_end(tmp_path: Path) -> None:
    touch(tmp_path / "a/b/1.mseed")
    (tmp_path / "a/b/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/self").symlink_to(tmp_path / "a/self")
    (tmp_path / "a/0link").symlink_to(tmp_path / "a/b")
    assert names(tmp_path, paths=["a/**/*.mseed"]) == ["b/1.mseed"]


def test_a_folder_behind_a_link_is_entered(tmp_path: Path) -> None:
    touch(tmp_path / "disk2/1.mseed")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/2024").symlink_to(tmp_path / "disk2")
    assert names(tmp_path, paths=["a/**/*.mseed"]) == ["2024/1.mseed"]


@pytest.mark.parametrize(
    "raw", [b"a b.mseed", b"new\nline.mseed", b"\xff\xfe.mseed", b"back\\slash.mseed", b"[1].mseed"]
)
def test_any_name_leads_to_an_address_and_back(tmp_path: Path, raw: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"[base]", raw)
    os.mkdir(os.path.dirname(path))
    with open(path, "wb") as stream:
        stream.write(b"x")
    base = tmp_path / "[base]"
    spec = SeismicSource(kind="seismic", paths=("*.mseed",))
    (file,) = locate(spec, base)
    file.name.encode()
    address = Address(root="archive", path=file.name)
    assert resolve(spec, base, address) == file.path == os.fsdecode(path)


def test_an_address_cannot_lead_out_of_the_root(tmp_path: Path) -> None:
    spec = SeismicSource(kind="seismic", paths=("a/*.mseed",))
    for path in ("../b", "/etc/passwd", "x/../../y", ""):
        with pytest.raises(SourceError, match="no file below"):
            resolve(spec, tmp_path, Address(root="archive", path=path))


def test_a_missing_file_and_a_broken_link_stay_in_the_list(tmp_path: Path) -> None:
    (tmp_path / "gone.mseed").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path, paths=["*.mseed", "absent.mseed"]) == ["absent.mseed", "gone.mseed"]


def test_no_match_and_a_plain_folder_are_usage_errors(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UsageError, match="matches no file"):
        names(tmp_path, paths=["a/*.mseed"])
    with pytest.raises(UsageError, match=r"a is a folder; write a/\*\*/\*"):
        names(tmp_path, paths=["a"])


def sds_name(net: str, sta: str, loc: str, cha: str, year: int, day: int) -> str:
    return f"{year}/{net}/{sta}/{cha}.D/{net}.{sta}.{loc}.{cha}.D.{year}.{day:03d}"


def test_an_sds_archive_is_pruned_by_name_to_a_day(tmp_path: Path) -> None:
    all_names = [
        sds_name("BW", "RJOB", loc, cha, year, day)
        for loc in ("", "00")
        for cha in ("EHZ", "LOG")
        for year, day in ((2022, 365), (2023, 1), (2023, 2), (2023, 3), (2023, 4), (2024, 1))
    ]
    touch(*(tmp_path / name for name in all_names))
    touch(tmp_path / "2023/BW/RJOB/EHZ.D/oddly_named", tmp_path / "2023/BW/RJOB/EHZ.L/log", tmp_path / "lost/file")
    found = names(
        tmp_path,
        sds=".",
        channel=["EH?"],
        location=["--"],
        starttime="2023-01-02T00:00:00",
        endtime="2023-01-02T12:00:00Z",
    )
    wanted = [sds_name("BW", "RJOB", "", "EHZ", 2023, day) for day in (1, 2, 3)]
    assert found == [*wanted, "2023/BW/RJOB/EHZ.D/oddly_named"]
    across = names(tmp_path, sds=".", channel=["EHZ"], location=["00"], endtime="2023-01-01")
    assert across == [sds_name("BW", "RJOB", "00", "EHZ", y, d) for y, d in ((2022, 365), (2023, 1), (2023, 2))] + [
        "2023/BW/RJOB/EHZ.D/oddly_named"
    ]
    assert len(names(tmp_path, sds=".")) == len(all_names) + 1


def test_a_manifest_is_csv_or_parquet_with_a_column_path(tmp_path: Path) -> None:
    touch(tmp_path / "data/a.mseed", tmp_path / "data/line\nbreak.mseed")
    rows = {"path": ["data/a.mseed", "data/line\nbreak.mseed", str(tmp_path / "data/a.mseed")], "magnitude": [1, 2, 3]}
    pl.DataFrame(rows).write_csv(tmp_path / "list.csv")
    pl.DataFrame(rows).write_parquet(tmp_path / "list.parquet")
    for manifest in ("list.csv", "list.parquet"):
        assert names(tmp_path, manifest=manifest) == ["data/a.mseed", "data/line\nbreak.mseed"]


def test_a_manifest_names_undecodable_files_in_their_encoding(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff.mseed")
    with open(path, "wb") as stream:
        stream.write(b"x")
    pl.DataFrame({"path": [encode_path(os.fsdecode(b"\xff.mseed"))]}).write_csv(tmp_path / "list.csv")
    spec = SeismicSource(kind="seismic", manifest="list.csv")
    assert [file.path for file in locate(spec, tmp_path)] == [os.fsdecode(path)]


def test_a_manifest_that_cannot_be_used_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("file,x\na,1\n")
    (tmp_path / "hole.csv").write_text("path,x\na,1\n,2\n")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(UsageError, match="no column `path`; it has file, x"):
        names(tmp_path, manifest="other.csv")
    with pytest.raises(UsageError, match="row 2"):
        names(tmp_path, manifest="hole.csv")
    for manifest in ("bad.parquet", "absent.csv"):
        with pytest.raises(UsageError, match="cannot be read"):
            names(tmp_path, manifest=manifest)
