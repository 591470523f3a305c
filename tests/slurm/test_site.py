"""The site's file and options of sbatch: any of them passes through, mistakes are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from s1batch.errors import UsageError
from s1batch.slurm.flags import closing_flags, joined, parse_flags, seconds_of
from s1batch.slurm.site import read_site, site_file

SITE = """\
[slurm]
setup = ["module load apptainer"]
command = "apptainer exec s1batch.sif s1batch"
requeue = 3
[slurm.sbatch]
partition = "cpu"
cpus_per_task = 4
exclusive = true
[slurm.closing]
mem = "16G"
"""


def test_a_site_file_gives_defaults(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    site = read_site(path).slurm
    assert (site.requeue, site.signal_before_s, site.setup) == (3, 180, ("module load apptainer",))
    assert site.array_flags() == {"partition": "cpu", "cpus-per-task": "4", "exclusive": None}
    assert site.closing_flags() == {"mem": "16G"}


def test_the_command_line_goes_over_the_site_and_may_take_away():
    flags = joined({"partition": "cpu", "exclusive": None, "mem": "4G"}, parse_flags(["mem=8G", "exclusive=", "-A=x"]))
    assert flags == {"partition": "cpu", "mem": "8G", "account": "x"}


def test_the_closing_job_is_paid_and_placed_like_the_array():
    flags = {"account": "a", "partition": "p", "gres": "gpu:8", "time": "1:00:00"}
    assert closing_flags(flags, {"time": "10"}) == {"account": "a", "partition": "p", "time": "10"}


def test_the_file_is_looked_for_in_three_places(tmp_path, monkeypatch):
    home, named, system = tmp_path / ".config/s1batch/site.toml", tmp_path / "named.toml", tmp_path / "system.toml"
    monkeypatch.setattr("s1batch.slurm.site.SYSTEM", system)
    assert site_file({"HOME": str(tmp_path)}) is None
    system.touch()
    assert site_file({"HOME": str(tmp_path)}) == system
    home.parent.mkdir(parents=True)
    home.touch()
    assert site_file({"HOME": str(tmp_path)}) == home
    named.touch()
    assert site_file({"HOME": str(tmp_path), "S1BATCH_SITE": str(named)}) == named
    with pytest.raises(UsageError, match="no such file"):
        site_file({"S1BATCH_SITE": str(tmp_path / "gone.toml")})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[slurm]\npartition = 1", "slurm.partition: unknown field (valid: sbatch, closing, setup,"),
        ("[slurm.sbatch]\narray = 1", "slurm.sbatch array: s1batch sets this itself: use --array N"),
        ("[slurm.sbatch]\nmem = [1]", "slurm.sbatch.mem: [1]: give a text, a number, true or false"),
        ("[slurm]\nrequeue = -1", "slurm.requeue: Input should be greater than or equal to 0"),
        ("[slurm", "not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_the_file(tmp_path, text, message):
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_site(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("signal=B:USR1@60", "use --signal-before"),
        ("a=0-3", "use --array N"),
        ("output=x", "logs lie in the submission's folder"),
        ("z=1", "write the long name"),
        ("mem=1\nrm -rf x", "line breaks"),
        ("x y=1", "write the long name"),
    ],
)
def test_options_that_cannot_be_passed_are_refused(flag, message):
    with pytest.raises(UsageError, match=message):
        parse_flags([flag])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800), ("1:30", 90), ("02:00:00", 7200), ("1-0", 86400), ("1-2:30", 95400), ("1-02:30:01", 95401),
        ("infinite", None), ("", None),
    ],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_reads_them(text, seconds):
    assert seconds_of(text) == seconds


def test_what_docs_say_of_workers_is_read(tmp_path):
    text = (Path(__file__).resolve().parents[2] / "docs/dask.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "site.toml"
    path.write_text(block)
    workers = read_site(path).slurm.workers
    assert (workers.interface, workers.most, workers.lifetime_s, workers.stagger_s) == ("ib0", 16, 3000.0, 60.0)
    assert workers.flags() == {"partition": "preemptible", "cpus-per-task": "4", "mem": "8G", "time": "01:00:00"}


def test_a_mistake_about_workers_is_named_with_what_is_valid(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text("[slurm.workers]\ninterfaces = 1\n")
    with pytest.raises(
        UsageError, match=r"slurm\.workers\.interfaces: unknown field \(valid: sbatch, most, interface, "
    ):
        read_site(path)
