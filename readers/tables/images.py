"""The images that rows of a table name or hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s1batch.errors import SourceError
from s1batch.readers.tables.cells import CellFiles, cell
from s1batch.records import ImagePart

LARGEST_FILE_BYTES = 64 * 2**20


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
                    parts.append(_image(_content(folder, path, value), value))
                elif isinstance(value, bytes):
                    parts.append(_image(value, name))
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


def _content(folder: CellFiles, path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise folder.unreadable(name, error) from error


def _image(data: bytes, name: str) -> ImagePart:
    if not data:
        raise SourceError("empty_file", f"the image {name} is empty")
    for begin, mime in ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png")):
        if data.startswith(begin):
            return ImagePart(data, mime)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ImagePart(data, "image/webp")
    raise SourceError("unknown_format", f"the image {name} is no JPEG, PNG or WebP")
