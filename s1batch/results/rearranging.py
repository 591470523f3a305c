"""Writes the rows of finished parts into other files, checks them, and puts them in the place of the old ones.

Compacting joins the files of neighbouring parts; asking rows again takes single parts out of a large file. Nothing
changes for readers until everything is written, read back and compared: for each part the number of its rows and the
digest of their content, in the order of the plan, and where a plan is given its chunk keys.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from s1batch.errors import ResultsError
from s1batch.plan_store import PlanStore
from s1batch.results import switching
from s1batch.results.atomic import publish, results_errors
from s1batch.results.content_digest import content_digest
from s1batch.results.large_file import LargeFile, LargeFileWriter
from s1batch.results.lease import Lease
from s1batch.results.part_files import PartFiles, RowsFile
from s1batch.results.rows_file import read_table, write_table
from s1batch.results.schema import RowSchema

Parts = tuple[int, int]
"""The parts of one file, the first and the last."""


def rearrange(
    files: PartFiles,
    schema: RowSchema,
    targets: Sequence[Parts],
    lease: Lease,
    *,
    plan: PlanStore | None = None,
    keep: bool = False,
) -> None:
    """Bring the finished parts into files of the given ranges; the caller holds the results alone, and settled.

    Files that have such a range already are linked. Killed at any moment, the old files count or the new ones.

    Args:
        files: What is there.
        schema: Columns of the rows.
        targets: Ranges that hold each finished part once.
        lease: What keeps others away; it is checked before the old files are replaced.
        plan: When given, the rows must be exactly its chunks.
        keep: Keep the old files in `originals`.

    Raises:
        ResultsError: Something cannot be read or written, or does not agree; everything is as before.
        LockedError: Another process took over meanwhile; likewise.
    """
    if [part for first, last in targets for part in range(first, last + 1)] != sorted(files.finished):
        raise ValueError("the ranges do not hold each finished part once")
    known = {(file.first, file.last): file for file in files.files}
    written = dict(files.written_ns())
    folder = switching.begin(files.layout)
    try:
        with results_errors(folder):
            for first, last in targets:
                same = known.get((first, last))
                if same is not None:
                    _link(same.path, folder / same.path.name)
                elif first == last:
                    _write_single(files, schema, first, folder, written[first], plan)
                else:
                    _write_large(files, schema, range(first, last + 1), folder, written, plan)
        lease.check()
    except BaseException:
        # Where this fails too, the next command removes it.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    switching.switch(files.layout, keep=keep)


def take_out(files: PartFiles, schema: RowSchema, parts: Collection[int], lease: Lease) -> bool:
    """Give parts that lie in large files files of their own; the caller holds the results alone, and settled.

    Returns:
        Whether there were any.

    Raises:
        ResultsError: As `rearrange`.
    """
    targets: list[Parts] = []
    for file in files.files:
        wanted = [part for part in file.parts if part in parts] if files.is_large(file) else []
        targets += _around(file, wanted) if wanted else [(file.first, file.last)]
    if targets == [(file.first, file.last) for file in files.files]:
        return False
    rearrange(files, schema, targets, lease)
    return True


def _around(file: RowsFile, wanted: Sequence[int]) -> list[Parts]:
    found: list[Parts] = []
    begin = file.first
    for part in wanted:
        if begin < part:
            found.append((begin, part - 1))
        found.append((part, part))
        begin = part + 1
    if begin <= file.last:
        found.append((begin, file.last))
    return found


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # File systems without links; a full disk fails once more here.
        shutil.copy2(source, target)
        publish(target, target)
        if not filecmp.cmp(source, target, shallow=False):
            raise ResultsError(f"{target} is no true copy of {source}: check the disk; nothing was changed") from None


def _write_single(
    files: PartFiles, schema: RowSchema, part: int, folder: Path, written_ns: int, plan: PlanStore | None
) -> None:
    table = files.read(part).cast(schema.arrow)
    target = folder / files.layout.part_rows(part).name
    write_table(target, table)
    os.utime(target, ns=(written_ns, written_ns))
    back = read_table(target)
    if content_digest(back) != content_digest(table):
        raise _differs(target, part)
    _check_keys(files, part, back.column("chunk_key"), plan)


def _write_large(
    files: PartFiles,
    schema: RowSchema,
    parts: range,
    folder: Path,
    written: dict[int, int],
    plan: PlanStore | None,
) -> None:
    with LargeFileWriter(files.layout, folder, schema.arrow) as writer:
        for part in parts:
            writer.add(part, files.read(part), written[part])
    if writer.path is None:
        raise ValueError("no part was written")
    publish(writer.path, writer.path)
    latest = max(written[part] for part in parts)
    os.utime(writer.path, ns=(latest, latest))
    _check_large(files, LargeFile(writer.path), writer, plan)


def _check_large(files: PartFiles, back: LargeFile, writer: LargeFileWriter, plan: PlanStore | None) -> None:
    """Read a new file back and compare it with what was read of the old ones."""
    index = back.index
    if index.digests != writer.digests or not np.array_equal(index.rows, writer.sizes):
        raise ResultsError(f"{back.path} was not written as it should be: check the disk; nothing was changed")
    for group in range(back.groups):
        table = back.group(group)
        for part in back.parts_of(group):
            rows = back.part_of(table, group, part)
            if content_digest(rows) != index.digests[part - index.first]:
                raise _differs(back.path, part)
            _check_keys(files, part, rows.column("chunk_key"), plan)


def _check_keys(files: PartFiles, part: int, keys: object, plan: PlanStore | None) -> None:
    if plan is None:
        return
    planned = None
    with suppress(ResultsError):
        planned = plan.verdicts(part).column("chunk_key")
    if planned is None or not planned.equals(keys):
        raise ResultsError(
            f"{files.layout.root}: the rows of part {part} are not its chunks in the plan; nothing was changed; "
            "`s1batch verify` says more"
        )


def _differs(path: Path, part: int) -> ResultsError:
    return ResultsError(f"{path}: part {part} reads back differently: check the disk; nothing was changed")
