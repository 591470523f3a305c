"""Files that the cells of a table name: always below one folder, and of a bounded size."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s1batch.errors import SourceError
from s1batch.paths import encode_path

_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class CellFiles:
    """The folder that cells may name files of.

    Attributes:
        root: All paths must lie below it: a table does not choose what is read elsewhere.
        field: The field of the job file that names it, for messages.
        what: What the files hold, for messages.
        largest: Most bytes of a file.
    """

    root: Path
    field: str
    what: str
    largest: int

    def find(self, name: str) -> tuple[str, Path]:
        """Return the encoded path below the root, and the path, of a file that is there.

        Raises:
            SourceError: It lies elsewhere, is not there, or is too large.
        """
        top = Path(os.path.abspath(self.root))
        try:
            path = Path(os.path.abspath(top / name))
        except ValueError as error:
            raise SourceError("not_readable", f"{name[:_LONGEST_NAME]!r} is no path: {error}") from error
        if not path.is_relative_to(top):
            raise SourceError("not_readable", f"{name[:_LONGEST_NAME]!r} lies outside of {self.field}")
        try:
            if not path.is_file():
                raise SourceError("source_missing", f"there is no {self.what} {name[:_LONGEST_NAME]!r}")
            if path.stat().st_size > self.largest:
                raise SourceError("not_readable", f"{name} is larger than {self.largest // 2**20} MB")
        except (OSError, ValueError) as error:
            raise self.unreadable(name, error) from error
        return encode_path(path.relative_to(top)), path

    def unreadable(self, name: str, error: OSError | ValueError) -> SourceError:
        """Return the error of a file that the system does not let us read."""
        why = (error.strerror if isinstance(error, OSError) else None) or "it cannot be read"
        return SourceError("not_readable", f"{name[:_LONGEST_NAME]!r}: {why}")


def cell(fields: Mapping[str, Any], name: str, what: str) -> Any:
    """Return the value of a column.

    Raises:
        SourceError: There is none of this name; the text names those that there are.
    """
    if name not in fields:
        there = ", ".join(map(str, list(fields)[:20]))
        raise SourceError("source_missing", f"there is no column {name!r} for {what}; the row has {there}")
    return fields[name]
