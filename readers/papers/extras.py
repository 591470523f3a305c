"""The optional libraries of this reader."""

from __future__ import annotations

import importlib
from typing import Any

from s1batch.errors import MissingExtra


def need(module: str) -> Any:
    """Import an optional library.

    Raises:
        MissingExtra: It is not installed; the text holds the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise MissingExtra(
            f"this job reads papers with {library}; install it: pip install 's1batch[papers]'"
        ) from error
