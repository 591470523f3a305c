"""What holds for every submission at a site: a TOML file, so that a command line names only what is special.

    $S1BATCH_SITE, else ~/.config/s1batch/site.toml, else /etc/s1batch/site.toml

The first of them that is there counts, alone.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from s1batch.config import Config
from s1batch.errors import UsageError
from s1batch.slurm.flags import flag_name, flag_value

SYSTEM = Path("/etc/s1batch/site.toml")


class WorkersSite(Config):
    """The table `[slurm.workers]`: what `--scheduler slurm` and `--scheduler allocation` start."""

    sbatch: dict[str, Any] = Field(default_factory=dict, description="options of sbatch for workers, over slurm.sbatch")
    most: int = Field(8, ge=1, description="worker jobs at a time, when --workers does not say")
    interface: str | None = Field(None, min_length=1, description="network interface of scheduler and workers: ib0")
    python: str | None = Field(None, min_length=1, description="Python as workers call it, or a container with one")
    local_directory: str | None = Field(None, min_length=1, description="folder on the nodes for Dask's own files")
    lifetime_s: float | None = Field(None, gt=0, description="a worker leaves after that; always before its job ends")
    stagger_s: float = Field(60.0, ge=0, description="and up to so much earlier, so that not all leave at once")
    death_timeout_s: int = Field(60, ge=1, description="a worker that finds no scheduler ends after that")

    def flags(self) -> dict[str, str | None]:
        """Return the options for workers."""
        return _flags(self.sbatch, "slurm.workers.sbatch")


class SlurmSite(Config):
    """The table `[slurm]` of the site's file."""

    sbatch: dict[str, Any] = Field(default_factory=dict, description="options of sbatch for arrays")
    closing: dict[str, Any] = Field(default_factory=dict, description="options of sbatch for the closing job")
    setup: tuple[str, ...] = Field((), description="lines of the scripts before s1batch: modules, environments")
    command: str | None = Field(None, min_length=1, description="s1batch as tasks call it: a program, or a container")
    parallel: int | None = Field(None, ge=1, description="most tasks of a submission at a time")
    signal_before_s: int = Field(180, ge=10, le=65535, description="how long before its limit a task is told to stop")
    requeue: int = Field(10, ge=0, description="how often a task is put back into the queue at its time limit")

    workers: WorkersSite = Field(default_factory=WorkersSite, description="worker processes: jobs, or over nodes")

    def array_flags(self) -> dict[str, str | None]:
        """Return the options for arrays."""
        return _flags(self.sbatch, "slurm.sbatch")

    def closing_flags(self) -> dict[str, str | None]:
        """Return the options for the closing job."""
        return _flags(self.closing, "slurm.closing")


class Site(Config):
    """The site's file."""

    slurm: SlurmSite = Field(default_factory=SlurmSite)


def site_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the site's file; None when there is none.

    Raises:
        UsageError: S1BATCH_SITE names a file that is not there.
    """
    named = environment.get("S1BATCH_SITE")
    if named:
        if not Path(named).is_file():
            raise UsageError(f"S1BATCH_SITE={named}: no such file; unset it, or name the site's TOML file")
        return Path(named)
    home = environment.get("XDG_CONFIG_HOME") or os.path.join(environment.get("HOME", "/"), ".config")
    return next((path for path in (Path(home) / "s1batch" / "site.toml", SYSTEM) if path.is_file()), None)


def read_site(path: Path | None) -> Site:
    """Read the site's file; defaults when there is none.

    Raises:
        UsageError: It cannot be read, or holds something else.
    """
    if path is None:
        return Site()
    try:
        site = Site.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        site.slurm.array_flags(), site.slurm.closing_flags(), site.slurm.workers.flags()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(_line(item["loc"], item["type"], item["msg"]) for item in error.errors(include_url=False))
        raise UsageError(f"{path}: {wrong}") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return site


def _flags(table: Mapping[str, Any], where: str) -> dict[str, str | None]:
    return {flag_name(key, where): flag_value(value, f"{where}.{key}") for key, value in table.items()}


def _line(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(str(each) for each in loc)
    if kind == "extra_forbidden":
        model = (Site, SlurmSite, WorkersSite)[min(len(loc) - 1, 2)]
        return f"{name}: unknown field (valid: {', '.join(model.model_fields)})"
    return f"{name}: {message}"
