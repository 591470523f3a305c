"""A score as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from s1batch.jobs.scoring.bootstrap import Estimate
from s1batch.jobs.scoring.metrics import MethodScore, Residuals
from s1batch.jobs.scoring.phases import PHASES, Phase
from s1batch.jobs.scoring.stations import StationScore
from s1batch.score import ScoreReport

BAR_WIDTH = 50


def score_lines(report: ScoreReport) -> Iterator[str]:
    """Yield what was scored, the scores of every method, and the residuals of the results' own picks."""
    yield from _what(report)
    own = report.methods[0]
    yield ""
    yield "detection: windows that hold an onset"
    yield from table_lines(
        ("", "precision", "recall", "recall over all", "F1"), [_detection(one) for one in report.methods]
    )
    found = own.detection
    yield (
        f"n: {found.n_positive:,} of {found.n_windows:,} answered windows hold an onset, {found.n_positive_all:,} of "
        f"all {found.n_windows_all:,}; {found.n_said:,} were said to ({own.name}), {found.hits:,} rightly"
    )
    for phase in PHASES:
        yield ""
        yield f"{phase}: picks within a tolerance"
        names = ("", "within", "hits", "picks", "precision", "recall", "recall over all", "F1")
        yield from table_lines(names, [line for one in report.methods for line in _tolerances(one, phase)])
        mine = own.phases[phase]
        yield f"n: {mine.n_onsets:,} onsets in answered windows, {mine.n_onsets_all:,} in all windows"
    yield ""
    yield f"residuals: pick minus onset in s, of the pairs within {report.tolerances_s[-1]:g} s"
    names = ("", "", "n", "median", "mean", "std", "MAE", "within-second correlation")
    yield from table_lines(names, [_residuals(one, phase) for phase in PHASES for one in report.methods])
    for phase in PHASES:
        yield from _histogram(phase, own.phases[phase].residuals)
    if report.by_station:
        yield ""
        yield f"by station ({own.name})"
        yield from _stations(report.by_station, report.tolerances_s)
    yield ""
    yield _how(report)
    yield from (f"note: {note}" for note in report.notes)


def _what(report: ScoreReport) -> Iterator[str]:
    truth = report.truth
    yield f"{report.results}: {report.picks} picks of {report.model or 'no model'}"
    counts = ", ".join(f"{truth.onsets[phase]:,} {phase}" for phase in PHASES)
    yield f"truth: {counts} onsets in {truth.source}"
    left_out = (
        (truth.elsewhere, "at stations that the results do not have"),
        (truth.unplaced, "in files that the results do not have"),
        (truth.other_phases, "of other phases, or behind the first arrival of their event"),
    )
    for count, what in left_out:
        if count:
            yield f"  left out: {count:,} {what}"
    if truth.skipped:
        yield f"  files without picks: {', '.join(truth.skipped)}"
    if truth.stations_without:
        stations = f"{truth.stations_without:,} of {report.stations:,} stations"
        yield f"  {stations} have no onset in a window: picks there count as wrong"
    rows = ", ".join(f"{count:,} {outcome}" for outcome, count in report.outcomes.items())
    yield f"rows: {rows}; parse rate {estimate_text(report.parse_rate)} of {report.responses:,} responses"
    if report.unplaced_rows:
        yield f"  not scored: {report.unplaced_rows:,} rows without a window in time"
    if report.missing_rows:
        yield f"  not scored: {report.missing_rows:,} planned windows that have no row yet"


def _how(report: ScoreReport) -> str:
    drawn = report.resampled
    if drawn["n"] < 2:
        return "no intervals: there is one window only"
    how = f"{drawn['repeats']:,} times, seed {drawn['seed']}"
    return f"[...]: 95 % intervals, bootstrap over {drawn['n']:,} {drawn['unit']} ({how})"


def _detection(method: MethodScore) -> list[str]:
    found = method.detection
    return [method.name, *map(estimate_text, (found.precision, found.recall, found.recall_all, found.f1))]


def _tolerances(method: MethodScore, phase: Phase) -> list[list[str]]:
    found = method.phases[phase]
    return [
        [
            method.name if number == 0 else "",
            f"{one.tolerance_s:g} s",
            f"{one.hits:,}",
            f"{found.n_picks:,}",
            *map(estimate_text, (one.precision, one.recall, one.recall_all, one.f1)),
        ]
        for number, one in enumerate(found.tolerances)
    ]


def _residuals(method: MethodScore, phase: Phase) -> list[str]:
    found, within = method.phases[phase].residuals, method.phases[phase].within_second
    estimates = (found.median_s, found.mean_s, found.std_s, found.mae_s)
    correlation = "-" if within.correlation is None else f"{within.correlation:.2f}"
    return [phase, method.name, f"{found.n:,}", *map(estimate_text, estimates), f"{correlation} (n {within.n:,})"]


def _histogram(phase: Phase, residuals: Residuals) -> Iterator[str]:
    if residuals.n == 0:
        return
    most = max(residuals.counts)
    yield ""
    for low, high, count in zip(residuals.edges_s[:-1], residuals.edges_s[1:], residuals.counts, strict=True):
        bar = "#" * -(-count * BAR_WIDTH // most)
        yield f"  {phase} {low:+6.2f} to {high:+6.2f} s {count:>7,} {bar}".rstrip()


def _stations(stations: Sequence[StationScore], tolerances_s: Sequence[float]) -> Iterator[str]:
    names = ["", "windows", "answered", "right", "false", "missed"]
    for phase in PHASES:
        names += [f"{phase} onsets", f"{phase} picks", *(f"F1 {tolerance_s:g} s" for tolerance_s in tolerances_s)]
    lines = []
    for one in stations:
        counts = (one.n_windows, one.n_answered, one.detection_hits, one.detection_false, one.detection_missed)
        line = [one.station, *(f"{count:,}" for count in counts)]
        for phase in PHASES:
            found = one.phases[phase]
            line += [f"{found.n_onsets:,}", f"{found.n_picks:,}"]
            line += ["-" if value is None else f"{value:.2f}" for value in found.f1]
        lines.append(line)
    yield from table_lines(names, lines)


def estimate_text(estimate: Estimate) -> str:
    """Return a number with its interval, - where it is not defined."""
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f} {estimate.high:.3f}]"


def table_lines(names: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield lines of aligned columns; text from files and models is made printable."""
    cells = [["".join(letter if letter.isprintable() else "�" for letter in cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    for line in (list(names), *cells):
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
