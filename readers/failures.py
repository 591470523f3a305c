"""What a failure of the operating system means for the data that were to be read."""

from __future__ import annotations

from s1batch.errors import SourceError
from s1batch.records import Reason


def as_source_error(error: SourceError | OSError, before: str = "") -> SourceError:
    """Return why a file cannot be read: `source_missing` where it is not there, else `not_readable`.

    Args:
        error: What was raised; an error of the source stays as it is.
        before: What the detail begins with, such as the file and what was tried.
    """
    if isinstance(error, SourceError):
        return error
    gone = isinstance(error, (FileNotFoundError, NotADirectoryError))
    reason: Reason = "source_missing" if gone else "not_readable"
    return SourceError(reason, f"{before}{error.strerror or error}")
