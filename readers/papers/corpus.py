"""Corpora: many papers in one file, as lines of JSON or as rows of Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from s1batch.errors import SourceError
from s1batch.readers.papers.fields import RecordFields
from s1batch.readers.papers.paper import LONGEST_RECORD, Found, Paper, Place
from s1batch.readers.papers.streams import ContentStream, KeptStreams
from s1batch.readers.tables.formats import RowPlace
from s1batch.readers.tables.parquet import KeptDecoders, Parquet

_BOM = b"\xef\xbb\xbf"
_ROWS_AT_ONCE = 256


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
        try:
            record = orjson.loads(line.removeprefix(_BOM))
        except orjson.JSONDecodeError as error:
            return SourceError("decode_error", f"the line is no JSON: {error}")
        if not isinstance(record, dict):
            return SourceError("decode_error", f"the line is a JSON {type(record).__name__}, not an object")
        return self.fields.paper(record)

    def _too_long(self, count: int) -> SourceError:
        return SourceError("not_readable", f"the line has {count} bytes; at most {LONGEST_RECORD} are read")


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
        waiting: list[RowPlace] = []
        places = (place for place in rows.scan(path) if place.index >= after)
        while waiting := [place for place, _ in zip(places, range(_ROWS_AT_ONCE), strict=False)]:
            for place, found in zip(waiting, rows.read(path, waiting), strict=True):
                paper = found if isinstance(found, SourceError) else self.fields.paper(found)
                yield Found(place=Place(dim="rows", start=place.index, stop=place.index + 1), paper=paper)

    def read(self, path: Path, places: Sequence[Place]) -> Iterator[Paper | SourceError]:
        """Yield the paper of each row."""
        wanted = [RowPlace(index=place.start) for place in places]
        for found in Parquet(kept=self.kept).read(path, wanted):
            yield found if isinstance(found, SourceError) else self.fields.paper(found)
