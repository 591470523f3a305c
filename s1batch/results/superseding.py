"""Rows that are asked again: kept aside, never lost.

The steps are ordered so that being killed between any two of them loses no answer, and doing all of them again gives
the same: the old rows are copied aside under a name made of their content, the rows that stay are written to a new
journal, older journals go, and only then the file of rows. Until that last step the file counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from s1batch.records import Outcome, turns_from_text
from s1batch.results.atomic import fsync_folder, make_folder, results_errors
from s1batch.results.journal import write_journal
from s1batch.results.journal_turns import OpenTurns, turn_payload
from s1batch.results.layout import Layout
from s1batch.results.part_writer import journal_content, new_writer_name, part_journals, remove_journals
from s1batch.results.rows_file import read_rows, write_rows
from s1batch.results.schema import RowSchema

_ANSWERED: frozenset[Outcome] = frozenset({"ok", "unparsed", "length"})
"""Outcomes of rows whose conversation came to its end; asked again, it begins anew."""


def supersede_part(layout: Layout, schema: RowSchema, part: int, outcomes: Collection[Outcome]) -> int:
    """Move the rows of a part that have one of these outcomes aside; the caller holds the part's lease.

    Returns:
        How many rows were moved. When there are any, the part is unfinished afterwards.

    Raises:
        ResultsError: Something cannot be read or written; what was there before still counts.
    """
    target = layout.part_rows(part)
    older = part_journals(layout, part)
    finished = target.exists()
    journalled, turns = ({}, OpenTurns()) if finished else journal_content(older, schema)
    rows = read_rows(target, schema) if finished else list(journalled.values())
    # Windows that a scan did not call for are decided about again, because its new answer may; that asks nothing.
    again = {row.chunk_key for row in rows if row.outcome in outcomes}
    if again:
        again |= {row.chunk_key for row in rows if row.reason == "not_triggered"}
    moved = [row for row in rows if row.chunk_key in again]
    if not moved:
        return 0
    content = hashlib.sha256()
    for row in moved:
        content.update(schema.row_to_json(row))
    make_folder(layout.superseded)
    write_rows(layout.superseded_rows(part, content.hexdigest()[:16]), schema, moved)
    kept = [schema.row_to_json(row) for row in rows if row.chunk_key not in again]
    # What the model said before its conversation failed was received, and is not asked again.
    failed = [(row.chunk_key, turns_from_text(row.turns)) for row in moved if row.outcome not in _ANSWERED]
    for key, received in (*turns, *failed):
        kept += [turn_payload(key, number, turn) for number, turn in enumerate(received)]
    if kept:
        write_journal(layout.journal(part, new_writer_name()), kept)
    remove_journals(layout, older)
    if finished:
        with results_errors(target):
            target.unlink()
            fsync_folder(target.parent)
    return len(moved)
