"""Carries one part from its plan to its result file: read -> prepare -> admit -> engine -> interpret -> row.

A part with scans is carried in two phases: first everything that no scan decides about, then, of the windows that
depend on scans, those that the rows of the scans call for; the others become rows `skipped`. A scan and its windows lie
in one part, so one writer decides under one lease, no worker waits for another one's part, shards stay free to take any
parts, and the decision needs nothing but rows that are stored already: after a kill it is the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from s1batch.errors import ResultsError
from s1batch.part_flow import Crew, Flow
from s1batch.part_gate import OpenPart
from s1batch.records import PlanEntry
from s1batch.results.part_writer import PartWriter
from s1batch.rows import refused_row
from s1batch.source_check import SourceFacts
from s1batch.triggers import Triggers


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSummary:
    """How a part ended.

    Attributes:
        part: Its number.
        outcomes: Rows by outcome, those of earlier runs included.
        finished: Whether the part's file is complete.
        asked: Rows that this run added.
    """

    part: int
    outcomes: Counter[str] = field(default_factory=Counter)
    finished: bool = False
    asked: int = 0


async def run_part(
    crew: Crew,
    writer: PartWriter,
    entries: Sequence[PlanEntry],
    facts: SourceFacts,
    place: OpenPart,
    only: Collection[str] | None = None,
    turn: int = 0,
) -> PartSummary:
    """Answer every entry of a part that has no row yet, and write the part's file when all have one.

    Args:
        crew: The worker's actors.
        writer: The part's open journal.
        entries: The part's lines of the plan.
        facts: Sizes and times of the part's files when they were planned.
        place: Told when the part is read.
        only: Chunk keys that this run is limited to; None means all.
        turn: Number of the turn that they belong to.

    Raises:
        Interrupted: The run is being stopped; what was answered is in the journal.
        EngineUnavailable: The engine is gone.
        ResultsError: The journal cannot be written.
    """
    done = writer.rows
    todo: list[PlanEntry] = []
    for entry in entries:
        if only is not None and entry.chunk.key not in only:
            continue
        if entry.chunk.key in done:
            crew.outlook.passed(turn, entry.refusal is None)
            continue
        if entry.refusal is not None:
            await crew.add(writer, refused_row(entry, entry.refusal))
        else:
            todo.append(entry)
    if first := [entry for entry in todo if entry.condition is None]:
        await Flow(crew, writer, facts, place, turn).run(first)
    if later := [entry for entry in todo if entry.condition is not None]:
        called_for = await _called_for(crew, writer, later)
        crew.outlook.passed(turn, len(later) - len(called_for))
        if called_for:
            place.reads_again()
            await Flow(crew, writer, facts, place, turn).run(called_for)
    rows = writer.rows
    order = [entry.chunk.key for entry in entries]
    finished = all(key in rows for key in order)
    outcomes: Counter[str] = Counter(row.outcome for row in rows.values())
    asked = len(rows) - len(done)
    if finished:
        await asyncio.get_running_loop().run_in_executor(crew.readers, writer.finish, order)
    return PartSummary(part=writer.part, outcomes=outcomes, finished=finished, asked=asked)


async def _called_for(crew: Crew, writer: PartWriter, entries: Sequence[PlanEntry]) -> list[PlanEntry]:
    """Return the conditional windows that their scans call for; the others get their rows."""
    triggers = Triggers(crew.job, crew.margin_s)
    rows = writer.rows
    chosen = []
    for number, entry in enumerate(entries):
        scan = rows.get(entry.condition or "")
        if scan is None:
            raise ResultsError(f"chunk {entry.chunk.key} depends on the scan {entry.condition}, which has no row")
        refusal = triggers.refusal(entry, scan)
        if refusal is None:
            chosen.append(entry)
        else:
            await crew.add(writer, refused_row(entry, refusal))
        if number % 256 == 255:
            await asyncio.sleep(0)  # the answers of other parts are waiting
    return chosen
