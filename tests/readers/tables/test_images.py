"""Images that rows of a table name or hold, and what is no image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s1batch.errors import SourceError
from s1batch.readers.tables.images import LARGEST_FILE_BYTES, ImageColumns
from s1batch.readers.tables.spec import TableSource
from tests.engine.reference.conftest import picture

PNG = picture(40, 30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "deep").mkdir(parents=True)
    (root / "a.png").write_bytes(PNG.data)
    (root / "deep" / "b.jpg").write_bytes(picture(40, 30, kind="JPEG").data)
    (root / "text.png").write_text("no image at all")
    (root / "empty.png").touch()
    (tmp_path / "outside.png").write_bytes(PNG.data)
    return root


def read(folder: Path, value: Any) -> tuple[list[str], Any]:
    return ImageColumns(("image",), folder).read({"image": value})


def test_an_image_is_a_path_bytes_a_struct_of_either_or_a_list(folder: Path) -> None:
    files, (part,) = read(folder, "a.png")
    assert (files, part.data, part.mime) == (["a.png"], PNG.data, "image/png")
    assert read(folder, str(folder / "a.png"))[0] == ["a.png"]
    files, (part,) = read(folder, PNG.data)
    assert (files, part.data) == ([], PNG.data)
    assert read(folder, {"bytes": PNG.data, "path": "x"})[1][0].data == PNG.data
    files, parts = read(folder, ["deep/b.jpg", {"bytes": None, "path": "a.png"}, None])
    assert (files, [part.mime for part in parts]) == (["deep/b.jpg", "a.png"], ["image/jpeg", "image/png"])
    assert read(folder, picture(40, 30, kind="WEBP").data)[1][0].mime == "image/webp"


@pytest.mark.parametrize(
    ("value", "reason", "said"),
    [
        (None, "source_missing", "no image in image"),
        ([], "source_missing", "no image in image"),
        (3.5, "source_missing", "holds no image but a float"),
        ("b.png", "source_missing", "there is no image"),
        ("deep", "source_missing", "there is no image"),
        ("http://host/a.png", "source_missing", "there is no image"),
        ("../outside.png", "not_readable", "outside of source.image_root"),
        ("/etc/passwd", "not_readable", "outside of source.image_root"),
        ("a\0.png", "source_missing", "there is no image"),
        ("x" * 5000, "not_readable", "too long"),
        ("text.png", "unknown_format", "no JPEG, PNG, WebP"),
        ("empty.png", "empty_file", "is empty"),
        (b"GIF89a", "unknown_format", "no JPEG, PNG, WebP"),
    ],
)
def test_what_is_no_image_has_a_reason(value: Any, reason: str, said: str, folder: Path) -> None:
    with pytest.raises(SourceError) as caught:
        read(folder, value)
    assert caught.value.reason == reason
    assert said in caught.value.detail
    assert len(caught.value.detail) < 500


def test_a_column_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(SourceError, match="no column 'image' for an image; the row has picture"):
        ImageColumns(("image",), folder).read({"picture": "a.png"})


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / "huge.png").open("wb") as file:
        file.truncate(LARGEST_FILE_BYTES + 1)
    with pytest.raises(SourceError, match="larger than 64 MB"):
        read(folder, "huge.png")


def test_images_must_be_among_the_columns_that_are_read() -> None:
    with pytest.raises(ValueError, match="which columns leaves out"):
        TableSource(kind="table", path=("a.csv",), columns=("text",), images=("image",))
