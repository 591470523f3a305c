"""Scripts are what the files in golden/ show. Written anew with S1BATCH_WRITE_GOLDEN=1; read them before committing."""

from __future__ import annotations

import difflib
import os
import subprocess
from pathlib import Path

import pytest

from s1batch.slurm.script import array_script, closing_script
from s1batch.slurm.spec import ArraySlice
from s1batch.slurm.worker_script import worker_script
from tests.slurm.specs import PLAIN, plain_script, spec

GOLDEN = Path(__file__).parent / "golden"

SITE = spec(
    job="/data/it's here/picks.yaml",
    results="/data/100%/picks",
    folder="/data/100%/picks/slurm/20260101T000000-abcd",
    overrides=("engine.max_in_flight=8", 'name="a b"'),
    shards=2500,
    arrays=(
        ArraySlice(offset=0, indices=(0, 3, 5, 6, 7), parallel=2),
        ArraySlice(offset=2002, indices=(0, 1, 497), parallel=1),
    ),
    accept="refused,unreadable",
    command="apptainer exec --bind /data /images/s1batch.sif s1batch",
    setup=("module purge", "module load apptainer/1.3", 'export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"'),
    sbatch={"partition": "cpu", "time": "04:00:00", "mem": "8G", "exclusive": None, "comment": 'a "b" \\c'},
    closing_sbatch={"partition": "cpu", "time": "04:00:00", "mem": "16G"},
    signal_before_s=300,
)

CREW = spec(scheduler="allocation", workers=6, sbatch={"nodes": "2"}, retried=("failed",), extended=True)

SCRIPTS = {
    "array.sh": array_script(PLAIN, 0),
    "close.sh": closing_script(PLAIN),
    "crew-array.sh": array_script(CREW, 0),
    "site-array-0.sh": array_script(SITE, 0),
    "site-array-1.sh": array_script(SITE, 1),
    "site-close.sh": closing_script(SITE),
    "worker.sh": worker_script(plain_script()),
    "site-worker.sh": worker_script(
        plain_script(
            folder="/data/100%/picks/slurm/workers",
            python="apptainer exec /images/s1batch.sif python",
            setup=SITE.setup,
            sbatch={"partition": "cpu", "mem": "8G", "exclusive": None},
            interface="ib0",
            local_directory='"$TMPDIR"',
            memory="8G",
        )
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_the_golden_ones(name):
    path = GOLDEN / name
    if os.environ.get("S1BATCH_WRITE_GOLDEN"):
        path.write_text(SCRIPTS[name])
    lines = difflib.unified_diff(
        path.read_text().splitlines(), SCRIPTS[name].splitlines(), f"golden/{name}", "now", lineterm=""
    )
    difference = "\n".join(lines)
    assert not difference, f"\n{difference}"


def test_golden_files_belong_to_a_script():
    assert {path.name for path in GOLDEN.iterdir()} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_valid_shell(name):
    done = subprocess.run(["bash", "-n"], input=SCRIPTS[name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_shell_passes_every_argument_as_it_was_and_adds_the_offset():
    """Run with `printf` in place of the program, the script prints the arguments that it would have."""
    text = array_script(spec(**{**_fields(SITE), "command": "printf '%s\\n'", "setup": ()}), 1)
    done = subprocess.run(
        ["bash"], input=text, capture_output=True, text=True, env={**os.environ, "SLURM_ARRAY_TASK_ID": "497"}
    )
    assert done.stdout.splitlines() == [
        "run",
        "/data/it's here/picks.yaml",
        "--set",
        "engine.max_in_flight=8",
        "--set",
        'name="a b"',
        "--output",
        "/data/100%/picks",
        "--shard",
        "2499/2500",
        "--accept",
        "refused,unreadable",
        "--submission",
        "/data/100%/picks/slurm/20260101T000000-abcd",
    ]


def test_a_setup_line_that_fails_ends_the_task():
    text = array_script(spec(setup=("false",), command="echo"), 0)
    done = subprocess.run(
        ["bash"], input=text, capture_output=True, text=True, env={**os.environ, "SLURM_ARRAY_TASK_ID": "0"}
    )
    assert (done.returncode, done.stdout) == (1, "")


def _fields(made):
    return {name: getattr(made, name) for name in made.__dataclass_fields__}
