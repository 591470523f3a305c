"""Which files are read, what stands beside them, and what leads out of their folder."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import polars as pl
import pytest

from s1batch.errors import JobFileError
from s1batch.records import Fields
from tests.readers.images.pictures import colours, planned, reader_of, record_of, records, saved

PNG = saved(colours(40, 30), "PNG")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "deep").mkdir(parents=True)
    for name in ("a.png", "b.png", "deep/c.png"):
        (root / name).write_bytes(PNG)
    (tmp_path / "outside.png").write_bytes(PNG)
    return root


def values_of(record) -> dict:
    assert isinstance(record.payload, Fields), record.refusal
    return dict(record.payload.values)


def test_a_folder_a_glob_and_a_list_name_the_same_files(folder: Path) -> None:
    wanted = ["a.png", "b.png", "deep/c.png"]
    for path in (".", "**/*.png", ["a.png", "b.png", "deep"]):
        assert list(reader_of(folder, paths=path).files()) == wanted


def test_names_stay_the_same_from_another_folder(folder: Path) -> None:
    """Addresses are relative to the root, so results can be moved with their archive."""
    (entry, *_), _ = planned(reader_of(folder.parent, paths="pictures/deep", root="pictures"))
    assert entry.chunk.inputs[0].path == "deep/c.png"
    with pytest.raises(JobFileError, match="does not lie below"):
        planned(reader_of(folder.parent, paths="pictures", root="pictures/deep"))


def test_nothing_found_is_said(folder: Path) -> None:
    for path in ("*.jpg", "none"):
        with pytest.raises(JobFileError, match="matches no file"):
            planned(reader_of(folder, paths=path))


class TestSidecars:
    def test_captions_and_metadata_are_joined(self, folder: Path) -> None:
        (folder / "a.txt").write_text("\ufeffA thin section.\n")
        (folder / "a.json").write_text('{"magnification": 40, "tags": ["olivine"]}')
        (folder / "a.csv").write_text('site,"depth, m"\nB2,"3.5"\n')
        (folder / "b.png.json").write_text('{"caption": "From JSON"}')
        found = {record.lineage["source_file"]: record for record in records(folder, paths=".")}
        assert found.keys() == {"a.png", "b.png", "deep/c.png"}
        values = values_of(found["a.png"])
        assert values["caption"] == "A thin section."
        assert values["metadata"] == {"magnification": 40, "tags": ["olivine"], "site": "B2", "depth, m": "3.5"}
        assert (values["file"], values["width"], values["height"]) == ("a.png", 40, 30)
        assert values_of(found["b.png"])["caption"] == "From JSON"
        assert values_of(found["deep/c.png"])["caption"] == ""
        lineage = found["a.png"].lineage
        assert lineage["source_files"] == ["a.png", "a.txt", "a.json", "a.csv"]
        assert lineage["source_sizes"][1] == (folder / "a.txt").stat().st_size
        assert lineage["source_mtimes_ns"][1] == (folder / "a.txt").stat().st_mtime_ns

    def test_they_are_found_where_only_images_are_asked_for(self, folder: Path) -> None:
        (folder / "a.txt").write_text("here")
        found = records(folder, paths="a.*g")
        assert values_of(found[0])["caption"] == "here"
        assert values_of(records(folder, paths="a.*g", sidecars=False)[0])["caption"] == ""

    def test_they_are_in_the_account(self, folder: Path) -> None:
        (folder / "a.txt").write_text("four")
        _, items = planned(reader_of(folder, paths="."))
        assert ("a.txt", "bytes", 4) in {(item.path, item.unit, item.count) for item in items}

    def test_one_of_two_images_is_counted_once_and_one_of_a_bad_image_too(self, folder: Path) -> None:
        """So nothing is missing, and no file looks new to the next plan."""
        (folder / "a.jpg").write_bytes(saved(colours(40, 30), "JPEG"))
        (folder / "bad.png").write_bytes(b"no image")
        for name in ("a.txt", "bad.txt"):
            (folder / name).write_text("four")
        reader = reader_of(folder, paths=".")
        _, items = planned(reader)
        assert [(item.path, item.status) for item in items if item.path.endswith("txt")] == [
            ("a.txt", "selected"),
            ("bad.txt", "not_selected"),
        ]
        assert set(reader.files()) == {item.path for item in items}

    @pytest.mark.parametrize(
        ("name", "data", "said"),
        [
            ("a.json", b"{", "no JSON"),
            ("a.json", b'{"x": NaN}', "no JSON"),
            ("a.json", b"[1]", "not an object"),
            ("a.txt", b"caf\xe9", "no UTF-8"),
            ("a.csv", b"x,y\n1\n", "not a header and one row"),
            ("a.txt", b"x" * 2_000_000, "longer than"),
        ],
    )
    def test_a_bad_one_is_a_row_that_names_it(self, folder: Path, name: str, data: bytes, said: str) -> None:
        (folder / name).write_bytes(data)
        bad, good, _ = records(folder, paths=".")
        assert bad.refusal is not None
        assert name in bad.refusal.detail
        assert said in bad.refusal.detail
        assert good.refusal is None

    def test_one_that_leads_out_is_not_read(self, folder: Path) -> None:
        (folder.parent / "secret.txt").write_text("secret")
        (folder / "a.txt").symlink_to(folder.parent / "secret.txt")
        assert values_of(records(folder, paths="a.png")[0])["caption"] == ""


class TestManifest:
    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_its_columns_become_metadata(self, folder: Path, kind: str) -> None:
        table = pl.DataFrame({"path": ["deep/c.png", "./a.png"], "caption": ["third", "first"], "mineral": ["x", None]})
        table.write_csv(folder / "list.csv") if kind == "csv" else table.write_parquet(folder / "list.parquet")
        reader = reader_of(folder, manifest=f"list.{kind}")
        found = list(pickle.loads(pickle.dumps(reader)).read([entry.chunk for entry in planned(reader)[0]]))
        assert [record.lineage["source_file"] for record in found] == ["deep/c.png", "a.png"]
        assert [values_of(record)["caption"] for record in found] == ["third", "first"]
        assert [values_of(record)["metadata"]["mineral"] for record in found] == ["x", None]

    def test_what_leads_out_of_the_folder_is_a_row(self, folder: Path) -> None:
        (folder / "link.png").symlink_to(folder.parent / "outside.png")
        names = ["../outside.png", str(folder / "a.png"), "deep/../../outside.png", "link.png", "none.png", "", "a.png"]
        pl.DataFrame({"path": names}).write_csv(folder / "list.csv")
        found = records(folder, manifest="list.csv")
        reasons = [record.refusal.reason if record.refusal else None for record in found]
        assert reasons == ["not_readable"] * 4 + ["source_missing", "not_readable", None]
        assert list(reader_of(folder, manifest="list.csv").files()) == ["link.png", "none.png", "a.png"]

    @pytest.mark.parametrize(
        ("text", "said"),
        [("file\na.png\n", "no column `path`"), ("path\na.png\na.png\n", "more than once"), (None, "cannot be read")],
    )
    def test_one_that_cannot_be_used_is_said_at_once(self, folder: Path, text: str | None, said: str) -> None:
        if text is not None:
            (folder / "list.csv").write_text(text)
        with pytest.raises(JobFileError, match=said):
            planned(reader_of(folder, manifest="list.csv"))


def test_what_is_no_regular_file_is_a_row_and_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    pl.DataFrame({"path": ["pipe.png", "deep"]}).write_csv(folder / "list.csv")
    found = records(folder, manifest="list.csv")
    assert [record.refusal.reason if record.refusal else None for record in found] == ["not_readable"] * 2


def test_links_that_lead_out_or_in_circles_are_rows(folder: Path) -> None:
    (folder / "out.png").symlink_to(folder.parent / "outside.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "in.png").symlink_to("a.png")
    (folder / "deep" / "up").symlink_to("..")
    found = {record.chunk.inputs[0].path: record.refusal for record in records(folder, paths=".")}
    assert {name: refusal.reason if refusal else None for name, refusal in found.items()} == {
        "a.png": None,
        "b.png": None,
        "deep/c.png": None,
        "in.png": None,
        "out.png": "not_readable",
        "loop.png": "not_readable",
        "gone.png": "source_missing",
    }


@pytest.mark.parametrize(
    "name", [b"caf\xe9.png", b"a\nb.png", b"back\\slash.png", "日本.png".encode(), b"[x].png", b" .png"]
)
def test_odd_names_are_read(folder: Path, name: bytes) -> None:
    """Names are any bytes; in addresses they are text."""
    path = os.path.join(os.fsencode(folder), b"odd", name)
    os.mkdir(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(PNG)
    reader = reader_of(folder, paths="odd")
    (entry,), _ = planned(reader)
    (record,) = reader.read([entry.chunk])
    assert record.refusal is None
    assert os.fsencode(reader.locate(entry.chunk.inputs[0].path)) == path
    json.dumps(record.lineage["source_file"]).encode()


def test_the_block_is_checked() -> None:
    from s1batch.jobfile import load_job

    base = {"job": {"kind": "ask", "prompt": "?"}, "engine": {"kind": "reference"}}
    for source, said in (
        ({}, "exactly one of paths and manifest"),
        ({"paths": ".", "overview": True}, "overview has no meaning"),
        ({"paths": ".", "tile": {"size": 100, "overlap": 60}}, "at most half"),
        ({"paths": ".", "bands": [1, 2]}, "one or three"),
        ({"paths": ".", "value_window": [1, 2]}, "no meaning with `scaling: percentile`"),
        ({"paths": ".", "percentiles": [99, 1]}, "low < high"),
    ):
        with pytest.raises(JobFileError, match=said):
            load_job({**base, "source": {"kind": "images", **source}})


def test_a_single_image_is_a_source(folder: Path) -> None:
    assert record_of(folder / "a.png").lineage["source_file"] == "a.png"
