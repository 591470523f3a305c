"""From a submission to the text of its scripts: pure functions, one line of text for one thing.

The shell replaces itself by s1batch (`exec`), so that the signal which Slurm sends to the batch shell reaches it.
"""

from __future__ import annotations

import re
import shlex

from s1batch.slurm.flags import Flags
from s1batch.slurm.shards import index_text
from s1batch.slurm.spec import ArraySlice, SubmissionSpec

_BARE = re.compile(r"[A-Za-z0-9_.,:/@%+=\[\]*&|!()~^-]*")


def array_script(spec: SubmissionSpec, number: int) -> str:
    """Return the script of one array of a submission.

    Args:
        spec: The submission.
        number: Which of its arrays.
    """
    array = spec.arrays[number]
    own: dict[str, str | None] = {
        "job-name": spec.job_name,
        "array": index_text(array.indices, array.parallel),
        "chdir": spec.workdir,
        "output": f"{literal(spec.folder)}/logs/%A_%a.log",
        "open-mode": "append",
        "requeue": None,
        "signal": f"B:USR2@{spec.signal_before_s}",
    }
    run = [
        "run " + shlex.quote(spec.job),
        *(f"--set {shlex.quote(each)}" for each in spec.overrides),
        f"--output {shlex.quote(spec.results)}",
        f'--shard "$shard/{spec.shards}"',
        *([f"--accept {shlex.quote(spec.accept)}"] if spec.accept else []),
        *([f"--scheduler {shlex.quote(spec.scheduler)}"] if spec.scheduler else []),
        *([f"--workers {spec.workers}"] if spec.workers is not None else []),
        f"--submission {shlex.quote(spec.folder)}",
    ]
    return _script(
        f"Shards of {spec.job} ({len(array.indices)} of {spec.shards}); results in {spec.results}",
        spec,
        {**own, **spec.sbatch},
        [
            "# Until s1batch listens, a signal that says that time is short must not end it.",
            "trap '' USR2",
            *_setup(spec),
            "",
            _shard_line(array),
            _command(spec, run),
        ],
    )


def closing_script(spec: SubmissionSpec) -> str:
    """Return the script of the closing job; when it may run is told to sbatch, once the arrays have their numbers."""
    own: dict[str, str | None] = {
        "job-name": f"{spec.job_name}-close",
        "chdir": spec.workdir,
        "output": f"{literal(spec.folder)}/logs/closing.log",
        "open-mode": "append",
        "requeue": None,
    }
    return _script(
        f"Looks at {spec.results} when all tasks of the submission have ended",
        spec,
        {**own, **spec.closing_sbatch},
        [*_setup(spec), "", _command(spec, [f"close {shlex.quote(spec.folder)}"])],
    )


def _script(title: str, spec: SubmissionSpec, flags: Flags, body: list[str]) -> str:
    head = ["#!/bin/bash", *(f"# {line}" for line in (title, f"Submission {spec.name}, by s1batch {spec.s1batch}"))]
    lines = [*head, *(directive(name, value) for name, value in flags.items()), "", "set -e", *body]
    return "\n".join(lines) + "\n"


def directive(name: str, value: str | None) -> str:
    """Return the line of a script that gives an option to sbatch."""
    if value is None:
        return f"#SBATCH --{name}"
    if not _BARE.fullmatch(value):
        # sbatch reads quotes as a shell does, and a backslash before any character.
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"#SBATCH --{name}={value}"


def _setup(spec: SubmissionSpec) -> list[str]:
    return ["", *spec.setup] if spec.setup else []


def _shard_line(array: ArraySlice) -> str:
    if array.offset:
        return f"shard=$((SLURM_ARRAY_TASK_ID + {array.offset}))"
    return "shard=$SLURM_ARRAY_TASK_ID"


def _command(spec: SubmissionSpec, arguments: list[str]) -> str:
    return " \\\n    ".join([f"exec {spec.command}", *arguments])


def literal(path: str) -> str:
    """Return a path in which sbatch replaces nothing."""
    return path.replace("%", "%%")
