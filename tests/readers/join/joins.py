"""Jobs that join, and what their readers plan."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import polars as pl

from s1batch.accounting import Account, Tally
from s1batch.jobfile import load_job
from s1batch.readers.join.reader import JoinReader
from s1batch.readers.spec import ReaderSetting
from s1batch.records import InventoryItem, PlanEntry

ECHO = {"kind": "replay", "function": "tests.answers:echo"}


def join_job(sources: dict[str, Any], prompt: str = "go", **fields: Any) -> dict[str, Any]:
    return {
        "source": {"kind": "join", "sources": sources, **fields},
        "job": {"kind": "ask", "prompt": prompt},
        "engine": ECHO,
        "run": {"part_chunks": 4},
    }


def reader_of(job: dict[str, Any], folder: Path) -> JoinReader:
    loaded = load_job(job, base_dir=folder)
    spec = loaded.spec
    reader = spec.source.build(ReaderSetting(base_dir=folder, window=spec.windows, long_series=spec.long))
    assert isinstance(reader, JoinReader)
    copy: JoinReader = pickle.loads(pickle.dumps(reader))
    return copy


def planned(reader: JoinReader) -> tuple[list[InventoryItem], list[PlanEntry]]:
    lines = list(reader.plan())
    return (
        [line for line in lines if isinstance(line, InventoryItem)],
        [line for line in lines if isinstance(line, PlanEntry)],
    )


def tally(account: Account, source: str) -> Tally:
    (found,) = [tally for tally in account.tallies if tally.source == source]
    return found


def two_tables(folder: Path, figures: pl.DataFrame, papers: pl.DataFrame) -> dict[str, Any]:
    figures.write_parquet(folder / "figures.parquet")
    papers.write_csv(folder / "papers.csv")
    return {
        "figure": {"kind": "table", "path": "figures.parquet"},
        "paper": {"kind": "table", "path": "papers.csv"},
    }


def wave_job(prompt: str = "{{ wave.station }} {{ events | length }}", **fields: Any) -> dict[str, Any]:
    sources = {
        "wave": {"kind": "seismic", "paths": ["waves/*"]},
        "events": {"kind": "table", "path": "events.csv"},
    }
    fields = {"primary": "wave", "by": "time", "time": {"events": "origin"}, "many": "events", **fields}
    return {**join_job(sources, prompt, **fields), "window": {"length": "60s"}}
