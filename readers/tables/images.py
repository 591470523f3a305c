"""The images that rows of a table name or hold; they are converted as those of the reader of images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s1batch.errors import SourceError
from s1batch.paths import encode_path
from s1batch.readers.images.single import part_of_bytes, part_of_file
from s1batch.records import ImagePart

LARGEST_FILE_BYTES = 64 * 2**20

_LONGEST_NAME = 200


@dataclass(frozen=True)
class ImageColumns:
    """Columns of images.

    Attributes:
        names: The columns, in the order in which their images are sent.
        root: Folder below which all paths must lie: a table does not choose what is read elsewhere.
    """

    names: tuple[str, ...]
    root: Path

    def read(self, fields: Mapping[str, Any]) -> tuple[list[str], tuple[ImagePart, ...]]:
        """Return the files of a row's images, relative to the root, and the images.

        Raises:
            SourceError: There is no such column, no image in it, or a file cannot be read; the text names it.
        """
        files: list[str] = []
        parts: list[ImagePart] = []
        for name in self.names:
            if name not in fields:
                raise SourceError(
                    "source_missing", f"there is no column {name!r} for an image; the row has {_names(fields)}"
                )
            for value in _each(fields[name]):
                if isinstance(value, str):
                    path = self._path(value)
                    files.append(encode_path(path.relative_to(self._top)))
                    parts.append(_from_file(path, value))
                elif isinstance(value, bytes):
                    parts.append(_from_bytes(value, name))
                else:
                    kind = type(value).__name__
                    raise SourceError("source_missing", f"the column {name!r} holds no image but a {kind}")
        if not parts:
            raise SourceError("source_missing", f"the row has no image in {', '.join(self.names)}")
        return files, tuple(parts)

    @property
    def _top(self) -> Path:
        return Path(os.path.abspath(self.root))

    def _path(self, name: str) -> Path:
        try:
            path = Path(os.path.abspath(self._top / name))
        except ValueError as error:
            raise SourceError("not_readable", f"{name[:_LONGEST_NAME]!r} is no path: {error}") from error
        if not path.is_relative_to(self._top):
            raise SourceError("not_readable", f"{name[:_LONGEST_NAME]!r} lies outside of source.image_root")
        return path


def _each(value: Any) -> Iterator[Any]:
    """Yield what a cell holds: one image, a list of them, or none; a struct of `bytes` and `path` is one image."""
    if value is None or value == "":
        return
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _each(item)
    elif isinstance(value, Mapping):
        yield from _each(value.get("bytes") or value.get("path"))
    else:
        yield value


def _from_file(path: Path, name: str) -> ImagePart:
    shown = name[:_LONGEST_NAME]
    try:
        if not path.is_file():
            raise SourceError("source_missing", f"there is no image {shown!r}")
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise SourceError("not_readable", f"{name} is larger than {LARGEST_FILE_BYTES // 2**20} MB")
        return part_of_file(str(path), shown)
    except SourceError as error:
        detail = error.detail if shown in error.detail else f"{shown!r}: {error.detail}"
        raise SourceError(error.reason, detail) from error
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it cannot be read"
        raise SourceError("not_readable", f"{shown!r}: {why}") from error


def _from_bytes(data: bytes, column: str) -> ImagePart:
    try:
        return part_of_bytes(data)
    except SourceError as error:
        raise SourceError(error.reason, f"the image in {column}: {error.detail}") from error


def _names(fields: Mapping[str, Any]) -> str:
    return ", ".join(map(str, list(fields)[:20]))
