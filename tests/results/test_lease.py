"""Leases: one holder at a time, dead holders replaced, living ones never."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from s1batch.errors import LockedError, ResultsError
from s1batch.results.holder import read_holder
from s1batch.results.lease import LeaseKeeper
from s1batch.results.process import ProcessIdentity
from tests.results import victim

FAR_AWAY = ProcessIdentity(host="elsewhere", boot="b", namespace="n", pid=77, started="1")
HERE = ProcessIdentity.current()


class SteppedClock:
    """A file system's clock that moves only when told, or while someone sleeps."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0
        self.while_asleep: Callable[[], None] | None = None
        self.slept_s = 0.0

    def file_time_ns(self, folder: Path) -> int:
        return int(self.now_s * 1e9)

    def touch(self, path: Path) -> None:
        os.utime(path, ns=(self.file_time_ns(path), self.file_time_ns(path)))

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        self.now_s += seconds
        if self.while_asleep is not None:
            self.while_asleep()


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


def held_far_away(folder: Path, clock: SteppedClock, name: str = "part-000001") -> Path:
    keeper = LeaseKeeper(folder, clock=clock, identity=FAR_AWAY, heartbeat_s=3600)
    lease = keeper.acquire(name)
    clock.touch(lease.path)
    return lease.path


def keeper_here(folder: Path, clock: SteppedClock) -> LeaseKeeper:
    return LeaseKeeper(folder, clock=clock, heartbeat_s=3600)


def test_a_held_lease_is_refused_and_the_text_says_by_whom(tmp_path: Path) -> None:
    text = rf"run is held by process {os.getpid()} on .* since 20\d\d-.* UTC"
    with LeaseKeeper(tmp_path) as keeper, keeper.lease("run"), pytest.raises(LockedError, match=text):
        keeper.acquire("run")
    assert list(tmp_path.iterdir()) == []


def test_a_lease_is_free_again_after_its_block(tmp_path: Path) -> None:
    with LeaseKeeper(tmp_path) as keeper:
        for _ in range(3):
            with keeper.lease("run"):
                pass


def test_a_dead_process_of_this_machine_is_replaced_at_once(tmp_path: Path, clock: SteppedClock) -> None:
    child = victim.start(victim.die_with_lease, tmp_path, ["run"])
    child.join()
    with keeper_here(tmp_path, clock).lease("run"):
        assert clock.slept_s == 0


def test_leases_of_the_dead_of_this_machine_are_given_back_for_others_elsewhere(tmp_path: Path) -> None:
    clock = SteppedClock()
    child = victim.start(victim.die_with_lease, tmp_path, ["part-000002"])
    child.join()
    held_far_away(tmp_path, clock)
    with keeper_here(tmp_path, clock) as keeper, keeper.lease("part-000003"):
        assert keeper.free_dead([f"part-{number:06d}" for number in range(1, 5)]) == ["part-000002"]
        elsewhere = LeaseKeeper(tmp_path, clock=clock, identity=FAR_AWAY, heartbeat_s=3600)
        with elsewhere.lease("part-000002"):
            assert clock.slept_s == 0


def test_a_reused_process_number_is_not_the_holder(tmp_path: Path, clock: SteppedClock) -> None:
    other = replace(HERE, started=str(int(HERE.started) - 1))
    LeaseKeeper(tmp_path, clock=clock, identity=other, heartbeat_s=3600).acquire("run")
    with keeper_here(tmp_path, clock).lease("run"):
        assert clock.slept_s == 0


def test_a_holder_from_before_a_reboot_is_dead(tmp_path: Path, clock: SteppedClock) -> None:
    other = replace(HERE, boot="an older boot")
    LeaseKeeper(tmp_path, clock=clock, identity=other, heartbeat_s=3600).acquire("run")
    with keeper_here(tmp_path, clock).lease("run"):
        assert clock.slept_s == 0


def test_a_process_of_another_container_is_judged_by_its_heartbeat(tmp_path: Path, clock: SteppedClock) -> None:
    """Its number means nothing here, even though the host has the same name and the number is free."""
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    other = replace(HERE, namespace="pid:[1]", pid=int(child.stdout))
    lease = LeaseKeeper(tmp_path, clock=clock, identity=other, heartbeat_s=3600).acquire("run")
    clock.touch(lease.path)
    with pytest.raises(LockedError):
        keeper_here(tmp_path, clock).acquire("run")


def test_a_living_process_of_this_machine_is_never_replaced(tmp_path: Path, clock: SteppedClock) -> None:
    """Stopped for an hour (Ctrl-Z), it still holds what it holds."""
    LeaseKeeper(tmp_path, clock=clock, heartbeat_s=3600).acquire("run")
    clock.now_s += 3600
    with pytest.raises(LockedError):
        keeper_here(tmp_path, clock).acquire("run")


def test_a_far_holder_with_a_heartbeat_is_respected(tmp_path: Path, clock: SteppedClock) -> None:
    held_far_away(tmp_path, clock)
    clock.now_s += 59
    with pytest.raises(LockedError, match="process 77 on elsewhere"):
        keeper_here(tmp_path, clock).acquire("part-000001")


def test_a_far_holder_without_a_heartbeat_for_a_minute_is_replaced(tmp_path: Path, clock: SteppedClock) -> None:
    held_far_away(tmp_path, clock)
    clock.now_s += 61
    with keeper_here(tmp_path, clock).lease("part-000001") as lease:
        holder = read_holder(lease.path)
        assert holder is not None
        assert holder.process == HERE


def test_the_other_leases_of_a_dead_far_holder_need_no_second_look(tmp_path: Path, clock: SteppedClock) -> None:
    for number in range(5):
        held_far_away(tmp_path, clock, f"part-{number:06d}")
    clock.now_s += 61
    keeper = keeper_here(tmp_path, clock)
    for number in range(5):
        keeper.acquire(f"part-{number:06d}")
    assert clock.slept_s == pytest.approx(2 * 3600 + 1)


def test_a_clock_that_jumps_takes_no_lease_from_a_living_holder(tmp_path: Path, clock: SteppedClock) -> None:
    """The lease looks an hour old, but its holder touches it while it is watched."""
    path = held_far_away(tmp_path, clock)
    clock.now_s += 3600
    clock.while_asleep = lambda: clock.touch(path)
    with pytest.raises(LockedError):
        keeper_here(tmp_path, clock).acquire("part-000001")


def test_a_dead_holder_with_a_fast_clock_does_not_block_for_ever(tmp_path: Path, clock: SteppedClock) -> None:
    path = held_far_away(tmp_path, clock)
    ahead = int((clock.now_s + 86_400) * 1e9)
    os.utime(path, ns=(ahead, ahead))
    keeper_here(tmp_path, clock).acquire("part-000001")


def test_a_half_written_lease_counts_until_it_is_stale(tmp_path: Path, clock: SteppedClock) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"token": "1')
    clock.touch(path)
    with pytest.raises(LockedError, match="an unknown process"):
        keeper_here(tmp_path, clock).acquire("run")
    clock.now_s += 61
    keeper_here(tmp_path, clock).acquire("run")


def test_a_holder_that_was_replaced_notices(tmp_path: Path) -> None:
    with LeaseKeeper(tmp_path, heartbeat_s=0.02) as keeper:
        lease = keeper.acquire("run")
        lease.path.write_text(json.dumps({"token": "another", "process": FAR_AWAY.plain(), "since_ns": 1}))
        while not lease.lost:
            time.sleep(0.01)
        with pytest.raises(LockedError, match="took it over"):
            lease.check()
        keeper.release(lease)
        assert lease.path.exists(), "another one's lease is not removed"


def test_heartbeats_touch_the_lease(tmp_path: Path) -> None:
    with LeaseKeeper(tmp_path, heartbeat_s=0.02) as keeper:
        lease = keeper.acquire("run")
        os.utime(lease.path, ns=(1, 1))
        while lease.path.stat().st_mtime_ns == 1:
            time.sleep(0.01)
        assert not lease.lost


def test_of_racing_processes_exactly_one_wins(tmp_path: Path) -> None:
    """Three processes, free leases and leases of a dead process, each taken by all at the same moment."""
    names = [f"part-{number:06d}" for number in range(300)]
    child = victim.start(victim.die_with_lease, tmp_path / "leases", names[100:])
    child.join()
    barrier = victim.context().Barrier(3)
    racers = [
        victim.start(victim.race, tmp_path / "leases", names, barrier, tmp_path / f"won{number}") for number in range(3)
    ]
    for racer in racers:
        racer.join()
        assert racer.exitcode == 0
    won = [name for number in range(3) for name in json.loads((tmp_path / f"won{number}").read_text())]
    assert sorted(won) == names
    assert list((tmp_path / "leases").iterdir()) == []


def test_killed_before_each_step_of_taking_over(tmp_path: Path) -> None:
    """Whoever dies while it takes over or gives back leaves a lease that can be taken."""
    for step in range(1, 60):
        folder = tmp_path / f"l{step}"
        victim.start(victim.die_with_lease, folder, ["run"]).join()
        killed = victim.was_killed(victim.take_lease, folder, "run", kill_at=step)
        clock = SteppedClock()
        clock.now_s = time.time() + 120
        with keeper_here(folder, clock).lease("run"):
            pass
        assert [file.name for file in folder.iterdir() if file.suffix == ".json"] == []
        if not killed:
            assert step > 5
            return
    pytest.fail("the child never came to its end")


def test_a_folder_that_cannot_be_made_is_a_results_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="file"):
        LeaseKeeper(tmp_path / "file" / "leases").acquire("run")


def test_a_lease_given_back_on_a_full_disk_is_not_blocked_by_its_guard(tmp_path: Path) -> None:
    """The guard can be created but not written: it goes again, and the next process takes the lease over at once."""
    code = (
        "import errno, os, sys\n"
        "from pathlib import Path\n"
        "from s1batch.results.lease import LeaseKeeper\n"
        "keeper = LeaseKeeper(Path(sys.argv[1]))\n"
        "lease = keeper.acquire('run')\n"
        "def full(handle, data):\n"
        "    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "os.write = full\n"
        "keeper.close()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[2])
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    with LeaseKeeper(tmp_path).lease("run"):
        pass
