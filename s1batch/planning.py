"""Makes the plan of a results folder, extends it, and tells which files are not in it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from s1batch.assembly import EngineFacts, make_sampling, make_settings, text_counter
from s1batch.engine.rules import Rules
from s1batch.errors import Interrupted, UsageError
from s1batch.first_prompts import FirstPrompts
from s1batch.jobfile import LoadedJob
from s1batch.jobs.base import Job
from s1batch.plan_store import PlanStore, PlanWriter
from s1batch.planner import Planner, PlanTotals
from s1batch.readers.base import Reader
from s1batch.records import InventoryItem, PlanEntry


def make_planner(loaded: LoadedJob, facts: EngineFacts, job: Job, first_part: int = 0) -> Planner:
    """Return the planner of a job."""
    return Planner(
        facts.rules,
        job,
        make_sampling(loaded),
        text_counter(loaded, facts),
        part_chunks=loaded.spec.run.part_chunks,
        first_part=first_part,
    )


def write_plan(
    loaded: LoadedJob,
    facts: EngineFacts,
    job: Job,
    reader: Reader,
    path: Path,
    stop: threading.Event | None = None,
) -> PlanTotals:
    """Plan the archive into plan.parquet and inventory.parquet, in bounded memory.

    Returns:
        What it adds up to.

    Raises:
        JobFileError: A template uses a name that the first records do not have; there is no plan then.
        Interrupted: `stop` was set; likewise.
    """
    planner = make_planner(loaded, facts, job)
    prompts = FirstPrompts(job, reader, make_settings(loaded, facts.model))
    with PlanWriter(path) as writer:
        for item in prompts.tried(planner.complete(_until(stop, reader.plan()))):
            writer.add(item)
    return planner.totals


def extend_plan(
    loaded: LoadedJob,
    facts: EngineFacts,
    job: Job,
    reader: Reader,
    plan: PlanStore,
    stop: threading.Event | None = None,
) -> int:
    """Append the chunks that the archive has and the plan has not, as new parts; take the new inventory.

    Returns:
        How many chunks were added.

    Raises:
        Interrupted: `stop` was set; the plan is as before then.
    """
    known = frozenset(plan.scan().select("chunk_key").collect()["chunk_key"])
    planner = make_planner(loaded, facts, job, first_part=plan.parts())
    with plan.extend() as writer:
        for item in planner.complete(_new(_until(stop, reader.plan()), known)):
            writer.add(item)
    return planner.totals.chunks


def unplanned_files(reader: Reader, plan: PlanStore) -> int:
    """Return how many files the archive has that the plan does not know."""
    known = plan.files()
    return sum(path not in known for path in reader.files())


def check_shared_endpoints(rules: Rules, plan: PlanStore) -> None:
    """Refuse series of mixed shapes at endpoints that several clients feed without knowing of each other.

    One client keeps batching classes apart; several cannot, and two series of different shapes that such an engine
    prefills together break it or corrupt the answers.

    Raises:
        UsageError: The plan asks about series of more than one shape, and the engine must not meet them together.
    """
    import polars as pl

    if not rules.exclusive_series:
        return
    shapes = plan.scan().filter(pl.col("admission").is_null() & pl.col("steps").is_not_null())
    count = shapes.select("steps", "channels", "rate_hz").unique().select(pl.len()).collect().item()
    if count > 1:
        raise UsageError(
            f"the plan has series of {count} different shapes, which {rules.name} must not prefill together, and "
            "several clients cannot keep them apart; run without shards and with --scheduler inline, or give all "
            "windows one shape (source.rate_hz, window.tail: shift or pad), or start the server with single-prefill "
            "settings and set engine.single_prefill"
        )


def _new(items: Iterable[InventoryItem | PlanEntry], known: frozenset[str]) -> Iterator[InventoryItem | PlanEntry]:
    for item in items:
        if isinstance(item, PlanEntry):
            if item.chunk.key in known:
                continue
            if item.condition in known:
                # Its scan is in an older part, and decided already about the windows that there were.
                item = replace(item, condition=None)
        yield item


def _until(
    stop: threading.Event | None, items: Iterable[InventoryItem | PlanEntry]
) -> Iterator[InventoryItem | PlanEntry]:
    for item in items:
        if stop is not None and stop.is_set():
            raise Interrupted("stopped while the plan was made")
        yield item
