"""Two nodes on one results folder, of which one is blocked, or sees late what the other one did."""

from __future__ import annotations

import errno
import time

import pytest

import s1batch
from s1batch.errors import LockedError
from s1batch.results.compaction import compact
from s1batch.results.lease import LeaseKeeper
from s1batch.results.process import ProcessIdentity
from s1batch.results.store import ResultsStore
from tests.faults.runs import run, stored
from tests.plans import SCHEMA, minutes, row
from tests.storage.mounts import FaultyMount
from tests.storage.steps import complete, fingerprints, under_way, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

A, B, C = minutes(3, per_part=3)
KEYS = [entry.chunk.key for entry in (A, B, C)]


@pytest.fixture
def other(fuse, tmp_path):
    """What another node sees of the results of `mount`."""
    with FaultyMount(tmp_path / "behind", tmp_path / "other") as mount:
        yield mount


def on_host(name):
    """Words in front of a command that runs on another host."""
    return ["unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"', "sh"]


def test_a_blocked_owner_keeps_its_lease_on_its_host_and_loses_it_to_another_one(mount, other, tmp_path):
    """The one that is blocked notices when it is let on, and writes no row and no file any more."""
    here = ProcessIdentity.current()
    elsewhere = ProcessIdentity(host="elsewhere", pid=1)
    blocked = LeaseKeeper(mount.folder / "leases", identity=here, stale_s=3.0, heartbeat_s=0.3)
    same = LeaseKeeper(other.folder / "leases", identity=here, stale_s=3.0, heartbeat_s=0.3)
    foreign = LeaseKeeper(other.folder / "leases", identity=elsewhere, stale_s=3.0, heartbeat_s=0.3)
    with blocked, same, foreign:
        lease = blocked.acquire("part-000000")
        mount.hangs()
        time.sleep(4)
        with pytest.raises(LockedError):
            same.acquire("part-000000")
        taken = foreign.acquire("part-000000")
        mount.goes_on()
        until(lambda: lease.lost)
        with pytest.raises(LockedError, match="took it over"):
            lease.check()
        taken.check()


def test_a_run_whose_node_was_taken_for_dead_writes_no_row_twice(mount, other, job, undisturbed):
    """One node is blocked until another one has finished the job; then it is let on, and ends by itself."""
    running = under_way(job, inside=on_host("blocked"))
    mount.hangs()
    before = len(fingerprints(job))
    out = other.folder
    known = set(stored(out)["fingerprint"])
    deadline = time.monotonic() + 200
    while True:
        second = run(job, out=out, inside=on_host("second"), timeout_s=150)
        if second.process.returncode != 4:
            break
        assert time.monotonic() < deadline, second.said
    assert second.process.returncode == 0, second.said
    asked = fingerprints(job)[before:]
    assert not known.intersection(asked), "answers on file were asked again"
    mount.goes_on()
    assert running.wait(90) == 4, running.said
    assert "took it over while this one stood still" in running.said
    running.wait_for_children()
    assert run(job).process.returncode == 0
    complete(job, undisturbed)


def test_rows_that_another_node_left_are_seen_though_listings_are_old(mount, other, tmp_path):
    """A listing may be as old as the cache of a network file system, unless one has changed the folder oneself."""
    layout = ResultsStore(mount.folder, SCHEMA).layout
    with ResultsStore(other.folder, None) as looking:
        assert list(layout.journals.parent.iterdir())
        with ResultsStore(mount.folder, SCHEMA) as store, store.open_part(0) as writer:
            writer.append(row(C))
        assert looking.begun() == {0}
        other.rules({"stale": True})
        with ResultsStore(mount.folder, SCHEMA) as store, store.open_part(0) as writer:
            writer.append(row(A))
        with ResultsStore(other.folder, SCHEMA) as store, store.open_part(0) as writer:
            assert set(writer.rows) == {A.chunk.key, C.chunk.key}


def test_a_run_that_is_done_elsewhere_is_seen_to_be_complete(mount, other, job, undisturbed):
    """The last parts are finished on another node a moment before this one counts."""
    assert run(job, "--shard", "0/2").process.returncode == 0
    out = other.folder
    first = run(job, "--shard", "0/2", out=out)
    assert first.process.returncode == 0, first.said
    other.rules({"stale": True})
    list(out.iterdir()), list((out / "rows").iterdir()), list((out / "journal").iterdir())
    assert run(job, "--shard", "1/2").process.returncode == 0
    before = fingerprints(job)
    last = run(job, out=out)
    assert last.process.returncode == 0, last.said
    assert fingerprints(job) == before, "what is on file was asked again"
    complete(job, undisturbed)


def test_a_compaction_beside_a_reader_leaves_every_row_once(mount, job, undisturbed):
    """Files that a reader has open stay as .nfs*, and keep their folder from going."""
    assert run(job).process.returncode == 0
    mount.rules({"ops": ["unlink"], "asides": True})
    path = next((mount.folder / "rows").glob("*.parquet"))
    with path.open("rb"):
        compact(mount.folder)
        verdict = s1batch.open_results(mount.folder).verify()
        assert (verdict.ok, verdict.complete) == (True, True)
    assert run(job).process.returncode == 0
    complete(job, undisturbed)
    assert not (mount.folder / "rows.new").exists()


def test_a_compaction_whose_renames_report_failure_is_done(mount, job, undisturbed):
    assert run(job).process.returncode == 0
    mount.rules({"ops": ["rename"], "error": errno.ENOENT, "after": True})
    compact(mount.folder)
    complete(job, undisturbed)
