"""SIGKILL to any process at any moment: the rows of an undisturbed run, each once, and no known answer asked again."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import pytest

import s1batch
from tests.archives import pick_job, write_archive
from tests.faults.runs import (
    ask_job,
    has_grown,
    held,
    http,
    rows,
    run,
    serve,
    start,
    stored,
    write_job,
    write_table,
    written,
)

FAST = ("--set", "engine.max_in_flight=64")
OPTIONS = ("--answer", "tests.loopback:hashed_answer")


def digests(frame):
    """Return the hashes of requests that the server gave in these rows, as it computed them."""
    return set(frame["digest"].drop_nulls()) if "digest" in frame.columns else set()


def http_job(folder, server, texts, **changes):
    run_block = {"part_chunks": 50, "parts_in_flight": 3}
    engine = http(server.url, max_in_flight=8)
    return write_job(folder, ask_job(write_table(folder, texts), engine, run=run_block, **changes))


def wait_a_while(running, out, dice):
    """Wait for a random time, or until a random amount was written since now; the run may have ended by then."""
    if dice.random() < 0.4:
        time.sleep(dice.uniform(0.2, 2.5))
    else:
        has_grown(out, running, written(out) + dice.randrange(1, 25_000), timeout_s=60)


def kill_somebody(running, dice):
    """Kill the client, a worker or all; after a worker's death the run goes on for a while, until it is killed too."""
    victim = dice.choice(["client", "worker", "all"])
    workers = running.workers()
    if victim == "worker" and workers:
        with suppress(ProcessLookupError):
            os.kill(dice.choice(workers), signal.SIGKILL)
        time.sleep(dice.uniform(0.2, 1.0))
        victim = "all"
    running.kill(whole=victim == "all")


def check(job, total, *options):
    """Run to the end, twice; return the rows."""
    last = run(job, *options)
    assert last.process.returncode == 0, last.said
    again = run(job)
    assert "nothing to do" in again.said
    results = s1batch.open_results(job.parent / "out")
    assert results.verify().complete
    found = rows(job.parent / "out")
    assert found.height == total
    assert not list((job.parent / "out" / "journal").glob("*.journal"))
    return found


def test_no_journalled_answer_is_asked_again_by_any_row_that_it_serves(tmp_path):
    """The process dies between the rows of one shared answer; the other rows then take it from the journal."""
    texts = ["granite", "basalt", "gneiss"] * 30
    with serve(*OPTIONS, "--script", "tests.faults.troubles:two_hang", log=tmp_path / "log") as server:
        run_block = {"part_chunks": 15, "parts_in_flight": 6}
        job = write_job(tmp_path, ask_job(write_table(tmp_path, texts), http(server.url), run=run_block))
        killed = start(job, sabotage={"kill_at_write": 7})
        assert killed.wait() == -signal.SIGKILL
        known, before = stored(tmp_path / "out"), len(server.asked())
        assert (known.height, known["digest"].n_unique()) == (7, 1)
        found = check(job, 90)
        asked = server.asked()
    assert len(set(asked)) == 3
    assert known["digest"][0] not in asked[before:]
    assert set(found["outcome"]) == {"ok"}
    assert found["digest"].n_unique() == 3


@pytest.mark.slow
def test_an_answer_in_a_finished_part_serves_later_parts_too(tmp_path):
    """The part with the answer is finished and its journal gone when the run is killed."""
    texts = ["granite"] * 40 + [f"stone {number}" for number in range(40)] + ["granite"] * 40
    with serve("--latency-s", "0.01", *OPTIONS, log=tmp_path / "log") as server:
        run_block = {"part_chunks": 20, "parts_in_flight": 1}
        job = write_job(tmp_path, ask_job(write_table(tmp_path, texts), http(server.url), run=run_block))
        killed = start(job, sabotage={"kill_at_write": 55})
        assert killed.wait() == -signal.SIGKILL
        check(job, 120)
        asked = server.asked()
    assert len(set(asked)) == 41
    # Those on their way at the kill were asked again; the granite of the first part was not.
    assert asked.count(asked[0]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["inline", "local"])
def test_twenty_kills_of_an_http_run(tmp_path, scheduler):
    """Client, worker or all of them, twenty times; the server never hears a question whose answer was on file."""
    dice = random.Random(scheduler)
    texts = [f"stone number {number % 900}" if scheduler == "inline" else f"stone {number}" for number in range(1000)]
    options = ("--scheduler", "local", "--workers", "2") if scheduler == "local" else ("--scheduler", "inline")
    with serve("--latency-s", "0.12", *OPTIONS, log=tmp_path / "log") as server:
        job = http_job(tmp_path, server, texts)
        seen = []
        for _ in range(20):
            running = start(job, *options)
            wait_a_while(running, tmp_path / "out", dice)
            kill_somebody(running, dice)
            seen.append((len(server.asked()), digests(stored(tmp_path / "out"))))
        assert len(seen[-1][1]) > 50, "the kills came before any work"
        found = check(job, 1000, *FAST)
        asked = server.asked()
        for count, known in seen:
            repeated = known.intersection(asked[count:])
            assert not repeated, f"{len(repeated)} answers on file were asked again"
        whole = run(job, *FAST, out=tmp_path / "whole")
        assert whole.process.returncode == 0, whole.said
    sizes = [len(digests) for _, digests in seen]
    print(f"\n{scheduler}: {len(asked)} requests for {len(set(asked))} questions; known after each kill: {sizes}")
    tokens = ["prompt_tokens", "cached_tokens", "output_tokens"] if scheduler == "inline" else []
    assert found.drop(tokens).equals(rows(tmp_path / "whole").drop(tokens))


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["inline", "local"])
def test_twenty_kills_of_a_replay_run(tmp_path, scheduler, monkeypatch):
    """The same over seismic windows, answered by a function that notes each question."""
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    dice = random.Random(scheduler)
    archive = write_archive(tmp_path / "archive", stations=12, seconds=1000)
    engine = {"kind": "replay", "function": "tests.answers:slowly"}
    run_block = {"part_chunks": 16, "parts_in_flight": 2, "prefetch": 2}
    job = write_job(tmp_path, pick_job(archive, engine=engine, run=run_block))
    options = ("--scheduler", "local", "--workers", "2") if scheduler == "local" else ("--scheduler", "inline")
    seen = []
    for number in range(20):
        running = start(job, *options, env=held(600) if number == 0 else None)
        wait_a_while(running, tmp_path / "out", dice)
        kill_somebody(running, dice)
        asked = (tmp_path / "asked").read_text().split() if (tmp_path / "asked").exists() else []
        seen.append((len(asked), set(stored(tmp_path / "out")["fingerprint"])))
    assert len(seen[0][1]) < 1188, "nothing was left for the second run"
    found = check(job, 1188)
    asked = (tmp_path / "asked").read_text().split()
    for count, known in seen:
        assert not known.intersection(asked[count:]), "an answer on file was asked again"
    whole = run(job, out=tmp_path / "whole")
    assert whole.process.returncode == 0, whole.said
    sizes = [len(fingerprints) for _, fingerprints in seen]
    print(f"\n{scheduler}: {len(asked)} asked for {len(set(asked))} questions; known after each kill: {sizes}")
    assert found.equals(rows(tmp_path / "whole"))
