"""Submissions of a job to a Slurm that tests script."""

from __future__ import annotations

from s1batch.jobfile import load_job
from s1batch.slurm.folder import submissions
from s1batch.slurm.site import SlurmSite
from s1batch.slurm.submitting import SubmitOptions, prepare, submit


def prepared(job, slurm, *, site=None, said=None, **options):
    asked = SubmitOptions(**{"shards": 8, **options})
    say = said.append if said is not None else lambda line: None
    return prepare(load_job(job), asked, site or SlurmSite(), slurm, say)


def submitted(job, slurm, **options):
    submit(prepared(job, slurm, **options), slurm, lambda line: None)
    *_, folder = submissions(job.parent / "out")
    return folder
