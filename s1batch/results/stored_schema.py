"""The columns that a results directory was made with."""

from __future__ import annotations

from s1batch.errors import ConflictError, ResultsError
from s1batch.results.atomic import make_folder, results_errors
from s1batch.results.layout import Layout
from s1batch.results.rows_file import read_table, write_table
from s1batch.results.schema import RowSchema


def open_schema(layout: Layout, schema: RowSchema | None) -> RowSchema:
    """Return the columns of a results directory; with a schema, make the directory where it is not there.

    Raises:
        ConflictError: It holds rows with other columns.
        ResultsError: It cannot be read or written, or holds no results and no schema is given.
    """
    path = layout.schema
    if schema is not None:
        make_folder(layout.root)
        # Later, a folder of rows that is missing may be about to be put back.
        if not path.exists():
            make_folder(layout.rows)
        make_folder(layout.journals)
    with results_errors(path):
        if path.exists():
            stored = RowSchema.from_arrow(read_table(path).schema)
        elif schema is None:
            raise ResultsError(f"{layout.root} holds no results; give the folder that a run wrote to")
        else:
            write_table(path, schema.arrow.empty_table())
            return schema
    if schema is None:
        return stored
    differences = stored.differences(schema.arrow)
    if differences and not layout.run.exists():
        with results_errors(path):
            write_table(path, schema.arrow.empty_table())  # the plan of the job before was refused; nothing was asked
    elif differences:
        raise ConflictError(
            f"{layout.root} holds rows with other columns: {'; '.join(differences)}; "
            "go back to the job that made them, or choose another output folder"
        )
    return schema
