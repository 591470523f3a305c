"""Records, jobs and answers for the tests of jobs that read sensors, papers and images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from PIL import Image
from pydantic import TypeAdapter

from s1batch.blocks import TaskSpec
from s1batch.jobs.base import Job, Settings
from s1batch.jobs.scoring.answer_scores import AnswerMetrics, Answers, Measured
from s1batch.jobs.scoring.bootstrap import Estimate, Resampling
from s1batch.jobs.scoring.truth_lines import TruthLines
from s1batch.records import (
    Address,
    Answer,
    Chunk,
    Fields,
    ImagePart,
    ModelIdentity,
    Record,
    Response,
    Sampling,
    Series,
    Slice,
)

SETTINGS = Settings(model=ModelIdentity(name="m"), sampling=Sampling())
SECOND = 10**9


def make_job(kind: str, **fields: Any) -> Any:
    """Build a job from its block."""
    return TypeAdapter(TaskSpec).validate_python({"kind": kind, **fields}).build(Path())


def chunk(dim: str = "rows", start: int = 0, stop: int = 1, path: str = "a.csv") -> Chunk:
    return Chunk(inputs=(Address(root="archive", path=path, slices=(Slice(dim=dim, start=start, stop=stop),)),))


def window(steps: int = 100, *, dim: str = "time_ns", start: int = 0, rate: float = 10.0, **lineage: Any) -> Record:
    """A window of two channels."""
    stop = start + round(steps * SECOND / rate) if dim == "time_ns" else start + steps
    series = Series(
        values_TC=np.arange(2 * steps, dtype=np.float32).reshape(steps, 2),
        rate_hz=rate,
        channels=("temp", "wind"),
        start_ns=start if dim == "time_ns" else 0,
        units="K",
    )
    known = {"steps": steps, "rate_sent_hz": rate, "channels": ["temp", "wind"], **lineage}
    return Record(chunk=chunk(dim, start, stop, "s.zarr"), payload=series, lineage=known)


def passage(text: str, **values: Any) -> Record:
    return Record(chunk=chunk("chars", 0, len(text), "p.jsonl"), payload=Fields(values={"text": text, **values}))


def picture(width: int, height: int) -> ImagePart:
    file = BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return ImagePart(data=file.getvalue())


def image(width: int = 64, height: int = 48, values: Mapping[str, Any] | None = None, **lineage: Any) -> Record:
    payload = Fields(values=values or {}, images=(picture(width, height),))
    return Record(chunk=chunk("x", 0, width, "i.png"), payload=payload, lineage=lineage)


def answered(job: Job, record: Record, answer: Mapping[str, Any] | str) -> Answer:
    """Interpret an answer as a run does: media are gone, and plain values too where the job does not look at them."""
    kept = record.without_media() if job.checks_values else record.without_payload()
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return job.interpret(kept, Response(fingerprint="f", text=text))


def as_rows(job: Job, lines: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Results with the columns of the answer typed as they are stored."""
    table = {
        column.name: pa.array([line.get(column.name) for line in lines], type=column.type) for column in job.columns
    }
    frame = pl.DataFrame(pa.table(table))
    others = [name for name in dict.fromkeys(name for line in lines for name in line) if name not in frame.columns]
    rest = pl.DataFrame({name: [line.get(name) for line in lines] for name in others}, infer_schema_length=None)
    if "outcome" not in others:
        rest = rest.with_columns(pl.lit("ok").alias("outcome"))
    times = [name for name in ("start", "end") if name in others]
    return pl.concat([rest.with_columns(pl.col(times).cast(pl.Datetime("ns", "UTC"))), frame], how="horizontal")


def measure(
    metrics: AnswerMetrics,
    job: Job,
    rows: pl.DataFrame,
    truth: Mapping[str, Sequence[Any]] | None,
    *,
    tolerance: float | None = None,
    baselines: tuple[str, ...] | None = (),
    again: Callable[[Sequence[str]], Iterator[Record]] = lambda keys: iter(()),
    repeats: int = 100,
) -> Measured:
    """Score rows as the results of a run would be."""
    resampling = Resampling.over_labels(metrics.labels(rows), (metrics.unit, "rows"), seed=0, repeats=repeats)
    return metrics.measure(
        Answers(
            name="model",
            rows=rows,
            job=job,
            resampling=resampling,
            truth=None if truth is None else TruthLines.read(pl.DataFrame(dict(truth))),
            tolerance=tolerance,
            baselines=baselines,
            read_again=again,
            say=lambda line: None,
        )
    )


def values(estimates: Mapping[str, Estimate]) -> dict[str, float | None]:
    """The numbers without their intervals, rounded."""
    return {name: None if one.value is None else round(one.value, 6) for name, one in estimates.items()}
