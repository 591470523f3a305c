"""Puts another folder in the place of `rows`, so that whoever reads it sees the old files or the new ones.

Linux exchanges two folders in one step (`renameat2` with `RENAME_EXCHANGE`: ext4, XFS, Btrfs, tmpfs, overlay). Where a
file system cannot (NFS, some parallel ones), there are two renames; a reader in between finds no folder `rows`, and
never wrong rows. Whatever step is not reached, `settle` ends in one of the two states:

    rows                    what counts
    rows.new                being built, or, behind the exchange, what counted before: not needed either way
    rows.old                what counted before the two renames

Old files are removed only when `rows` has all of their parts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from pathlib import Path

from s1batch.results.atomic import fsync_folder, make_folder, rename, results_errors
from s1batch.results.layout import Layout
from s1batch.results.part_files import list_rows

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_KEEP = ".keep"
"""A file of this name in a folder of rows says that it is kept when another one has taken its place."""


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, and return whether this file system can.

    Raises:
        OSError: As the system reports it.
    """
    # As os.rename does, so that whoever audits a process sees this step, too.
    sys.audit("os.rename", os.fspath(one), os.fspath(other), -1, -1)
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), os.fspath(other))


def begin(layout: Layout) -> Path:
    """Return the empty folder that the new files go to; the caller holds the results alone and has settled them.

    Raises:
        ResultsError: It cannot be made.
    """
    make_folder(layout.rows)
    with results_errors(layout.new_rows):
        layout.new_rows.mkdir()
    return layout.new_rows


def switch(layout: Layout, *, keep: bool = False) -> None:
    """Put `rows.new` in the place of `rows`, and dispose of what was there.

    Args:
        layout: The results.
        keep: Move the old files to `originals` instead of removing them.

    Raises:
        ResultsError: It cannot be done; `settle` then leaves the old files or the new ones, whole.
    """
    with results_errors(layout.new_rows):
        fsync_folder(layout.new_rows)
    with results_errors(layout.rows):
        if keep:
            (layout.rows / _KEEP).touch()
        if not exchange(layout.rows, layout.new_rows):
            rename(layout.rows, layout.old_rows)
            rename(layout.new_rows, layout.rows)
        fsync_folder(layout.root)
    settle(layout)


def unsettled(layout: Layout) -> list[Path]:
    """Return what a compaction that did not come to its end has left."""
    return [folder for folder in (layout.new_rows, layout.old_rows) if folder.is_dir()]


def settle(layout: Layout) -> None:
    """Go on where a compaction was killed; the caller holds the results alone.

    Raises:
        ResultsError: A folder cannot be renamed or removed.
    """
    with results_errors(layout.rows):
        if not layout.rows.is_dir() and layout.old_rows.is_dir():
            # Killed between the two renames: what is new had been checked whole.
            source = layout.new_rows if layout.new_rows.is_dir() else layout.old_rows
            rename(source, layout.rows)
            fsync_folder(layout.root)
        left = unsettled(layout)
        if not left:
            (layout.rows / _KEEP).unlink(missing_ok=True)
            return
        for folder in left:
            _dispose(layout, folder)
        (layout.rows / _KEEP).unlink(missing_ok=True)
        fsync_folder(layout.root)


def _dispose(layout: Layout, folder: Path) -> None:
    """Remove a folder of rows that do not count any more, or keep it aside where that is wanted or wise."""
    here = {part for file in list_rows(layout, layout.rows) for part in file.parts}
    there = {part for file in list_rows(layout, folder) for part in file.parts}
    if there <= here and not (folder / _KEEP).exists():
        # Removing may fail where somebody still reads over a network; the next command tries again.
        shutil.rmtree(folder, ignore_errors=True)
        return
    make_folder(layout.originals)
    numbers = [int(name) for name in os.listdir(layout.originals) if name.isdigit()]
    target = layout.originals / f"{max(numbers, default=0) + 1:04d}"
    rename(folder, target)
    (target / _KEEP).unlink(missing_ok=True)
