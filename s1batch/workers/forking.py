"""How worker processes begin: as copies of a process that has imported everything already.

A worker that died is started again by the process beside it, Dask's nanny. A fresh interpreter needs 0.9 s of CPU until
it has imported Dask and this package; a copy of a process that has needs a tenth of that. It matters where a chunk ends
its workers: a dozen of them die until it is found (`suspects`).
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import dask
from distributed import utils

METHOD = "forkserver"

IMPORTED = ["distributed", "s1batch.workers.calls", "s1batch.workers.plugin"]
"""What the process imports that is copied. No engine and no reader: their threads would be in no copy."""


def forking() -> dict[str, str]:
    """Return Dask's setting for workers that begin so; empty where the system cannot."""
    if METHOD not in multiprocessing.get_all_start_methods():
        return {}
    # Left alone, Dask would have it import whatever is installed, pandas too, and this process as well.
    utils._forkserver_preload_set = True
    multiprocessing.get_context(METHOD).set_forkserver_preload(IMPORTED)
    return {"distributed.worker.multiprocessing-method": METHOD}


def dask_setup(nanny: Any) -> None:
    """Called by Dask in a nanny before it begins its worker: `dask worker --preload-nanny s1batch.workers.forking`."""
    dask.config.set(forking())
