"""What is asked again when the file system of the results fails in mid-run: real runs on a real one that misbehaves.

    python -m tests.benchmarks.bench_storage

Needs root, /dev/fuse and `mfusepy`. Each run asks 312 questions of 20 to 200 ms, two parts of 16 at a time, of a
function in place of a model; the trouble begins when there are some rows, and lasts for some seconds. `asked twice`
counts over the run, and the one behind it where the first ended.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.archives import pick_job, write_archive
from tests.faults.runs import Run, rows, start, write_job
from tests.storage.mounts import FaultyMount, install
from tests.storage.steps import fingerprints, under_way

LASTS_S = 5.0
HANGS_S = 20.0
CHANGING = ["create", "write", "fsync", "rename", "unlink", "mkdir", "truncate", "utimens"]
ASKING = {"kind": "replay", "function": "tests.answers:slowly", "model": "tests.answers:loudest"}

Trouble = Callable[[FaultyMount, Run], None]


def _fails(code: int) -> Trouble:
    def trouble(mount: FaultyMount, running: Run) -> None:
        mount.rules({"ops": CHANGING, "error": code})
        time.sleep(LASTS_S)
        mount.heals()

    return trouble


def _rule(**rule: object) -> Trouble:
    def trouble(mount: FaultyMount, running: Run) -> None:
        mount.rules(rule)

    return trouble


def _hangs(mount: FaultyMount, running: Run) -> None:
    mount.hangs()
    time.sleep(HANGS_S)
    mount.goes_on()


def _hangs_and_is_killed(mount: FaultyMount, running: Run) -> None:
    mount.hangs()
    time.sleep(HANGS_S)
    running.kill()
    mount.goes_on()


def _killed(mount: FaultyMount, running: Run) -> None:
    running.kill()


TROUBLES: dict[str, Trouble] = {
    "EIO for 5 s": _fails(errno.EIO),
    "ESTALE for 5 s": _fails(errno.ESTALE),
    "over its quota for 5 s": _fails(errno.EDQUOT),
    "read-only for 5 s, open files too": _fails(errno.EROFS),
    "ten flushes fail and lose what they should flush": _rule(ops=["fsync"], error=errno.EIO, times=10, loses=True),
    "every rename reports failure and takes place": _rule(ops=["rename"], error=errno.ENOENT, after=True),
    "ten closes report a delayed write's failure": _rule(ops=["flush"], error=errno.EDQUOT, times=10),
    "does not answer for 20 s": _hangs,
    "does not answer for 20 s, and the run is killed": _hangs_and_is_killed,
    "no trouble, and the run is killed": _killed,
}


def main() -> None:
    install()
    print("| trouble | ends by itself | rows | asked twice |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        archive = write_archive(Path(place) / "archive", stations=8, seconds=400)
        for number, (name, trouble) in enumerate(TROUBLES.items()):
            folder = Path(place) / str(number)
            folder.mkdir()
            os.environ["ASKED"] = str(folder / "asked")
            job = write_job(folder, pick_job(archive, engine=ASKING, run={"part_chunks": 16, "parts_in_flight": 2}))
            with FaultyMount(folder / "behind", folder / "out", closing="closes" in name) as mount:
                running = under_way(job)
                trouble(mount, running)
                code = running.process.wait(120) if running.process.poll() is None else running.process.returncode
                mount.heals()
                if code != 0:
                    assert start(job).wait(120) == 0
                asked = fingerprints(job)
                itself, height = "yes" if code == 0 else "no", rows(folder / "out").height
                print(f"| {name} | {itself} | {height} | {len(asked) - len(set(asked))} |", flush=True)


if __name__ == "__main__":
    main()
