"""dask-jobqueue, imported without what its import does to the process."""

from __future__ import annotations

import signal
import sys
import threading
from importlib import import_module

from s1batch.errors import MissingExtra, UsageError


def import_jobqueue() -> None:
    """Import dask-jobqueue, which takes Ctrl-C for itself when it is imported: the run would end without an answer.

    Raises:
        MissingExtra: It is not installed.
        UsageError: This is not the main thread, where alone it can be imported.
    """
    if sys.modules.get("dask_jobqueue") is not None:
        return
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("--scheduler slurm: start the run from the main thread; dask-jobqueue needs it")
    before = signal.getsignal(signal.SIGINT)
    try:
        import_module("dask_jobqueue")
    except ImportError as error:
        raise MissingExtra(f"--scheduler slurm needs dask-jobqueue ({error}): pip install 's1batch[slurm]'") from error
    finally:
        signal.signal(signal.SIGINT, before)
