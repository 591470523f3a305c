"""What stands where in the records of a corpus: peS2o, S2ORC in its old and its present form, and those described.

S2ORC (https://github.com/allenai/s2orc, and the datasets of the Semantic Scholar API) keeps a text apart from its
annotations, which are JSON in text: `content.annotations.sectionheader` holds `[{"start": 10, "end": 22}, ...]`, in
characters of `content.text`. Its old form has `pdf_parse.body_text`, a list of `{"section": ..., "text": ...}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from s1batch.errors import SourceError
from s1batch.readers.papers.paper import Mark, Paper
from s1batch.readers.papers.spec import FieldNames
from s1batch.readers.papers.text_builder import TextBuilder

Path = tuple[str, ...]

USUAL: Mapping[str, tuple[Path, ...]] = {
    "id": (
        ("id",),
        ("corpusid",),
        ("paper_id",),
        ("paperId",),
        ("corpus_id",),
        ("pmcid",),
        ("pmid",),
        ("arxiv_id",),
        ("doi",),
    ),
    "title": (("title",), ("metadata", "title")),
    "text": (
        ("text",),
        ("content", "text"),
        ("body", "text"),
        ("full_text",),
        ("fulltext",),
        ("body_text",),
        ("pdf_parse", "body_text"),
        ("body",),
    ),
    "abstract": (("abstract",), ("pdf_parse", "abstract"), ("metadata", "abstract")),
    "year": (("year",), ("publication_year",), ("publicationdate",), ("metadata", "year"), ("created",)),
    "doi": (("doi",), ("externalids", "DOI"), ("externalIds", "DOI"), ("metadata", "doi")),
}

_TEXTS = frozenset({"text", "content", "body", "full_text", "fulltext", "body_text", "pdf_parse", "abstract"})
_YEAR = re.compile(r"\d{4}")
_LONGEST_NAME = 300
_FIELDS_SHOWN = 20


@dataclass(frozen=True)
class RecordFields:
    """Makes papers of records.

    Attributes:
        names: The job's own names, which go before the usual ones.
    """

    names: FieldNames = field(default_factory=FieldNames)

    def paper(self, record: Mapping[str, Any]) -> Paper | SourceError:
        """Return the paper of a record, or why it has none."""
        text, sections = self._text(record)
        if not text or text.isspace():
            shown = ", ".join(list(record)[:_FIELDS_SHOWN]) or "none"
            wanted = (
                f"source.fields.text names {', '.join(self.names.text)}"
                if self.names.text
                else "set source.fields.text"
            )
            return SourceError("not_readable", f"the record has no text ({wanted}; its fields are {shown})")
        title = self._find(record, "title")
        year = self._find(record, "year")
        identity = self._find(record, "id")
        taken = _TEXTS | {"title", "year", "doi"} | {name.split(".")[0] for name in self.names.text or ()}
        return Paper(
            paper_id="" if identity is None else str(identity)[:_LONGEST_NAME],
            text=text,
            title=title if isinstance(title, str) else _title_of(record, text),
            year=_year(year),
            doi=_words(self._find(record, "doi")),
            sections=sections,
            metadata={name: value for name, value in record.items() if name not in taken},
        )

    def _find(self, record: Mapping[str, Any], what: str) -> Any:
        own = getattr(self.names, what, None)
        if own is not None:
            return _at(record, own.split("."))
        for path in USUAL[what]:
            value = record.get(path[0]) if len(path) == 1 else _at(record, path)
            if value is not None:
                return value
        return None

    def _text(self, record: Mapping[str, Any]) -> tuple[str, Sequence[Mark]]:
        if self.names.text is not None:
            return _joined([_at(record, name.split(".")) for name in self.names.text])
        found = self._find(record, "text")
        if isinstance(found, str) and found:
            return found, _annotated(record, found)
        return _joined([self._find(record, "abstract"), found])


def _at(record: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(record, dict):
            return None
        record = record.get(name)
    return record


def _joined(values: Sequence[Any]) -> tuple[str, Sequence[Mark]]:
    """Join texts and lists of paragraphs with their sections."""
    if len(values) == 1 and isinstance(values[0], str):
        return values[0], ()
    builder = TextBuilder()
    for value in values:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                builder.paragraph(item)
            elif isinstance(item, Mapping) and isinstance(item.get("text"), str):
                if isinstance(item.get("section"), str):
                    builder.section(item["section"], again=False)
                builder.paragraph(item["text"])
    return builder.text(), builder.sections


def _annotations(record: Mapping[str, Any], kind: str) -> list[tuple[int, int]]:
    """Return the spans of one kind of annotation, ascending; none where they are not as they should be."""
    value = _at(record, ("content", "annotations", kind)) or _at(record, ("body", "annotations", kind))
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return []
    spans = [
        (item["start"], item["end"])
        for item in (value if isinstance(value, list) else ())
        if isinstance(item, Mapping) and type(item.get("start")) is int and type(item.get("end")) is int
    ]
    return sorted(span for span in spans if 0 <= span[0] < span[1])


def _annotated(record: Mapping[str, Any], text: str) -> Sequence[Mark]:
    if "content" not in record and "body" not in record:
        return ()
    marks: list[Mark] = []
    for start, stop in _annotations(record, "sectionheader") or _annotations(record, "section_header"):
        title = " ".join(text[start:stop].split())
        if title and (not marks or start > marks[-1].start):
            marks.append(Mark(start=start, title=title[:_LONGEST_NAME]))
    return marks


def _title_of(record: Mapping[str, Any], text: str) -> str:
    if "content" not in record and "body" not in record:
        return ""
    spans = _annotations(record, "title")
    return " ".join(text[spans[0][0] : spans[0][1]].split())[:_LONGEST_NAME] if spans else ""


def _year(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    found = _YEAR.match(str(value)) if value is not None else None
    return int(found.group()) if found else None


def _words(value: Any) -> str:
    if isinstance(value, list) and value:
        value = value[0]
    return value[:_LONGEST_NAME] if isinstance(value, str) else ""
