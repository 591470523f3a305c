"""Results folders on bad disks: the run ends with one clear line, and the next one goes on and completes."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

import s1batch
from tests.faults.runs import (
    CHUNKS,
    PATIENCE_S,
    ROOT,
    held,
    one_line,
    rows,
    run,
    start,
    stored,
    wait_for_journal,
    wait_for_notes,
)

IMPATIENT = ("--set", "run.storage_patience_s=0")


def check_going_on(job, undisturbed, known=()):
    """The next run ends well, with the rows of an undisturbed one, and asks nothing that was on file."""
    asked = job.parent / "asked"
    before = len(asked.read_text().split()) if asked.exists() else 0
    ended = run(job)
    assert ended.process.returncode == 0, ended.said
    assert rows(job.parent / "out").equals(undisturbed)
    assert s1batch.open_results(job.parent / "out").verify().ok
    repeated = set(known).intersection(asked.read_text().split()[before:])
    assert not repeated, f"{len(repeated)} answers on file were asked again"


def said_until(running, words):
    """Read what a run says until some words come; return it all."""
    lines: list[str] = []
    while words not in (line := running.process.stderr.readline()):
        assert line, f"it ended without: {words}\n{''.join(lines)}"
        lines.append(line)
    return "".join([*lines, line])


def killed_in_the_middle(job):
    running = start(job, env=held(100))
    wait_for_journal(job.parent / "out", running, 30_000)
    running.kill()
    assert running.process.returncode == -signal.SIGKILL
    known = stored(job.parent / "out")
    assert 0 < known.height < CHUNKS
    return known


def test_torn_and_damaged_journals_cost_only_the_torn_answers(job, undisturbed):
    """Cut at any byte, with garbage behind or in the middle: the intact answers count, the others are asked again."""
    killed_in_the_middle(job)
    dice = random.Random(3)
    for path in (job.parent / "out" / "journal").iterdir():
        data = bytearray(path.read_bytes())
        what = dice.choice(["cut", "behind", "middle", "empty"])
        if what == "cut":
            del data[dice.randrange(len(data)) :]
        elif what == "behind":
            data += dice.randbytes(300)
        elif what == "middle":
            data[dice.randrange(len(data))] ^= 0xFF
        else:
            data.clear()
        path.write_bytes(data)
    check_going_on(job, undisturbed, stored(job.parent / "out")["fingerprint"])


@pytest.mark.slow
def test_half_written_files_of_dead_runs_are_no_rows_and_are_removed(job, undisturbed):
    """Temporary files in every folder, left by a process that is gone."""
    known = killed_in_the_middle(job)
    out = job.parent / "out"
    program = (
        "from s1batch.results.process import ProcessIdentity as P;i = P.current(); print(f'{i.machine_slug}_{i.pid}')"
    )
    dead = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True).strip()
    left = [
        out / "rows" / f".part-000000.parquet.{dead}_00000000.tmp",
        out / f".plan-0001.parquet.{dead}_00000001.tmp",
        out / "journal" / f".part-000003.x.journal.{dead}_00000002.tmp",
    ]
    for path in left:
        path.write_bytes(b"PAR1 half a part")
    check_going_on(job, undisturbed, known["fingerprint"])
    assert [path for path in left if path.exists()] == []


def test_a_full_disk_ends_the_run_with_a_line_and_space_lets_it_go_on(job, undisturbed, hold):
    """ENOSPC at every write, from some moment on."""
    flag = job.parent / "full"
    hold(100)
    running = start(job, *IMPATIENT, sabotage={"full_flag": flag, "below": job.parent / "out"})
    wait_for_journal(job.parent / "out", running, 30_000)
    flag.touch()
    hold.release()
    assert running.wait() == 1, running.said
    running.wait_for_children()
    assert "the disk is full" in one_line(running.said)
    known = stored(job.parent / "out")["fingerprint"]
    flag.unlink()
    check_going_on(job, undisturbed, known)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("full_flag", "the disk is full"),
        pytest.param("read_only_flag", "the file system is read-only", marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_comes_back_is_waited_for_and_nothing_is_asked_twice(trouble, words, job, undisturbed, hold):
    """The run that was under way goes on by itself, and asks nothing while answers could not be stored."""
    flag, out, asked = job.parent / "flag", job.parent / "out", job.parent / "asked"
    hold(100)
    running = start(job, sabotage={trouble: flag, "below": out})
    wait_for_journal(out, running, 30_000)
    flag.touch()
    hold.release()
    said = said_until(running, "asking nothing new")
    time.sleep(0.5)  # what was on its way to the engine
    meanwhile = asked.read_text()
    time.sleep(1.0)
    assert asked.read_text() == meanwhile, "questions were asked whose answers could not be stored"
    flag.unlink()
    assert running.wait() == 0, running.said
    running.wait_for_children()
    assert words in said
    assert "the results folder can be written again after" in running.said
    assert rows(out).equals(undisturbed)
    assert s1batch.open_results(out).verify().ok
    fingerprints = asked.read_text().split()
    assert len(fingerprints) == len(set(fingerprints)), "an answer was lost on the way"


@pytest.mark.slow
def test_a_disk_that_stays_away_ends_the_run_and_says_what_is_lost(job, undisturbed, hold):
    flag, out = job.parent / "full", job.parent / "out"
    hold(100)
    running = start(job, "--set", "run.storage_patience_s=2", sabotage={"full_flag": flag, "below": out})
    wait_for_notes(job.parent / "asked", running, 100)  # which waits for its answer
    flag.touch()
    hold.release()
    assert running.wait() == 1, running.said
    running.wait_for_children()
    assert "waiting up to 2 s, asking nothing new: " in running.said
    assert "the disk is full: free some space and run again to go on (run.storage_patience_s: 2 s)" in running.said
    known = stored(out)["fingerprint"]
    asked = (job.parent / "asked").read_text().split()
    (lost,) = re.findall(r"^(\d+) rows? could not be stored: these answers are lost", running.said, re.MULTILINE)
    assert len(asked) - known.len() <= int(lost), "every answer that is not on file was told of"
    flag.unlink()
    check_going_on(job, undisturbed, known)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 300, 8_000, 20_000])
def test_files_that_may_not_grow_end_the_run_with_a_line(limit, job, undisturbed):
    """RLIMIT_FSIZE, which stops the plan, a journal or a part, whoever writes it (Arrow too)."""
    program = (
        "import resource, runpy, sys;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        f"sys.argv = ['s1batch', 'run', {str(job)!r}, '-o', {str(job.parent / 'out')!r}];"
        "runpy.run_module('s1batch', run_name='__main__')"
    )
    command = [sys.executable, "-B", "-c", program]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 1, ended.stderr
    one_line(ended.stderr)
    known = stored(job.parent / "out")
    check_going_on(job, undisturbed, known["fingerprint"])


@pytest.mark.slow
@pytest.mark.parametrize("size", ["16k", "96k", "300k"])
def test_a_file_system_that_is_really_full(size, job, undisturbed, tmp_path):
    """A small tmpfs as the results folder: whatever is written, by Python or by Arrow, meets the end of it."""
    out = tmp_path / "out"
    out.mkdir()
    with mounted("-t", "tmpfs", "-o", f"size={size}", "none", str(out)) as remount:
        ended = run(job, *IMPATIENT)
        assert ended.process.returncode == 1, ended.said
        assert "the disk is full" in one_line(ended.said)
        remount("size=64m")
        check_going_on(job, undisturbed, stored(out)["fingerprint"])


@pytest.mark.slow
@pytest.mark.parametrize("size", ["40k", "96k", "300k"])
def test_a_file_system_that_gets_more_space_while_a_run_waits(size, job, undisturbed, tmp_path):
    """Whatever meets the end of it, the plan, a journal or a part: the same run goes on, and asks nothing twice."""
    out = tmp_path / "out"
    out.mkdir()
    with mounted("-t", "tmpfs", "-o", f"size={size}", "none", str(out)) as remount:
        running = start(job)
        said_until(running, "waiting up to 300 s, asking nothing new")
        remount("size=64m")
        assert running.wait() == 0, running.said
        running.wait_for_children()
        assert "the results folder can be written again after" in running.said
        assert rows(out).equals(undisturbed)
        assert s1batch.open_results(out).verify().complete
        fingerprints = (job.parent / "asked").read_text().split()
        assert len(fingerprints) == len(set(fingerprints))


@pytest.mark.slow
def test_a_folder_that_turns_read_only_for_a_while(job, undisturbed, hold):
    """EROFS at everything that changes the folder, from some moment on."""
    flag = job.parent / "read-only"
    hold(100)
    running = start(job, *IMPATIENT, sabotage={"read_only_flag": flag, "below": job.parent / "out"})
    wait_for_journal(job.parent / "out", running, 30_000)
    flag.touch()
    hold.release()
    assert running.wait() == 1, running.said
    running.wait_for_children()
    assert "the file system is read-only" in one_line(running.said)
    known = stored(job.parent / "out")["fingerprint"]
    flag.unlink()
    check_going_on(job, undisturbed, known)


@pytest.mark.slow
def test_a_file_system_that_is_mounted_read_only(job, undisturbed, tmp_path):
    """A real one: a run on it ends with a line, and mounted for writing again the next run goes on."""
    out = tmp_path / "out"
    out.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=64m", "none", str(out)) as remount:
        known = killed_in_the_middle(job)["fingerprint"]
        remount("ro")
        ended = run(job, *IMPATIENT)
        assert ended.process.returncode == 1, ended.said
        assert "the file system is read-only" in one_line(ended.said)
        remount("rw")
        check_going_on(job, undisturbed, known)


@pytest.mark.slow
def test_folders_that_turn_immutable_under_a_run(job, undisturbed, hold):
    """No file can be made or renamed, while open journals still take rows."""
    out = job.parent / "out"
    hold(100)
    running = start(job)
    wait_for_journal(out, running, 30_000)
    folders = [str(path) for path in (out, out / "rows", out / "journal", out / "leases")]
    try:
        if subprocess.run(["chattr", "+i", *folders], capture_output=True).returncode:
            running.kill()
            pytest.skip("this file system or user cannot make folders immutable")
        hold.release()
        assert running.wait() == 1, running.said
    finally:
        subprocess.run(["chattr", "-i", *folders], capture_output=True)
    running.wait_for_children()
    assert "not permitted" in one_line(running.said)
    check_going_on(job, undisturbed, stored(out)["fingerprint"])


@pytest.mark.slow
def test_a_clock_that_jumps_by_hours_changes_nothing(job, undisturbed):
    """Every few looks at the clock it has moved by five hours, to and fro; a run that is killed goes on under it."""
    jumping = {"jump_s": 5 * 3600, "every": 3}
    running = start(job, sabotage=jumping, env=held(100))
    wait_for_journal(job.parent / "out", running, 30_000)
    running.kill()
    known = set(stored(job.parent / "out")["fingerprint"])
    before = len((job.parent / "asked").read_text().split())
    ended = run(job, sabotage=jumping)
    assert ended.process.returncode == 0, ended.said
    assert rows(job.parent / "out").equals(undisturbed)
    assert not known.intersection((job.parent / "asked").read_text().split()[before:])
    results = s1batch.open_results(job.parent / "out")
    assert results.verify().ok
    assert (results.status().rows_per_s or 1) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rows/part-000000.parquet", "plan.parquet", "schema.parquet", "run.json"])
def test_damage_that_no_kill_makes_is_named_and_never_a_traceback(name, job):
    """A file cut short by something else: the line names it, for a run and for looking at the results."""
    assert run(job).process.returncode == 0
    path = job.parent / "out" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    ended = run(job)
    assert ended.process.returncode == 1, ended.said
    assert path.name in one_line(ended.said)
    for command in ("status", "verify", "show"):
        looked = subprocess.run(
            [sys.executable, "-m", "s1batch", command, str(job.parent / "out")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert "Traceback" not in looked.stderr, looked.stderr
        if command == "verify":
            assert looked.returncode == 1


@contextmanager
def mounted(*arguments):
    """Mount something for the length of a test, or skip it where that is not allowed."""
    target = arguments[-1]
    if os.geteuid() != 0 or subprocess.run(["mount", *arguments], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")

    def remount(option):
        subprocess.run(["mount", "-o", f"remount,{option}", target], check=True, capture_output=True)

    try:
        yield remount
    finally:
        patience = 50
        while patience and subprocess.run(["umount", target], capture_output=True).returncode:
            patience -= 1
            time.sleep(0.1)
