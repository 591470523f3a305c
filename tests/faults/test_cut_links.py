"""Cables that are pulled under a run: no connection is reset, and still no answer is waited for too long.

Servers take a second for each answer until the test lets them be quick, so a run is at work for as long as it takes.
"""

from __future__ import annotations

import time
from collections import Counter

import pytest

import s1batch
from s1batch.engine.http.http_client import VANISHED_AFTER_S
from tests.debian import CannotRun, give_up
from tests.faults.links import Network
from tests.faults.runs import ask_job, http, one_line, rows, serve, start, write_job, write_table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROWS = 6000
IN_FLIGHT = 16
MARGIN_S = 60.0
"""For a busy machine; a question's own deadline (`timeout_s`) is longer by far."""


@pytest.fixture
def network(monkeypatch, tmp_path):
    monkeypatch.setenv("HURRY", str(tmp_path / "hurry"))
    try:
        with Network("client", "one", "other") as network:
            yield network
    except CannotRun as reason:
        give_up(reason)


def server_on(network, host, tmp_path):
    return serve(
        *("--host", network.address(host), "--script", "tests.faults.troubles:no_hurry", "--latency-s", "0"),
        *("--answer", "tests.loopback:hashed_answer"),
        log=tmp_path / f"{host}.txt",
        inside=network.inside(host),
    )


def engine(*servers, **changes):
    urls = [server.url for server in servers]
    return http(*urls, max_in_flight=IN_FLIGHT, timeout_s=600.0, total_timeout_s=3600.0, **changes)


def job_of(folder, asked, rows_=ROWS):
    folder.mkdir()
    table = write_table(folder, [f"line {number}" for number in range(rows_)])
    return write_job(folder, ask_job(table, asked, run={"part_chunks": 100}))


def until(holds, running, timeout_s=120.0):
    give_up = time.monotonic() + timeout_s
    while not holds():
        assert running.process.poll() is None, running.wait() or running.said
        assert time.monotonic() < give_up, "in vain"
        time.sleep(0.1)


def check(job, count):
    table = rows(job.parent / "out")
    assert (table.height, set(table["outcome"])) == (count, {"ok"})
    verdict = s1batch.open_results(job.parent / "out").verify()
    assert (verdict.ok, verdict.complete) == (True, True)


def test_a_run_goes_on_with_the_other_endpoint_and_uses_the_first_again(network, tmp_path):
    with server_on(network, "one", tmp_path) as one, server_on(network, "other", tmp_path) as other:
        job = job_of(tmp_path / "job", engine(one, other))
        running = start(job, inside=network.inside("client"))
        until(lambda: len(one.asked()) >= 4 * IN_FLIGHT, running)
        network.pull("one")
        cut = time.monotonic()
        time.sleep(1)  # what was on the wire arrives
        held = set(one.asked()) - set(other.asked())
        reached = len(other.asked())
        until(lambda: len(other.asked()) > reached + IN_FLIGHT, running)  # at once, while the others wait
        until(lambda: held & set(other.asked()), running, VANISHED_AFTER_S + MARGIN_S)
        assert time.monotonic() - cut < VANISHED_AFTER_S + MARGIN_S
        network.plug("one")
        before = len(one.asked())
        until(lambda: len(one.asked()) > before, running)
        (tmp_path / "hurry").touch()
        assert running.wait(200) == 0, running.said
        check(job, ROWS)
        times = Counter(one.asked() + other.asked())
        twice = sum(times.values()) - len(times)
        assert twice <= IN_FLIGHT, "only what was on its way is asked again"


def test_the_only_endpoint_is_waited_for_and_given_up_after_its_time(network, tmp_path):
    """Two runs: one waits until the cable is back, the other one for five seconds only, and goes on when run again."""
    with server_on(network, "one", tmp_path) as one, server_on(network, "other", tmp_path) as other:
        patient = job_of(tmp_path / "patient", engine(one), 2000)
        hasty = job_of(tmp_path / "hasty", engine(other, unavailable_after_s=5.0), 2000)
        waits = start(patient, inside=network.inside("client"))
        ends = start(hasty, inside=network.inside("client"))
        until(lambda: len(one.asked()) >= 4 * IN_FLIGHT, waits)
        until(lambda: len(other.asked()) >= 4 * IN_FLIGHT, ends)
        network.pull("one")
        network.pull("other")
        cut = time.monotonic()
        assert ends.wait(200) == 1, ends.said
        assert time.monotonic() - cut < VANISHED_AFTER_S + 5 + 15 + 2 * MARGIN_S
        assert "run again" in one_line(ends.said)
        assert waits.process.poll() is None
        network.plug("one")
        network.plug("other")
        (tmp_path / "hurry").touch()
        again = start(hasty, inside=network.inside("client"))
        for running, job, server in ((waits, patient, one), (again, hasty, other)):
            assert running.wait(200) == 0, running.said
            check(job, 2000)
            times = Counter(server.asked())
            assert sum(times.values()) - len(times) <= IN_FLIGHT
