"""Tables: Parquet, CSV and JSONL files, one chunk per row."""

from s1batch.readers.tables.reader import TableReader
from s1batch.readers.tables.spec import TableSource

__all__ = ["TableReader", "TableSource"]
