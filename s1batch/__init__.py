"""s1batch: offline batch inference over scientific archives, with every sample accounted for.

    run(job) -> Results          run or resume a job
    plan(job) -> Plan            what a run would do, without doing it
    open_results(path)           the results of an earlier run
    DataFrame.s1.infer(...)      ask about each row of a polars frame (registered when polars is imported)

Heavy libraries are imported when they are first needed, so that the command line starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from s1batch import _import_hooks

__version__ = "0.1.0"

if TYPE_CHECKING:
    from s1batch.api import Plan, Results, open_results, plan, run
    from s1batch.errors import S1BatchError
    from s1batch.execution import RunOptions
    from s1batch.jobfile import JobFile, load_job

_HOME = {
    "run": "s1batch.api",
    "plan": "s1batch.api",
    "open_results": "s1batch.api",
    "Results": "s1batch.api",
    "Plan": "s1batch.api",
    "load_job": "s1batch.jobfile",
    "JobFile": "s1batch.jobfile",
    "RunOptions": "s1batch.execution",
    "S1BatchError": "s1batch.errors",
}

__all__ = ["run", "plan", "open_results", "Results", "Plan", "load_job", "JobFile", "RunOptions", "S1BatchError"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 's1batch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


_import_hooks.install()
