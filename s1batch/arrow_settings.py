"""How a program, which owns its process, uses Arrow; a library must not settle this for others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoPandas(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not needed here", name=name)
        return None


def settle_arrow() -> None:
    """Let Arrow take its memory from the system, and leave pandas alone.

    Arrow's own allocator keeps what every thread once used: 60 MB more in a run of 2,000 rows.

    At the first list that it converts, pyarrow imports pandas where that is installed, to tell a list from a Series: a
    third of a second and 45 MB. Here it looks once, finds nothing, and remembers that. Everything else may import
    pandas afterwards, and `Table.to_pandas` looks for it again.
    """
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
