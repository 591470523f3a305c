"""What a run was: the job as written and as resolved, and everything else that its answers depend on.

`run.json` holds it. A later run into the same folder is compared with it field by field: fields that can change an
answer must agree.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from s1batch import __version__
from s1batch.assembly import EngineFacts, fitted_window
from s1batch.config import answer_fields
from s1batch.errors import ConflictError, ResultsError
from s1batch.jobfile import LoadedJob
from s1batch.records import ModelIdentity
from s1batch.results.atomic import write_atomic

_PACKAGES = ("numpy", "pyarrow", "polars", "obspy", "pymseed", "torch", "llguidance", "httptools", "dask", "lmdeploy")


class RunSpec(BaseModel):
    """The content of run.json.

    Attributes:
        format: Version of the results layout.
        s1batch: Version of the program that made the plan.
        name: The job's name.
        created: When the folder was made (UTC).
        job_as_written: The job file's mapping, after `--set`.
        job_resolved: The job with every default filled in.
        base_dir: Folder that relative paths in the job are relative to; may differ between runs.
        answers: The fields that can change an answer, by dotted name.
        model: The weights that answer.
        engine: The engine and its version.
        prompt_hash: Hash of the templates and the schema.
        seed: Seed of the sampling.
        packages: Versions of what takes part.
        python: Version of Python.
        platform: Operating system and machine.
        git_revision: Revision of the repository that the job file lies in, with `+changes`; None outside one.
        merged_from: The runs that were merged into these results, each as its own run.json said it, with its path.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    format: int = 1
    s1batch: str
    name: str
    created: str
    job_as_written: dict[str, Any]
    job_resolved: dict[str, Any]
    base_dir: str
    answers: dict[str, Any]
    model: dict[str, str]
    engine: str
    prompt_hash: str
    seed: int
    packages: dict[str, str]
    python: str
    platform: str
    git_revision: str | None = None
    merged_from: tuple[dict[str, Any], ...] = ()

    @property
    def identity(self) -> ModelIdentity:
        """The weights that answer."""
        return ModelIdentity(**self.model)


def make_run_spec(loaded: LoadedJob, facts: EngineFacts, prompt_hash: str) -> RunSpec:
    """Describe a run that is about to begin, with every `auto` of its job replaced by what was found."""
    model = facts.model
    resolved = loaded.spec.model_copy(update={"engine": facts.resolved})
    if loaded.spec.source.cuts_series:
        # What the engine takes decides how windows are cut and at which rate they are sent.
        resolved = resolved.model_copy(update={"window": fitted_window(loaded, facts.rules)})
    answers = answer_fields(resolved)
    answers.update({f"model.{name}": getattr(model, name) for name in ("name", "revision", "dtype", "quantisation")})
    answers["prompt_hash"] = prompt_hash
    return RunSpec(
        s1batch=__version__,
        name=loaded.spec.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        job_as_written=orjson.loads(orjson.dumps(loaded.as_written, default=str)),
        job_resolved=resolved.model_dump(mode="json", by_alias=True),
        base_dir=str(loaded.base_dir),
        answers=answers,
        model={name: getattr(model, name) for name in ("name", "revision", "dtype", "quantisation")},
        engine=facts.name,
        prompt_hash=prompt_hash,
        seed=loaded.spec.job.seed,
        packages=_versions(),
        python=platform.python_version(),
        platform=platform.platform(),
        git_revision=_git_revision(loaded.base_dir),
    )


def write_run_spec(spec: RunSpec, path: Path) -> None:
    """Write run.json as a whole or not at all."""
    write_atomic(path, orjson.dumps(spec.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n")


def read_run_spec(path: Path) -> RunSpec:
    """Read run.json.

    Raises:
        ResultsError: It is missing or damaged.
    """
    try:
        return RunSpec.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ResultsError(
            f"{path.parent}: no results here (run.json is missing); `s1batch run JOB` makes them"
        ) from error
    except ValueError as error:
        raise ResultsError(f"{path}: damaged, or written by another version: {error}") from error


def check_same(old: RunSpec, new: RunSpec, where: Path, unknown: tuple[str, ...] = ()) -> None:
    """Refuse to mix answers.

    Args:
        old: What made the results that are there.
        new: What would go on with them.
        where: The results folder.
        unknown: How the names of fields begin that are not known now.

    Raises:
        ConflictError: A field that can change an answer differs; every such field is named with both values.
    """
    differing = [
        f"{name}: {_show(old.answers, name)} there, {_show(new.answers, name)} now"
        for name in sorted(old.answers.keys() | new.answers.keys())
        if old.answers.get(name) != new.answers.get(name) and not name.startswith(unknown)
    ]
    if differing:
        raise ConflictError(
            f"{where} holds answers of another job ("
            + "; ".join(differing)
            + "); use another output folder, or set the fields back"
        )


def _show(fields: Mapping[str, Any], name: str) -> str:
    text = repr(fields[name]) if name in fields else "not set"
    return text if len(text) <= 100 else text[:97] + "..."


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git_revision(folder: Path) -> str | None:
    command = ["git", "-C", os.fspath(folder)]
    try:
        head = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        if head.returncode != 0:
            return None
        changes = subprocess.run([*command, "status", "--porcelain"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
