"""The prompts of the measurements: as many, as long and as varied as those that the other tools were given."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SHARED = "You are a seismologist. Read the feature summary of one waveform window and give the phase label. " * 4


def write_prompts(path: Path, count: int = 2000, distinct: int | None = None) -> Path:
    """Write `count` prompts of about 440 characters, of which `distinct` differ (None: all)."""
    texts = [
        f"{SHARED}\nwindow {i}: sta/lta={(i * 37) % 101 / 10:.1f} peak={(i * 7919) % 9973} f0={i % 50 / 10:.1f}Hz"
        for i in range(distinct or count)
    ]
    return _write(path, [texts[i % len(texts)] for i in range(count)], count)


def write_large_prompts(path: Path, count: int = 300, length: int = 999_990) -> Path:
    """Write prompts of just under a million characters (the longest that a template may give), ten to a row group."""
    chance = random.Random(0)
    blob = "".join(chance.choices(string.ascii_letters + string.digits + "+/", k=length))
    return _write(path, [f"{i}:{blob[i:]}{blob[:i]}" for i in range(count)], 10)


def _write(path: Path, texts: list[str], group_rows: int) -> Path:
    rows = pa.table({"id": [str(i) for i in range(len(texts))], "text": texts})
    pq.write_table(rows, path, row_group_size=group_rows)
    return path
