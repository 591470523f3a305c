"""The whole path under Hypothesis: whatever the archive, the order, the failures and the stops, it ends clean."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import s1batch
from s1batch.errors import EngineUnavailable, Interrupted, ResultsError
from s1batch.execution import RunOptions
from s1batch.subset import Shard
from tests.archives import START, write_trace
from tests.faults.scripted import Script, acting

DIFFERING = ["seconds", "attempts", "prompt_tokens", "cached_tokens", "output_tokens"]
"""Timings, and what stands in the row of whoever asked first of several identical questions."""


@dataclass(frozen=True)
class Trace:
    """One file of one channel: stretches of samples with gaps before them, in samples."""

    station: str
    channel: str
    rate: float
    stretches: tuple[tuple[int, int], ...]
    constant: bool
    seed: int


traces = st.builds(
    Trace,
    station=st.sampled_from(["AAA", "BBB"]),
    channel=st.sampled_from(["HHZ", "HHN", "HHE"]),
    rate=st.sampled_from([10.0, 20.0, 33.3]),
    stretches=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 900)), min_size=1, max_size=3).map(tuple),
    constant=st.booleans(),
    seed=st.integers(0, 3),
)
windows = st.fixed_dictionaries(
    {
        "length": st.sampled_from(["5s", "10s", "150"]),
        "overlap": st.sampled_from(["0%", "50%", "1s"]),
        "tail": st.sampled_from(["shift", "pad", "short"]),
        "max_gap_frac": st.sampled_from([0.1, 1.0]),
    }
)
scripts = st.builds(
    Script,
    failing=st.frozensets(st.integers(0, 4), max_size=3),
    dies_at=st.none() | st.integers(0, 30),
    stop_at=st.none() | st.integers(0, 30),
    full_at=st.none() | st.integers(0, 30),
    stuck_at=st.none() | st.integers(0, 3),
    salt=st.integers(0, 2**16),
)
blocks = st.fixed_dictionaries(
    {"part_chunks": st.integers(1, 12), "parts_in_flight": st.integers(1, 4), "prefetch": st.integers(1, 4)}
)
options = st.builds(
    RunOptions,
    limit=st.none() | st.integers(1, 20),
    shard=st.none() | st.sampled_from([Shard(0, 2), Shard(1, 2), Shard(2, 3)]),
) | st.just(RunOptions(retry=("failed",)))
rounds = st.lists(st.tuples(scripts, blocks, options), min_size=1, max_size=4)


def write(folder: Path, archive: list[Trace]) -> None:
    """Write the files; where two files hold the same channel at the same time, one of them is a duplicate."""
    for number, trace in enumerate(archive):
        noise = np.random.default_rng(trace.seed)
        position = 0
        for part, (gap, length) in enumerate(trace.stretches):
            position += gap
            samples = np.full(length, 7.0) if trace.constant else noise.normal(0, 1000, length)
            path = folder / f"{number}-{part}.mseed"
            start = START + position / trace.rate
            write_trace(path, samples, channel=trace.channel, station=trace.station, start=start, rate=trace.rate)
            position += length


def table(results: s1batch.api.Results) -> pl.DataFrame:
    frame = results.scan().collect().sort("chunk_key").drop(DIFFERING)
    assert frame["chunk_key"].is_unique().all()
    return frame.drop("part")


def check(archive: list[Trace], window: dict, missing: str, plan: list) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "archive", archive)
        job = {
            "source": {"kind": "seismic", "paths": [f"{folder}/archive/*"], "missing": missing},
            "window": window,
            "job": {"kind": "seismic-pick"},
            "engine": {"kind": "replay", "function": "tests.faults.scripted:answer"},
        }
        out = folder / "out"
        answered: set[str] = set()
        for script, block, how in plan:
            script.asked.clear()
            script.stop.clear()
            try:
                with acting(script):
                    s1batch.run({**job, "run": {**block, "drain_s": 5}}, out, options=how, stop=script.stop)
            except (Interrupted, ResultsError, EngineUnavailable) as error:
                note(f"{type(error).__name__}: {error}")
            repeated = answered.intersection(script.asked)
            assert not repeated, f"asked again: {repeated}"
            rows = s1batch.open_results(out).scan(unfinished=True).collect()
            assert rows["chunk_key"].is_unique().all()
            now = set(rows.filter(pl.col("outcome") == "ok")["fingerprint"])
            assert answered <= now, "an answer that was on file is gone"
            answered = now
        last = Script()
        with acting(last):
            results = s1batch.run(job, out, options=RunOptions(retry=("failed",)))
        assert not answered.intersection(last.asked)
        assert results.verify(sources=True).complete
        assert not list((out / "journal").iterdir())
        with acting(Script()):
            whole = s1batch.run(job, folder / "whole")
        assert table(results).equals(table(whole))
        assert results.summary.outcomes == whole.summary.outcomes


relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@given(st.lists(traces, min_size=1, max_size=4), windows, st.sampled_from(["fill", "refuse"]), rounds)
@settings(relaxed, max_examples=5)
def test_any_history_ends_in_the_rows_of_an_undisturbed_run(archive, window, missing, plan):
    """Random segments, gaps, rates, windows; any order of completions; failures, stops, a dead engine, a bad disk."""
    check(archive, window, missing, plan)


@pytest.mark.slow
@given(st.lists(traces, min_size=1, max_size=4), windows, st.sampled_from(["fill", "refuse"]), rounds)
@settings(relaxed, max_examples=80)
def test_many_histories_end_in_the_rows_of_an_undisturbed_run(archive, window, missing, plan):
    """The same, many times."""
    check(archive, window, missing, plan)
