"""What exactly would be asked: prompts, token maps and plots of a few chunks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from s1batch.assembly import engine_facts, make_job, make_reader, make_settings, text_counter
from s1batch.errors import SourceError
from s1batch.jobfile import LoadedJob
from s1batch.jobs.template import series_of
from s1batch.plotting import plot_series, sparkline
from s1batch.prefix_advice import prefix_advice
from s1batch.records import ImagePart, PlanEntry, Record, Request, SeriesPart, TextPart
from s1batch.times import format_ns
from s1batch.token_map import render, token_map

SPARK_WIDTH = 72


def preview_lines(loaded: LoadedJob, count: int, plots: Path | None, *, offline: bool = False) -> Iterator[str]:
    """Yield the lines of a preview.

    Args:
        loaded: The job.
        count: How many chunks that can be asked are shown.
        plots: Folder for PNG files of the series; None draws none.
        offline: Contact no endpoint.
    """
    facts = engine_facts(loaded, offline=offline)
    job, reader = make_job(loaded), make_reader(loaded, facts.rules)
    settings, count_text = make_settings(loaded, facts.model), text_counter(loaded, facts)
    if facts.told:
        yield facts.told
    if (advice := prefix_advice(job.pieces, count_text)) is not None:
        yield advice
    entries = (item for item in reader.plan() if isinstance(item, PlanEntry) and item.refusal is None)
    shown = 0
    for entry in itertools.islice(entries, count):
        shown += 1
        (record,) = reader.read([entry.chunk])
        yield f"=== {shown}: {entry.label}  {_span(entry)}"
        yield f"chunk {entry.chunk.key}"
        if record.refusal is not None:
            yield f"{record.refusal.outcome}: {record.refusal.reason}: {record.refusal.detail}"
            continue
        try:
            request = job.prepare(record, settings)
        except SourceError as error:
            yield f"refused: {error.reason}: {error}"
            continue
        told = facts.rules.adapt(request)
        refusal = facts.rules.admit_request(told, count_text(told.text))
        if refusal is not None:
            yield f"{refusal.outcome}: {refusal.reason}: {refusal.detail}"
        yield from _prompt(told, count_text)
        yield from render(token_map(told.messages, count_text, entry.prompt_tokens or None))
        yield from _series(entry, record, plots, shown)
    if shown == 0:
        yield "no chunk of this job can be asked; `s1batch plan` says why"


def _span(entry: PlanEntry) -> str:
    chunk = entry.chunk
    times = chunk.times_ns
    if times is not None:
        return f"{format_ns(times[0])} to {format_ns(times[1])}"
    return f"{chunk.dim} {chunk.start} to {chunk.stop}"


def _prompt(request: Request, count_text: Callable[[str], int]) -> Iterator[str]:
    if request.tools:
        yield f"[tools: {request.tool_choice}, {count_text(request.tools_text):,} tokens]"
        yield from (tool.text for tool in request.tools)
    for message in request.messages:
        yield f"[{message.role}]"
        for part in message.parts:
            if isinstance(part, TextPart):
                yield from part.text.splitlines() or [""]
            elif isinstance(part, SeriesPart):
                shape = part.shape
                told = f", told {part.declared_rate_hz:g} Hz" if part.declared_rate_hz is not None else ""
                if part.conditioned:
                    told += f", channels {', '.join(map(str, part.conditioned))} standardised"
                yield f"<series: {shape.steps} steps x {shape.channels} channels at {part.rate_hz:g} Hz{told}>"
            elif isinstance(part, ImagePart):
                yield f"<image: {part.mime}, {len(part.data):,} bytes>"
    if request.neutralised:
        yield f"({request.neutralised} special tokens in the text were made harmless)"
    sampling = request.sampling
    how = "greedy" if sampling.temperature == 0 else f"temperature {sampling.temperature:g}"
    thinking = "on" if sampling.thinking else "off"
    yield f"({how}, thinking {thinking}, at most {sampling.max_tokens} tokens, fingerprint {request.fingerprint})"


def _series(entry: PlanEntry, record: Record, plots: Path | None, number: int) -> Iterator[str]:
    for place, series in enumerate(series_of(record)):
        for column, channel in enumerate(series.channels):
            yield f"{channel:>16} {sparkline(series.values_TC[:, column], SPARK_WIDTH)}"
        if plots is not None:
            plots.mkdir(parents=True, exist_ok=True)
            which = f"-{place + 1}" if place else ""
            path = plots / f"{number:03d}-{entry.chunk.key}{which}.png"
            plot_series(series, title=f"{entry.label}  {_span(entry)}", path=path)
            yield f"plot: {path}"
