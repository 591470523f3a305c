"""Typed columns that readers (lineage) and jobs (answers) declare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the results.

    Attributes:
        name: Lower-case name, unique among all columns of a run.
        type: Arrow type; timestamps are `pa.timestamp("ns", tz="UTC")`, given as int nanoseconds in rows.
        doc: One line: what it means, with its unit.
    """

    name: str
    type: pa.DataType
    doc: str
