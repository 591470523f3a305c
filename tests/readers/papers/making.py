"""Readers of papers for tests, and what they plan and read."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from s1batch.long_series import LongSeries
from s1batch.readers.papers.reader import PaperReader
from s1batch.readers.papers.spec import PaperSource
from s1batch.readers.spec import ReaderSetting
from s1batch.records import Fields, InventoryItem, PlanEntry, Record
from s1batch.windows import WindowSpec

TOKENIZER = Path(__file__).resolve().parents[3] / "engine" / "reference" / "nano" / "tokenizer.json"
SENTENCES = "The first arrival is weak. Its polarity is up! Who picked it at 12:34:56.7? Nobody did, as it seems. "


def make_reader(
    folder: Path, *paths: str, tokenizer: Path | None = TOKENIZER, context: int | None = None, **fields: Any
) -> PaperReader:
    """Return a reader as a worker gets it; it caches nothing unless a test says so."""
    block = {"kind": "papers", "cache": "off", "pdf_processes": 1, **fields}
    if paths:
        block["paths"] = paths
    setting = ReaderSetting(
        base_dir=folder,
        window=WindowSpec.model_validate({}),
        long_series=LongSeries(policy="split"),
        tokenizer=tokenizer,
        context_tokens=context,
    )
    copy: PaperReader = pickle.loads(pickle.dumps(PaperReader(PaperSource.model_validate(block), setting)))
    return copy


def planned(reader: PaperReader) -> tuple[list[InventoryItem], list[PlanEntry]]:
    lines = list(reader.plan())
    return (
        [line for line in lines if isinstance(line, InventoryItem)],
        [line for line in lines if isinstance(line, PlanEntry)],
    )


def records_of(reader: PaperReader) -> list[Record]:
    return list(reader.read([entry.chunk for entry in planned(reader)[1]]))


def values_of(record: Record) -> Mapping[str, Any]:
    assert record.refusal is None, record.refusal
    assert isinstance(record.payload, Fields)
    return record.payload.values


def one(reader: PaperReader) -> Mapping[str, Any]:
    [record] = records_of(reader)
    return values_of(record)


def texts(records: Iterable[Record]) -> list[str]:
    """Return the text of each record, or the reason why there is none."""
    return [record.refusal.reason if record.refusal else values_of(record)["text"] for record in records]


def paper(number: int, sentences: int = 3, **fields: Any) -> dict[str, Any]:
    return {"id": f"p{number}", "title": f"Title {number}", "text": SENTENCES * sentences + str(number), **fields}


def lines_of(rows: Iterable[Any]) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def account_of(items: Iterable[InventoryItem], entries: Iterable[PlanEntry]) -> dict[str, int]:
    """Return the characters of the selected papers, and how many of them are in no core or in several."""
    chars = sum(item.count for item in items if item.status == "selected")
    cores = [entry.chunk.core for entry in entries if entry.chunk.core is not None]
    return {"chars": chars, "covered": sum(stop - start for start, stop in cores)}
