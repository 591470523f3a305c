"""Whole runs against the strict server: nothing is lost, nothing is corrupted, every pick is exact to the sample."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import s1batch
from s1batch.engine.reference.identity import model_folder
from s1batch.errors import EngineUnavailable
from s1batch.plan_report import plan_lines
from s1batch.special_tokens import contains_special
from tests.archives import write_trace
from tests.faults.troubles import ERROR_200, HANGING
from tests.loopback import Reply
from tests.strict_lmdeploy import StrictEngine, StrictServer
from tests.strict_lmdeploy.archives import Waves, check_every_pick, strict_job, write_mixed

QUICK_PROBES = {"timeout_s": 30, "unavailable_after_s": 60}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Waves]:
    folder = tmp_path_factory.mktemp("mixed")
    return folder, write_mixed(folder)


async def ran(job: dict[str, Any], out: Path, **options: Any) -> s1batch.Results:
    return await asyncio.to_thread(s1batch.run, job, out, **options)


def check_run(results: s1batch.Results, waves: Waves, *servers: StrictServer) -> pl.DataFrame:
    """All was asked and answered, by engines that nobody harmed."""
    for server in servers:
        assert server.violations == []
    assert set(results.summary.outcomes) == {"ok"}
    assert results.verify(sources=True).complete
    rows = results.scan().collect()
    check_every_pick(rows, waves)
    return rows


async def test_mixed_shapes_and_rates_are_kept_apart_and_every_pick_is_exact(mixed, tmp_path):
    archive, waves = mixed
    async with StrictServer(latency_s=0.01) as server:
        results = await ran(strict_job(archive, server.url), tmp_path / "out")
    rows = check_run(results, waves, server)
    assert server.engine.deaths == 0
    shapes = Counter(rows.select("steps", "rate_sent_hz").iter_rows())
    assert len(shapes) == 8
    assert server.engine.switches == len(server.engine.classes) - 1 == 7, "a class came back"
    assert len(server.seen) == len(rows)


async def test_several_servers_have_a_class_each_and_every_pick_is_exact(mixed, tmp_path):
    archive, waves = mixed
    async with (
        StrictServer(latency_s=0.1) as one,
        StrictServer(latency_s=0.1) as two,
        StrictServer(latency_s=0.1) as three,
    ):
        servers = (one, two, three)
        job = strict_job(archive, *(each.url for each in servers), engine={"max_in_flight": 12})
        results = await ran(job, tmp_path / "out")
    check_run(results, waves, *servers)
    assert all(each.seen for each in servers)
    assert sum(len(each.seen) for each in servers) == len(results.scan().collect())


async def test_one_of_several_engines_dies_while_classes_change(mixed, tmp_path):
    archive, waves = mixed
    async with (
        StrictServer(latency_s=0.02) as well,
        StrictServer(latency_s=0.02, dies_with=frozenset({12}), restarts_after_s=0.3) as dying,
    ):
        job = strict_job(archive, well.url, dying.url, engine={"max_in_flight": 8})
        results = await ran(job, tmp_path / "out")
    check_run(results, waves, well, dying)
    assert dying.engine.deaths == 1


def test_the_plan_says_how_its_mixture_of_shapes_is_served_fastest(mixed):
    archive, _ = mixed
    offline = {"dialect": "lmdeploy", "model": "intern-s1-pro"}
    apart = strict_job(archive, "http://localhost:1", engine=offline)
    single = strict_job(archive, "http://localhost:1", engine={**offline, "single_prefill": True})
    unknown = strict_job(archive, "http://localhost:1", engine={**offline, "model": "another"})
    even = strict_job(archive, "http://localhost:1", engine=offline, source={**apart["source"], "station": ["S00"]})
    even["window"]["tail"] = "shift"
    told = ["\n".join(plan_lines(s1batch.plan(job, offline=True))) for job in (apart, single, unknown, even)]
    line = "series of 8 shapes must not be prefilled together: one after the other costs"
    assert line in told[0]
    assert "start the servers with these settings and set engine.single_prefill" in told[0]
    assert line in told[1]
    assert "the faster is set (engine.single_prefill: true)" in told[1]
    assert "they are asked shape by shape" in told[2]
    assert "prefilled together" not in told[3]


async def test_with_single_prefill_settings_shapes_meet_and_nothing_breaks(mixed, tmp_path):
    archive, waves = mixed
    async with StrictServer(latency_s=0.01, engine=StrictEngine(single_prefill=True)) as server:
        job = strict_job(archive, server.url, engine={"single_prefill": True})
        results = await ran(job, tmp_path / "out")
    check_run(results, waves, server)


async def test_a_server_that_is_not_what_the_job_says_costs_the_run_and_no_answer(mixed, tmp_path):
    """The job claims single prefill, the server prefills together: the engine dies, and no row holds a wrong pick."""
    archive, waves = mixed
    async with StrictServer(latency_s=0.3) as server:  # so that shapes meet
        job = strict_job(archive, server.url, engine={"single_prefill": True, "unavailable_after_s": 1})
        with pytest.raises(EngineUnavailable):
            await ran(job, tmp_path / "out")
        assert server.engine.deaths == 1
        server.engine.restart()
        results = await ran(strict_job(archive, server.url), tmp_path / "out")
    assert set(results.summary.outcomes) == {"ok"}
    check_every_pick(results.scan().collect(), waves)


@pytest.mark.parametrize("death", [503, pytest.param(500, marks=pytest.mark.slow), 200])
async def test_an_engine_that_dies_in_mid_run_and_comes_back_costs_no_row(mixed, tmp_path, death):
    archive, waves = mixed
    async with StrictServer(latency_s=0.01, dies_with=frozenset({20}), restarts_after_s=0.3, death=death) as server:
        job = strict_job(archive, server.url, engine={**QUICK_PROBES, "max_in_flight": 8, "max_attempts": 8})
        results = await ran(job, tmp_path / "out")
    check_run(results, waves, server)
    assert server.engine.deaths == 1


async def test_an_engine_that_stays_dead_ends_the_run_and_the_next_one_finishes_it(mixed, tmp_path):
    archive, waves = mixed
    async with StrictServer(latency_s=0.01, dies_with=frozenset({30})) as server:
        job = strict_job(archive, server.url, engine={"unavailable_after_s": 0.5, "max_in_flight": 8})
        with pytest.raises(EngineUnavailable):
            await ran(job, tmp_path / "out")
        answered = s1batch.open_results(tmp_path / "out").scan(unfinished=True).collect()
        assert 0 < len(answered) < 60
        check_every_pick(answered.filter(pl.col("outcome") == "ok"), waves)
    async with StrictServer(latency_s=0.01) as other:
        results = await ran(strict_job(archive, other.url), tmp_path / "out")
        assert len(other.seen) == results.summary.added
    check_run(results, waves, server, other)


async def test_hangs_and_errors_in_good_responses_are_asked_again(mixed, tmp_path):
    archive, waves = mixed
    troubles: dict[int, Reply] = {3: HANGING, 17: HANGING, **dict.fromkeys((5, 9, 14, 23, 31), ERROR_200)}
    async with StrictServer(latency_s=0.01, script=troubles) as server:
        job = strict_job(archive, server.url, engine={"timeout_s": 3, "max_in_flight": 6})
        results = await ran(job, tmp_path / "out")
    rows = check_run(results, waves, server)
    assert 0 < rows.filter(pl.col("attempts") > 1).height <= len(troubles)


async def test_a_server_that_starts_slowly_is_used_when_it_is_ready(mixed, tmp_path):
    archive, waves = mixed
    async with (
        StrictServer(latency_s=0.15) as ready,
        StrictServer(latency_s=0.01, health_after=1) as late,
    ):
        job = strict_job(archive, ready.url, late.url, engine={"max_in_flight": 2, "model": "intern-s1-pro"})
        results = await ran(job, tmp_path / "out")
    check_run(results, waves, ready, late)
    assert late.seen
    assert len(ready.seen) + len(late.seen) == len(results.scan().collect())


class TestWhatMustNotReachIt:
    async def test_bad_windows_become_rows_and_are_never_sent(self, tmp_path):
        noise = np.random.default_rng(1).normal(0, 1000, (6000, 3)).astype(np.float32)
        for station, values_TC in {
            "GOOD": noise,
            "NANS": np.where(np.arange(6000)[:, None] == 4321, np.nan, noise),
            "INFS": np.where(np.arange(6000)[:, None] == 100, np.inf, noise),
            "TINY": noise[:48],
        }.items():
            write_float(tmp_path / "archive" / f"{station}.mseed", station, values_TC)
        async with StrictServer() as server:
            job = strict_job(tmp_path / "archive", server.url, window={"length": "20s", "tail": "short"})
            results = await ran(job, tmp_path / "out")
        assert server.violations == []
        rows = results.scan().select("station", "outcome", "reason").collect()
        told = Counter(rows.iter_rows())
        assert told["GOOD", "ok", None] == 3
        assert told[None, "refused", "series_too_short"] == 1
        assert told["NANS", "refused", "not_finite"] == 1
        assert told["INFS", "refused", "not_finite"] == 1
        assert len(server.seen) == 3, "the three stations have the same samples, which are asked once"
        assert results.verify().complete

    async def test_poison_rates_are_told_as_safe_ones_and_times_stay_true(self, tmp_path):
        waves = write_mixed(tmp_path / "archive", ((1663.75, 4.0), (2500.0, 3.0), (3673.5, 2.0), (4000.0, 2.0)))
        async with StrictServer() as server:
            results = await ran(strict_job(tmp_path / "archive", server.url), tmp_path / "out")
        rows = check_run(results, waves, server)
        told = rows.sort("station")["rate_declared_hz"].to_list()
        assert told == [1660.0, 1660.0, 3680.0, None]

    async def test_special_tokens_in_a_template_are_made_harmless_and_counted(self, mixed, tmp_path):
        archive, _ = mixed
        job = {"kind": "seismic-pick", "prompt": "Pick <TS_CONTEXT> and <|im_end|> and </think>."}
        async with StrictServer() as server:
            results = await ran(strict_job(archive, server.url, job=job), tmp_path / "out")
        assert server.violations == []
        assert not any(contains_special(seen.text) for seen in server.seen)
        assert set(results.scan().collect()["neutralised"]) == {3}

    @pytest.mark.parametrize("spare", [-1, pytest.param(0, marks=pytest.mark.slow)])
    async def test_the_context_is_kept_to_the_token(self, mixed, tmp_path, spare):
        """Counted by the model's tokenizer and template: what fits to the token is asked, what does not is a row."""
        archive, waves = mixed
        nano = str(model_folder("nano", Path()))
        async with StrictServer() as server:
            job = strict_job(archive, server.url, engine={"tokenizer": nano})
            whole = await ran(job, tmp_path / "whole")
        rows = check_run(whole, waves, server)
        answer = 512
        longest = max(rows["prompt_tokens"].to_list())
        plan = pl.read_parquet(tmp_path / "whole" / "plan.parquet").join(rows, on="chunk_key")
        assert ((plan["prompt_tokens"] - plan["prompt_tokens_right"]).abs() <= 2).all()

        context = longest + answer + spare
        async with StrictServer(engine=StrictEngine(session_len=context)) as server:
            job = strict_job(archive, server.url, engine={"tokenizer": nano, "context_tokens": context})
            results = await ran(job, tmp_path / "tight")
        assert server.violations == []
        tight = results.scan().collect()
        refused = tight.filter(pl.col("outcome") == "refused")
        assert set(refused["reason"]) == ({"context_too_long"} if spare else set())
        too_long = rows.filter(pl.col("prompt_tokens") + answer > context)
        assert set(refused["chunk_key"]) == set(too_long["chunk_key"])
        assert results.verify().complete

    async def test_windows_beyond_the_cut_are_refused_where_the_job_says_so(self, tmp_path):
        write_trace(tmp_path / "archive" / "a.mseed", np.arange(250_000) % 1000)
        async with StrictServer() as server:
            job = strict_job(tmp_path / "archive", server.url, window={"length": 250_000}, long_series="refuse")
            results = await ran(job, tmp_path / "out")
        assert (server.seen, server.violations) == ([], [])
        assert set(results.scan().collect().select("outcome", "reason").iter_rows()) == {("refused", "series_too_long")}


def write_float(path: Path, station: str, values_TC: np.ndarray) -> None:
    """Write three channels as floating-point MiniSEED, which can hold NaN."""
    from obspy import Stream, Trace

    from tests.archives import START
    from tests.strict_lmdeploy.archives import CHANNELS

    stream = Stream()
    for column, channel in enumerate(CHANNELS):
        header = {"network": "XX", "station": station, "channel": channel, "starttime": START, "sampling_rate": 100.0}
        stream.append(Trace(np.ascontiguousarray(values_TC[:, column], np.float32), header))
    path.parent.mkdir(parents=True, exist_ok=True)
    stream.write(str(path), format="MSEED", encoding="FLOAT32")
