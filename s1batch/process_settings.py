"""How a program, which owns its process, uses memory and Arrow; a library must not settle this for others."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

LARGE_BLOCK_BYTES = 2**19
"""Blocks of memory from here on go back to the system when they are freed."""

OBJECTS_BEFORE_COLLECTION = 100_000
"""New objects before the garbage collector looks at them; at Python's own 700 it took up to a tenth of a run's CPU, and
at 20,000 what is in flight was looked at again and again, for 10 ms each time."""

OPEN_FILES = 65536
"""Files and connections that a run may have open, as far as the system lets it: many systems begin with 1,024, and each
request in flight has a connection, each open part a journal."""

ARENAS = 2
"""Heaps that glibc spreads the threads of a run over, which mostly wait for one another anyway."""

POLARS_ALLOCATOR = "dirty_decay_ms:0,muzzy_decay_ms:0"
"""The allocator in polars gives back at once what is freed: it is used in bursts, when a plan or a merge is written."""

_trims: list[Callable[[int], int]] = []
"""glibc's `malloc_trim`, in a process that was settled."""

_M_TRIM_THRESHOLD = -1  # of glibc's malloc.h
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


class _NoPandas(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not needed here", name=name)
        return None


def settle_process() -> None:
    """Keep memory small, and pandas out; let many connections be open.

    glibc keeps large blocks that were freed, for each thread, once it has seen one: 300 MB more in a run over prompts
    of 1 MB. And it gives nearly every thread a heap of its own, which keeps what that thread once used.
    So does Arrow's own allocator: 60 MB more in a run of 2,000 rows, and 60 more in one of 19,000. What Arrow does in
    C++ looks at the environment only, once, when it is loaded; `set_memory_pool` speaks for the calls from Python.
    The jemalloc inside polars does likewise; left alone it keeps freed pages: 14 MB more at the end of 19,000 rows.
    Reference counts free nearly everything here, so the collector of cycles has little to find and may look less often.
    At the end of the process it would look at everything, several times: a sixth of a second. It is spared that.

    At the first list that it converts, pyarrow imports pandas where that is installed, to tell a list from a Series: a
    third of a second and 45 MB. Here it looks once, finds nothing, and remembers that. Everything else may import
    pandas afterwards, and `Table.to_pandas` looks for it again.
    """
    _settle_malloc()
    _allow_open_files()
    gc.set_threshold(OBJECTS_BEFORE_COLLECTION, 20, 50)
    atexit.register(gc.freeze)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("_RJEM_MALLOC_CONF", POLARS_ALLOCATOR)
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)


def give_back_memory() -> None:
    """Let the system have the pages of glibc's heaps that hold nothing any more; nothing to do in others' processes.

    Windows, bodies and columns lie between small objects that live longer, so heaps keep what was freed there: 15 to 30
    MB after some thousand rows, more or less of them from run to run. Takes about a millisecond of CPU.
    """
    for trim in _trims:
        trim(0)


def _allow_open_files() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settle_malloc() -> None:
    library = ctypes.CDLL(None)
    set_option = getattr(library, "mallopt", None)  # other C libraries have no such functions
    trim = getattr(library, "malloc_trim", None)
    if trim is not None:
        trim.argtypes = [ctypes.c_size_t]
        _trims[:] = [trim]
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        set_option(_M_TRIM_THRESHOLD, 2 * LARGE_BLOCK_BYTES)
        set_option(_M_ARENA_MAX, ARENAS)
