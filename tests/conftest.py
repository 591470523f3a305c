"""Settings for all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A test run says the same about a revision every time. `HYPOTHESIS_PROFILE=search` explores new examples.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

for name in tuple(os.environ):
    # Where the tests run is no part of them: inside a Slurm job, with settings of one's own, in a narrow terminal.
    if name.startswith(("SLURM_", "SBATCH_", "SRUN_", "DASK_")) or name in (
        "S1BATCH_SITE",
        "COLUMNS",
        "LINES",
        "NO_COLOR",
        "FORCE_COLOR",
    ):
        del os.environ[name]

SLOW_S = 1800
"""Timeout of slow tests: many times what they take where nothing else runs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests their timeout."""
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.timeout(SLOW_S))
