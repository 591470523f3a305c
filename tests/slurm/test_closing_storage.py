"""The closing job on a disk that is full or read-only when the last task has ended."""

from __future__ import annotations

import os

import pytest

import s1batch
from s1batch.slurm.closing import close_submission
from tests.slurm.fake import FakeSlurm
from tests.slurm.prepared import submitted
from tests.slurm.small_disk import SmallDisk

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")]


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_it_waits_compacts_and_proves(trouble, job):
    with SmallDisk(job.parent / "out") as disk:
        folder = submitted(job, FakeSlurm())
        s1batch.run(job)
        if trouble == "full":
            disk.fill()
        else:
            disk.forbid_writing()
        said: list[str] = []

        def say(line: str) -> None:
            said.append(line)
            if line.startswith("waiting up to 600 s"):
                disk.free() if trouble == "full" else disk.allow_writing()

        assert close_submission(folder, FakeSlurm(), say) == 0, said
        assert sum(line.startswith("waiting up to 600 s") for line in said) == 1, said
        assert "compacted: 8 files of rows before, 1 now" in said
        assert (folder.read_closing() or {})["ok"]
        assert s1batch.open_results(job.parent / "out").verify().complete
