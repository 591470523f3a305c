"""Tables: Parquet, CSV and JSONL files, one chunk per row."""
