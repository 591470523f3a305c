"""A worker's plugin whose parts end at once, for benchmarks of what carries them."""

from __future__ import annotations

from pathlib import Path

from s1batch.assembly import engine_facts
from s1batch.jobfile import load_job
from s1batch.part_runner import PartSummary
from s1batch.scheduler import PartTask
from s1batch.session import SessionSetup
from s1batch.workers.plugin import SessionPlugin


class IdlePlugin(SessionPlugin):
    """Says that a part is done."""

    def run(self, task: PartTask) -> PartSummary:
        """Do nothing."""
        return PartSummary(part=task.part, finished=True)


def setup(folder: Path) -> SessionSetup:
    """Return what sessions of a small job begin with."""
    (folder / "names.csv").write_text("name\nquartz\n")
    job = {
        "source": {"kind": "table", "path": str(folder / "names.csv")},
        "job": {"kind": "ask", "prompt": "{{ name }}?"},
        "engine": {"kind": "replay", "function": "tests.answers:echo"},
        "run": {"parts_in_flight": 32},
    }
    loaded = load_job(job)
    return SessionSetup(loaded=loaded, facts=engine_facts(loaded), results=folder / "out")
