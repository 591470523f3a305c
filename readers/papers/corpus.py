"""Corpora: many papers in one file, as lines of JSON or as rows of Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from s1batch.errors import SourceError
from s1batch.readers.papers.fields import RecordFields
from s1batch.readers.papers.paper import LONGEST_RECORD, Found, Loss, Paper, Place
from s1batch.readers.papers.streams import ContentStream, KeptStreams, read_whole
from s1batch.readers.tables.formats import RowPlace
from s1batch.readers.tables.forward import KeptDecoders
from s1batch.readers.tables.parquet import Parquet

_BOM = b"\xef\xbb\xbf"
ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class JsonLines:
    """One JSON object per line, plain or compressed; blank lines are no papers.

    Attributes:
        fields: Where a record has what.
        kept: Streams of earlier reads, of all files.
    """

    fields: RecordFields
    kept: KeptStreams = field(default_factory=KeptStreams)

    def scan(self, path: Path, after: int = 0) -> Iterator[Found]:
        """Yield every line that is not blank."""
        stream = ContentStream(path)
        try:
            stream.go_to(after)
            for start, line, stop in stream.lines():
                if line is None or line.strip():
                    place = Place(dim="bytes", start=start, stop=stop)
                    yield Found(place=place, paper=self._too_long(stop - start) if line is None else self._paper(line))
        finally:
            stream.close()

    def read(self, path: Path, places: Sequence[Place]) -> Iterator[Paper | SourceError]:
        """Yield the paper of each line."""
        if not places:
            return
        with self.kept.stream(path, places[0].start) as stream:
            for place in places:
                count = place.stop - place.start
                if count > LONGEST_RECORD:
                    yield self._too_long(count)
                    continue
                stream.go_to(place.start)
                line = stream.take(count)
                if len(line) == count:
                    yield self._paper(line)
                else:
                    said = stream.damage or f"it has {stream.position} bytes of content"
                    yield SourceError("source_changed", f"bytes {place.start} to {place.stop} are not there: {said}")

    def _paper(self, line: bytes) -> Paper | SourceError:
        record = _object(line, "the line")
        return record if isinstance(record, SourceError) else self.fields.paper(record)

    def _too_long(self, count: int) -> SourceError:
        return SourceError("not_readable", f"the line has {count} bytes; at most {LONGEST_RECORD} are read")


@dataclass(frozen=True, slots=True)
class JsonFile:
    """A file whose name ends in `.json`: lines of JSON where its first line is an object, else one object as a whole.

    Attributes:
        lines: How the lines are read.
    """

    lines: JsonLines

    def scan(self, path: Path, after: int = 0) -> Iterator[Found]:
        """Yield every line that is not blank, or the one paper."""
        if after > 1 or self._holds_lines(path):
            yield from self.lines.scan(path, after)
        elif not after:
            yield Found(place=Place(), paper=self._whole(path))

    def read(self, path: Path, places: Sequence[Place]) -> Iterator[Paper | SourceError]:
        """Yield the paper of each line, or the one paper."""
        if places and places[0].dim:
            yield from self.lines.read(path, places)
        elif places:
            paper = self._whole(path)
            yield from (paper for _ in places)

    def _holds_lines(self, path: Path) -> bool:
        stream = ContentStream(path)
        try:
            first = next((line for _, line, _ in stream.lines() if line is None or line.strip()), b"")
        except Loss:
            return True
        finally:
            stream.close()
        return first is None or not isinstance(_object(first, "the line"), SourceError)

    def _whole(self, path: Path) -> Paper:
        record = _object(read_whole(path), "the file")
        paper = record if isinstance(record, SourceError) else self.lines.fields.paper(record)
        if isinstance(paper, SourceError):
            raise paper
        return paper


def _object(content: bytes, what: str) -> dict[str, Any] | SourceError:
    try:
        record = orjson.loads(content.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        return SourceError("decode_error", f"{what} is no JSON: {error}")
    if not isinstance(record, dict):
        return SourceError("decode_error", f"{what} is a JSON {type(record).__name__}, not an object")
    return record


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """One paper per row, read by row groups.

    Attributes:
        fields: Where a record has what.
        kept: Decoders of earlier reads, of all files.
    """

    fields: RecordFields
    kept: KeptDecoders = field(default_factory=KeptDecoders)

    def scan(self, path: Path, after: int = 0) -> Iterator[Found]:
        """Yield every row; a row group that does not decode costs its own rows."""
        rows = Parquet(kept=self.kept)
        places = (place for place in rows.scan(path) if place.index >= after)
        while waiting := list(islice(places, ROWS_AT_ONCE)):
            for place, found in zip(waiting, rows.read(path, waiting), strict=True):
                paper = found if isinstance(found, SourceError) else self.fields.paper(found)
                yield Found(place=Place(dim="rows", start=place.index, stop=place.index + 1), paper=paper)

    def read(self, path: Path, places: Sequence[Place]) -> Iterator[Paper | SourceError]:
        """Yield the paper of each row."""
        wanted = [RowPlace(index=place.start) for place in places]
        for found in Parquet(kept=self.kept).read(path, wanted):
            yield found if isinstance(found, SourceError) else self.fields.paper(found)
