"""The images that rows of a table name or hold; they are converted as those of the reader of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s1batch.errors import SourceError
from s1batch.readers.images.single import part_of_bytes, part_of_file
from s1batch.readers.tables.cells import CellFiles, cell
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
        folder = CellFiles(self.root, "source.image_root", "image", LARGEST_FILE_BYTES)
        files: list[str] = []
        parts: list[ImagePart] = []
        for name in self.names:
            for value in _each(cell(fields, name, "an image")):
                if isinstance(value, str):
                    file, path = folder.find(value)
                    files.append(file)
                    parts.append(_from_file(folder, path, value))
                elif isinstance(value, bytes):
                    parts.append(_from_bytes(value, name))
                else:
                    kind = type(value).__name__
                    raise SourceError("source_missing", f"the column {name!r} holds no image but a {kind}")
        if not parts:
            raise SourceError("source_missing", f"the row has no image in {', '.join(self.names)}")
        return files, tuple(parts)


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


def _from_file(folder: CellFiles, path: Path, name: str) -> ImagePart:
    shown = name[:_LONGEST_NAME]
    try:
        return part_of_file(str(path), shown)
    except SourceError as error:
        detail = error.detail if shown in error.detail else f"{shown!r}: {error.detail}"
        raise SourceError(error.reason, detail) from error
    except OSError as error:
        raise folder.unreadable(name, error) from error


def _from_bytes(data: bytes, column: str) -> ImagePart:
    try:
        return part_of_bytes(data)
    except SourceError as error:
        raise SourceError(error.reason, f"the image in {column}: {error.detail}") from error
