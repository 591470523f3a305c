"""Libraries that warn about odd files are kept quiet: what matters becomes a row."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside: list[warnings.catch_warnings[None]] = []
_depth = [0]


def hush(library: str) -> None:
    """Keep what a library logs about odd files off the user's screen."""
    logger = logging.getLogger(library)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


@contextmanager
def quiet() -> Iterator[None]:
    """Let no warning out of the block.

    The filters belong to the whole process, and `catch_warnings` restores in each thread what that thread found. Here
    the first thread that enters sets them, and the last one that leaves restores them.
    """
    with _lock:
        _depth[0] += 1
        if _depth[0] == 1:
            caught = warnings.catch_warnings()
            caught.__enter__()
            warnings.simplefilter("ignore")
            _inside.append(caught)
    try:
        yield
    finally:
        with _lock:
            _depth[0] -= 1
            if _depth[0] == 0:
                _inside.pop().__exit__(None, None, None)
