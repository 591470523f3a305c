"""Runs over real servers that fail in all the ways that servers do: every row right, or with the reason why not."""

from __future__ import annotations

from contextlib import ExitStack

import polars as pl
import pytest

import s1batch
from tests.faults.runs import (
    ask_job,
    http,
    one_line,
    rows,
    run,
    serve,
    start,
    stored,
    wait_for_journal,
    write_job,
    write_table,
)

ANSWER = ("--answer", "tests.loopback:hashed_answer")
RUN = {"part_chunks": 100, "parts_in_flight": 2}


@pytest.fixture(scope="module")
def good():
    """Three servers in order, and the address of one that is not there."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serve("--latency-s", "0.02", *ANSWER)) for _ in range(3)]
        with serve() as gone:
            pass
        yield [server.url for server in servers], gone.url


@pytest.fixture(scope="module")
def undisturbed(good, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    table = write_table(folder, [f"stone {number}" for number in range(400)])
    s1batch.run(ask_job(table, http(*good[0]), run=RUN), folder / "out")
    return table, rows(folder / "out")


TROUBLES = {
    "dead": None,
    "hanging": ("--script", "tests.faults.troubles:hanging"),
    "hanging everywhere": ("--outage", "tests.faults.troubles:HANGING"),
    "HTML": ("--script", "tests.faults.troubles:html"),
    "HTML everywhere": ("--outage", "tests.faults.troubles:HTML"),
    "garbage": ("--script", "tests.faults.troubles:garbage"),
    "garbage everywhere": ("--outage", "tests.faults.troubles:GARBAGE"),
    "an error with status 200": ("--script", "tests.faults.troubles:error_200"),
    "an error with status 200 everywhere": ("--outage", "tests.faults.troubles:ERROR_200"),
    "closing in mid-body": ("--script", "tests.faults.troubles:cut"),
    "closing everywhere": ("--outage", "tests.faults.troubles:DROPPED"),
    "ten times slower": ("--script", "tests.faults.troubles:slow"),
}


QUICK = ("dead", "HTML everywhere", "closing in mid-body")
PATIENCE = {"hanging": 4.0, "hanging everywhere": 4.0}
"""Seconds that a request waits for an answer; where none must come in time, what comes at all comes in time."""


@pytest.mark.parametrize(
    "trouble", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TROUBLES]
)
def test_one_bad_endpoint_of_four_costs_no_row(trouble, good, undisturbed, tmp_path, monkeypatch):
    """The others carry on; each request waits for a bad endpoint once at most, not each row for its timeout."""
    monkeypatch.setattr("s1batch.engine.http.client.PROBE_TIMEOUT_S", 1.0)
    urls, gone = good
    table, expected = undisturbed
    with ExitStack() as stack:
        bad = gone
        if (options := TROUBLES[trouble]) is not None:
            bad = stack.enter_context(serve("--latency-s", "0.02", *ANSWER, *options, log=tmp_path / "bad")).url
        engine = http(bad, *urls, timeout_s=PATIENCE.get(trouble, 60.0))
        results = s1batch.run(ask_job(table, engine, run=RUN), tmp_path / "out")
    asked = (tmp_path / "bad").read_text().split() if (tmp_path / "bad").exists() else []
    print(f"\none of four is {trouble}: it was asked {len(asked)} of 400 questions")
    assert results.summary.outcomes == {"ok": 400}
    assert rows(tmp_path / "out").equals(expected)
    assert results.verify().ok
    assert len(asked) == len(set(asked)), "a request waited for it twice"


@pytest.mark.slow
def test_too_many_requests_are_put_off_and_all_answered(undisturbed, tmp_path):
    """Every third request gets 429 with Retry-After."""
    table, expected = undisturbed
    with ExitStack() as stack:
        options = ("--latency-s", "0.005", *ANSWER, "--script", "tests.faults.troubles:busy")
        urls = [stack.enter_context(serve(*options)).url for _ in range(2)]
        engine = http(*urls, max_in_flight=64, max_attempts=50)
        results = s1batch.run(ask_job(table, engine, run=RUN), tmp_path / "out")
    assert results.summary.outcomes == {"ok": 400}
    assert rows(tmp_path / "out").equals(expected)


@pytest.mark.slow
def test_refused_requests_cost_their_own_row_and_can_be_asked_again(tmp_path):
    """50 of 2,000 requests get 400: 1,950 right rows, 50 that say why, exit 3; a mended server answers those 50."""
    texts = [f"poison {number}" if number % 40 == 7 else f"stone {number}" for number in range(2000)]
    table = write_table(tmp_path, texts)
    with serve("--latency-s", "0.005", *ANSWER, "--script", "tests.faults.troubles:fussy") as server:
        port = server.url.rpartition(":")[2]
        job = write_job(tmp_path, ask_job(table, http(server.url, max_in_flight=64)))
        first = run(job)
    assert first.process.returncode == 3, first.said
    found = rows(tmp_path / "out")
    assert found.filter(pl.col("outcome") == "ok").height == 1950
    bad = found.filter(pl.col("outcome") == "failed")
    assert bad.height == 50
    assert set(bad["reason"]) == {"bad_request"}
    assert all("not about poison" in detail for detail in bad["detail"])
    assert "50  failed" in first.said
    with serve("--latency-s", "0.005", *ANSWER, "--port", port, log=tmp_path / "log") as server:
        second = run(job, "--retry", "failed")
        assert second.process.returncode == 0, second.said
        assert len(server.asked()) == 50
        whole = run(job, out=tmp_path / "whole")
        assert whole.process.returncode == 0
    assert rows(tmp_path / "out").equals(rows(tmp_path / "whole"))
    assert s1batch.open_results(tmp_path / "out").verify().ok


@pytest.mark.slow
def test_failures_in_journals_of_unfinished_parts_are_asked_again_too(tmp_path):
    """A run that was cut short has failed rows in journals; `--retry failed` reaches them."""
    texts = [f"poison {number}" if number < 20 else f"stone {number}" for number in range(400)]
    table = write_table(tmp_path, texts)
    with serve("--latency-s", "0.05", *ANSWER, "--script", "tests.faults.troubles:fussy_then_silent") as server:
        port = server.url.rpartition(":")[2]
        job = write_job(tmp_path, ask_job(table, http(server.url, max_in_flight=8), run={"part_chunks": 400}))
        cut = start(job)
        wait_for_journal(tmp_path / "out", cut, 20_000)
        cut.kill()
    assert stored(tmp_path / "out").filter(pl.col("outcome") == "failed").height == 20
    with serve("--latency-s", "0.005", *ANSWER, "--port", port):
        second = run(job, "--retry", "failed")
    assert second.process.returncode == 0, second.said
    assert s1batch.open_results(tmp_path / "out").verify().ok


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "broken", "hanging"])
def test_when_all_endpoints_are_dead_the_run_ends_and_goes_on_later(how, tmp_path):
    """Exit 1 with one line, also when the servers still list their models; what was answered is not asked again."""
    table = write_table(tmp_path, [f"stone {number}" for number in range(600)])
    with ExitStack() as stack:
        silent = ("--script", "tests.faults.troubles:then_silent")
        servers = [stack.enter_context(serve("--latency-s", "0.1", *ANSWER, *silent)) for _ in range(2)]
        ports = [server.url.rpartition(":")[2] for server in servers]
        engine = http(*(server.url for server in servers), max_in_flight=8, timeout_s=5.0, unavailable_after_s=3.0)
        job = write_job(tmp_path, ask_job(table, engine, run={"part_chunks": 50}))
        running = start(job)
        wait_for_journal(tmp_path / "out", running)
        for server, port in zip(servers, ports, strict=True):
            server.stop()
            if how != "killed":
                stack.enter_context(serve(*ANSWER, "--port", port, "--script", f"tests.faults.troubles:{how}"))
        assert running.wait() == 1, running.said
        running.wait_for_children()
        assert "run again to go on" in one_line(running.said)
    known = set(stored(tmp_path / "out").filter(pl.col("outcome") == "ok")["digest"])
    assert known
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serve("--latency-s", "0.01", *ANSWER, "--port", port, log=tmp_path / port))
            for port in ports
        ]
        again = run(job, "--retry", "failed")
        assert again.process.returncode == 0, again.said
        assert not known.intersection(servers[0].asked() + servers[1].asked())


@pytest.mark.slow
def test_no_endpoint_at_the_start_is_one_line_and_exit_1(good, tmp_path):
    """Nothing is planned or written before an endpoint answers."""
    job = write_job(tmp_path, ask_job(write_table(tmp_path, ["granite"]), http(good[1])))
    ended = run(job)
    assert ended.process.returncode == 1
    assert "no endpoint answers" in one_line(ended.said)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["HTML", "ERROR_200"])
def test_only_gateways_that_know_no_model_are_no_endpoints(trouble, tmp_path):
    """A page for people with status 200 in place of the models is said to be what it is."""
    with serve("--outage", f"tests.faults.troubles:{trouble}") as server:
        ended = run(write_job(tmp_path, ask_job(write_table(tmp_path, ["granite"]), http(server.url))))
    assert ended.process.returncode == 1
    assert "something else than a list of models" in one_line(ended.said)


@pytest.mark.slow
def test_the_key_stands_in_no_file_and_in_no_output(tmp_path, monkeypatch):
    """Even when the server repeats it in errors and in answers."""
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv("THE_KEY", key)
    monkeypatch.setenv("GOSSIP", key)
    table = write_table(tmp_path, [f"stone {number}" for number in range(60)])
    options = ("--script", "tests.faults.troubles:gossip", "--answer", "tests.faults.troubles:gossiping_answer")
    with serve("--latency-s", "0.005", *options) as server:
        job = write_job(tmp_path, ask_job(table, http(server.url, api_key_env="THE_KEY")))
        killed = start(job, sabotage={"kill_at_write": 30})
        killed.wait()
        journals = b"".join(path.read_bytes() for path in (tmp_path / "out" / "journal").iterdir())
        assert b"***" in journals
        assert key.encode() not in journals
        ended = run(job)
    assert ended.process.returncode == 3, ended.said
    assert key not in killed.said + ended.said
    for path in (tmp_path / "out").rglob("*"):
        if path.suffix == ".parquet":
            assert key not in str(pl.read_parquet(path).to_dicts()), path
        elif path.is_file():
            assert key.encode() not in path.read_bytes(), path
    assert all("***" in detail for detail in rows(tmp_path / "out").filter(pl.col("outcome") == "failed")["detail"])
