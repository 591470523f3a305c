"""Scores jobs that answer row by row: results, truth and the job's own metrics brought together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from s1batch.api import Results
from s1batch.assembly import make_job, make_reader
from s1batch.engine.rules import RULES
from s1batch.errors import UsageError
from s1batch.jobs.scoring.answer_scores import AnswerMetrics, Answers, ScoreTable
from s1batch.jobs.scoring.bootstrap import Estimate, Resampling
from s1batch.jobs.scoring.shares import mean_of
from s1batch.jobs.scoring.truth_lines import TruthLines
from s1batch.plan_store import PlanStore
from s1batch.records import Record
from s1batch.results.atomic import make_folder, write_atomic
from s1batch.results.layout import Layout
from s1batch.score_report import estimate_text, table_lines
from s1batch.scorers import ScoreOptions
from s1batch.source_check import SourceFacts

_COMMON = ("chunk_key", "source", "outcome", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerReport:
    """All that `s1batch score` tells of answers.

    Attributes:
        results: The results folder.
        kind: The kind of job.
        model: The model that answered.
        truth: Where the truth was read; None without one.
        truth_lines: How many lines it has.
        outcomes: Rows by outcome.
        missing_rows: Planned chunks that have no row yet.
        parse_rate: Share of the responses that are in the schema.
        responses: Rows that the model answered, in whatever form.
        resampled: What the intervals resample, how many of them, how often, and with which seed.
        tables: The job's own scores.
        notes: What was left out, and why.
    """

    results: str
    kind: str
    model: str
    truth: str | None
    truth_lines: int
    outcomes: dict[str, int]
    missing_rows: int
    parse_rate: Estimate
    responses: int
    resampled: dict[str, Any]
    tables: tuple[ScoreTable, ...]
    notes: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Return the report as plain data, as `metrics/score.json` holds it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AnswerScorer:
    """Scores the results of one kind of job by its metrics.

    Attributes:
        kind: The kind.
        metrics: What is measured of its answers.
    """

    kind: str
    metrics: AnswerMetrics

    def score(self, results: Results, truth: str | Path | pl.DataFrame | None, options: ScoreOptions) -> AnswerReport:
        """Score results, and write the report to `metrics/score.json`.

        Raises:
            UsageError: There are no rows; the truth is missing or not understood; an option means nothing here.
        """
        self._check(results, truth, options)
        rows = _rows(results, self.metrics.columns)
        model = next((name for name in rows["model"].to_list() if name), "")
        resampling = Resampling.over_labels(self.metrics.labels(rows), (self.metrics.unit, "rows"), options.seed)
        plan = PlanStore(results.path)
        answers = Answers(
            name=model or "results",
            rows=rows,
            job=make_job(results.loaded),
            resampling=resampling,
            truth=None if truth is None else TruthLines.read(truth),
            tolerance=options.tolerances[0] if options.tolerances else None,
            baselines=options.baselines,
            read_again=partial(_read_again, results, plan),
            say=options.say,
        )
        measured = self.metrics.measure(answers)
        responded = rows["outcome"].is_in(["ok", "unparsed", "length"]).to_numpy()
        of_row = resampling.of_window[responded]
        report = AnswerReport(
            results=str(results.path),
            kind=self.kind,
            model=model,
            truth=None if answers.truth is None else answers.truth.name,
            truth_lines=0 if answers.truth is None else len(answers.truth.lines),
            outcomes=dict(rows["outcome"].value_counts(sort=True).iter_rows()),
            missing_rows=max(plan.chunks() - rows.height, 0),
            parse_rate=mean_of(resampling, answers.answered()[responded], of_row),
            responses=int(responded.sum()),
            resampled={
                "unit": resampling.unit,
                "n": resampling.n_units,
                "repeats": resampling.repeats,
                "seed": options.seed,
            },
            tables=measured.tables,
            notes=measured.notes,
        )
        layout = Layout(results.path)
        make_folder(layout.metrics)
        write_atomic(layout.score, orjson.dumps(report.plain(), option=orjson.OPT_INDENT_2))
        return report

    def lines(self, report: AnswerReport) -> Iterator[str]:
        """Yield what was scored, and the tables."""
        yield f"{report.results}: {report.kind} of {report.model or 'no model'}"
        if report.truth is not None:
            yield f"truth: {report.truth_lines:,} lines in {report.truth}"
        rows = ", ".join(f"{count:,} {outcome}" for outcome, count in report.outcomes.items())
        yield f"rows: {rows}; parse rate {estimate_text(report.parse_rate)} of {report.responses:,} responses"
        if report.missing_rows:
            yield f"  not scored: {report.missing_rows:,} planned chunks that have no row yet"
        for table in report.tables:
            yield ""
            yield table.title
            yield from _table(table)
        yield ""
        drawn = report.resampled
        if drawn["n"] < 2:
            yield f"no intervals: there is one of the {drawn['unit']} only"
        else:
            how = f"{drawn['repeats']:,} times, seed {drawn['seed']}"
            yield f"[...]: 95 % intervals, bootstrap over {drawn['n']:,} {drawn['unit']} ({how})"
        yield from (f"note: {note}" for note in report.notes)

    def _check(self, results: Results, truth: object, options: ScoreOptions) -> None:
        if truth is None and self.metrics.needs_truth:
            raise UsageError(f"{results.path}: {self.kind} is scored against truth; name it with --truth")
        if options.by is not None:
            raise UsageError(f"--by {options.by}: the scores of {self.kind} are not told apart by anything")
        if options.tolerances is not None and not (len(options.tolerances) == 1 and options.tolerances[0] >= 0):
            raise UsageError(f"--tolerance: {self.kind} takes one share of the true number, such as 0.05")
        valid = self.metrics.valid_baselines
        unknown = [name for name in options.baselines or () if name not in valid]
        if unknown:
            raise UsageError(f"no baseline {', '.join(unknown)} (valid: {', '.join([*valid, 'none'])})")


def _rows(results: Results, columns: frozenset[str]) -> pl.DataFrame:
    lazy = results.scan(unfinished=True)
    wanted = columns | set(_COMMON)
    rows = lazy.select(name for name in lazy.collect_schema().names() if name in wanted).collect()
    if rows.is_empty():
        raise UsageError(f"{results.path}: there are no rows; run the job first")
    return rows.sort("source", "chunk_key")


def _read_again(results: Results, plan: PlanStore, chunk_keys: Sequence[str]) -> Iterator[Record]:
    """Yield the records of chunks that can still be read as they were; one part of the plan is in memory at a time."""
    reader = make_reader(results.loaded, RULES["replay"])
    wanted = set(chunk_keys)
    for part in range(plan.parts()):
        chunks = [entry.chunk for entry in plan.entries(part) if entry.chunk.key in wanted]
        facts = SourceFacts.of(plan, {address.path for chunk in chunks for address in chunk.inputs})
        for record in reader.read(chunks):
            if record.payload is not None and facts.changed(record) is None:
                yield record


def _table(table: ScoreTable) -> Iterator[str]:
    counts = list(dict.fromkeys(name for line in table.lines for name in line.counts))
    names = list(dict.fromkeys(name for line in table.lines for name in line.estimates))
    cells = [
        [
            line.name,
            f"{line.n:,}",
            *(f"{line.counts[name]:,}" if name in line.counts else "" for name in counts),
            *(estimate_text(line.estimates[name]) if name in line.estimates else "" for name in names),
        ]
        for line in table.lines
    ]
    yield from table_lines(("", f"n ({table.of})", *counts, *names), cells)
