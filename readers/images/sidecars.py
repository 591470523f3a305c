"""Text that stands beside an image: a caption, and metadata.

NAME.txt is the caption. NAME.json is an object, NAME.csv a header and one row: metadata, in which the key `caption`
stands for a caption too. They are named as the image, its ending apart, or with it (NAME.png.json).
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from s1batch.errors import SourceError

SIDECAR_ENDINGS = (".txt", ".json", ".csv")
LARGEST_SIDECAR_BYTES = 2**20


def sidecars_of(path: str) -> list[str]:
    """Return the sidecars that an image has, by name."""
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]
    names = [base + ending for ending in SIDECAR_ENDINGS for base in dict.fromkeys((stem, name))]
    found = [os.path.join(folder, each) for each in names if each != name]
    return [each for each in found if os.path.isfile(each)]


def read_sidecars(paths: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return caption and metadata.

    Raises:
        SourceError: One of them cannot be read; the text names it.
    """
    caption, metadata = "", dict[str, Any]()
    for path in paths:
        name = os.path.basename(path)
        try:
            text = _text(path)
            if path.endswith(".txt"):
                caption = text.strip()
            else:
                metadata.update(_object(text) if path.endswith(".json") else _row(text))
        except SourceError as error:
            raise SourceError(error.reason, f"{name!r}: {error.detail}") from error
        except OSError as error:
            raise SourceError("not_readable", f"{name!r} cannot be read: {error.strerror or error}") from error
    return take_caption(caption, metadata), metadata


def take_caption(caption: str, metadata: dict[str, Any]) -> str:
    """Return the caption, which metadata may hold too."""
    if caption:
        return caption
    given = metadata.pop("caption", None)
    return "" if given is None else str(given).strip()


def _text(path: str) -> str:
    with open(path, "rb") as file:
        data = file.read(LARGEST_SIDECAR_BYTES + 1)
    if len(data) > LARGEST_SIDECAR_BYTES:
        raise SourceError("not_readable", f"longer than {LARGEST_SIDECAR_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError("decode_error", f"no UTF-8: {error}") from error


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SourceError("decode_error", f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise SourceError("decode_error", f"a JSON {type(value).__name__}, not an object")
    return value


def _row(text: str) -> Mapping[str, Any]:
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise SourceError("decode_error", f"no CSV: {error}") from error
    if len(rows) != 2 or len(rows[0]) != len(rows[1]):
        raise SourceError("decode_error", "not a header and one row of as many fields")
    return dict(zip(*rows, strict=True))
