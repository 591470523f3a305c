"""Which format a file has, going by its name or by the job file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from s1batch.errors import SourceError
from s1batch.readers.papers.corpus import JsonFile, JsonLines, ParquetRows
from s1batch.readers.papers.fields import RecordFields
from s1batch.readers.papers.markup import Markup
from s1batch.readers.papers.paper import PaperFormat
from s1batch.readers.papers.pdf import Pdf
from s1batch.readers.papers.pdf_pool import PdfPool
from s1batch.readers.papers.plain import PlainText
from s1batch.readers.papers.spec import PaperFormatName, PaperSource
from s1batch.readers.papers.streams import KeptStreams, codec_of
from s1batch.readers.tables.forward import KeptDecoders

ENDINGS: Mapping[str, PaperFormatName] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".pdf": "pdf",
    ".xml": "xml",
    ".nxml": "xml",
    ".tei": "xml",
    ".tex": "latex",
    ".latex": "latex",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
}

_COMPRESSED = ("jsonl", "json", "xml", "latex", "markdown", "text")


@dataclass(frozen=True)
class Formats:
    """The formats of one source, with what is kept open between reads.

    Attributes:
        spec: The `source:` block.
        pool: The processes that read PDF.
        streams: Compressed files.
        decoders: Parquet files.
    """

    spec: PaperSource
    pool: PdfPool
    streams: KeptStreams
    decoders: KeptDecoders

    @property
    def pdf_processes(self) -> int:
        """How many PDFs are read at a time at most."""
        return self.pool.processes

    def of(self, path: Path) -> PaperFormat:
        """Return the format of a file.

        Raises:
            SourceError: Its name tells of no known one.
        """
        packed = codec_of(path) is not None
        suffix = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
        kind = ENDINGS.get(suffix) if self.spec.format == "auto" else self.spec.format
        if kind is None or (packed and kind not in _COMPRESSED):
            known = ", ".join(ENDINGS)
            raise SourceError("unknown_format", f"{path.suffix or 'no ending'} is none of {known}; say source.format")
        match kind:
            case "jsonl":
                return JsonLines(RecordFields(self.spec.fields), self.streams)
            case "json":
                return JsonFile(JsonLines(RecordFields(self.spec.fields), self.streams))
            case "parquet":
                return ParquetRows(RecordFields(self.spec.fields), self.decoders)
            case "pdf":
                return Pdf(self.pool, self.spec.figures, self.spec.figure_pixels)
            case "xml":
                return Markup()
            case "latex" | "markdown" | "text":
                return PlainText(kind)
