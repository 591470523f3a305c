"""Things of the user's own that a job file names as `module:name`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s1batch.errors import JobFileError


def import_named(source: str, base_dir: Path, field: str) -> Any:
    """Import what `module:name` says; modules beside the job file are found, after all installed ones.

    Args:
        source: The module and the name in it.
        base_dir: Folder of the job file.
        field: The job file's field that it comes from, for messages.

    Raises:
        JobFileError: It cannot be imported.
    """
    module_name, _, name = source.partition(":")
    with _importable(base_dir):
        try:
            return getattr(importlib.import_module(module_name), name)
        except ImportError as error:
            raise JobFileError(f"{field}: cannot import {module_name!r} of {source!r}: {error}") from error
        except AttributeError as error:
            raise JobFileError(f"{field}: the module {module_name!r} has no {name!r}") from error
        except Exception as error:
            raise JobFileError(
                f"{field}: importing {module_name!r} of {source!r} failed: {type(error).__name__}: {error}"
            ) from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder.resolve())
    sys.path.append(entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
