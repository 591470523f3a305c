"""Libraries that come with an extra of s1batch and may not be installed."""

from __future__ import annotations

import importlib
from typing import Any

from s1batch.errors import MissingExtra


def need(module: str, extra: str, what: str) -> Any:
    """Import a library that an extra holds.

    Args:
        module: The module, such as `lxml.etree`.
        extra: The extra of s1batch that installs it.
        what: What needs it, as the beginning of a sentence in the plural: `DICOM files`.

    Raises:
        MissingExtra: It is not installed; the text holds the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing(module, extra, what) from error


def missing(module: str, extra: str, what: str) -> MissingExtra:
    """Return the error that says how to install a library that is not there; arguments as those of `need`."""
    library = module.partition(".")[0]
    return MissingExtra(f"{what} need {library}: pip install 's1batch[{extra}]'")
