"""Which files a glob or a manifest means, in an order that does not depend on the file system.

Unlike the standard library's recursive glob, a folder is entered once per `**`, so that links that lead back up cost
nothing; a folder that cannot be listed is reported rather than passed over; and only regular files come back.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate

from s1batch.errors import UsageError

IsWhole = Callable[[str], bool]
"""Tells whether a folder stands for one file, as a Zarr store does: nothing inside of it is looked at."""


def never(folder: str) -> bool:
    """Return False: no folder stands for a file."""
    return False


def absolute(path: str, base_dir: str | os.PathLike[str]) -> str:
    """Return a path, relative to a folder or to a home, as an absolute one without `..`."""
    return os.path.abspath(os.path.join(base_dir, os.path.expanduser(path)))


def is_below(root: str, path: str) -> bool:
    """Return whether an absolute path lies below a folder, going by the names alone."""
    return path != root and path.startswith(root.rstrip(os.sep) + os.sep)


def expand_pattern(pattern: str, base_dir: str | os.PathLike[str], field: str) -> Iterable[str]:
    """Return what a path of a job file means: the file that it names, there or not, or what it matches as a pattern.

    Args:
        pattern: A path or a glob, relative to the folder of the job file.
        base_dir: That folder.
        field: The job file's field, for messages.

    Raises:
        UsageError: It is a folder.
    """
    full = absolute(pattern, base_dir)
    if glob.has_magic(pattern) and not os.path.lexists(full):
        folder, parts = split_pattern(pattern)
        return expand(absolute(folder, base_dir), parts)
    if os.path.isdir(full):
        raise UsageError(f"{field}: {pattern} is a folder; write {pattern.rstrip('/')}/**/* for all files in it")
    return (full,)


def manifest_paths(path: str, shown: str) -> list[str]:
    """Return the column `path` of a manifest, a CSV or Parquet file; further columns are for people.

    Args:
        path: Where it is.
        shown: As the job file names it, for messages.

    Raises:
        UsageError: It cannot be read, or has no such column, or no text in it.
    """
    import polars as pl

    try:
        if path.endswith(".parquet"):
            frame = pl.scan_parquet(path, glob=False)
        else:
            frame = pl.scan_csv(path, infer_schema=False, glob=False)
        names = frame.collect_schema().names()
        if "path" not in names:
            raise UsageError(f"source.manifest: {shown} has no column `path`; it has {', '.join(names) or 'none'}")
        paths = frame.select("path").collect().get_column("path").to_list()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"source.manifest: {shown} cannot be read as CSV or Parquet: {error}") from error
    for row, value in enumerate(paths):
        if not isinstance(value, str) or not value:
            raise UsageError(f"source.manifest: {shown} has no text in column `path` of row {row + 1}")
    return paths


def split_pattern(pattern: str) -> tuple[str, list[str]]:
    """Return the folder before a pattern's first wildcard (of a plain file, its folder), and the parts behind it."""
    parts = pattern.split(os.sep)
    fixed = 0
    while fixed < len(parts) - 1 and not glob.has_magic(parts[fixed]):
        fixed += 1
    folder = os.sep.join(parts[:fixed])
    return folder or (os.sep if pattern.startswith(os.sep) else ""), [part for part in parts[fixed:] if part]


def expand(folder: str, parts: list[str], is_whole: IsWhole = never) -> Iterator[str]:
    """Yield what a pattern matches below a folder: files, broken links, and folders that cannot be listed.

    `*`, `?` and `[...]` match within one name, `**` any number of folders; names that begin with a dot only match
    patterns that do.

    Args:
        folder: Where to start, absolute.
        parts: The pattern, part by part.
        is_whole: Tells folders that come back like files.
    """
    part, rest = parts[0], parts[1:]
    if part == "**":
        # `**` at the end means every file below.
        for inner in _descend(folder, is_whole):
            yield from expand(inner, rest or ["*"], is_whole)
        return
    if not glob.has_magic(part):
        path = os.path.join(folder, part)
        if rest:
            if os.path.isdir(path):
                yield from expand(path, rest, is_whole)
        elif _is_wanted(path) or (os.path.isdir(path) and is_whole(path)):
            yield path
        return
    entries = list_folder(folder)
    if entries is None:
        if os.path.isdir(folder):
            yield folder
        return
    matches = re.compile(translate(part)).match
    for entry in entries:
        if entry.name.startswith(".") and not part.startswith("."):
            continue
        if matches(entry.name) is None:
            continue
        if not rest:
            if _is_wanted(entry.path) or (is_folder(entry) and is_whole(entry.path)):
                yield entry.path
        elif is_folder(entry) and not is_whole(entry.path):
            yield from expand(entry.path, rest, is_whole)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link in a circle is none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def list_folder(folder: str) -> list[os.DirEntry[str]] | None:
    """Return the entries of a folder by name, or None where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError:
        return None


def _descend(top: str, is_whole: IsWhole) -> Iterator[str]:
    """Yield a folder and all below it, each once: real folders first, then those that only links lead to."""
    seen: set[tuple[int, int]] = set()
    links = [top]
    while links:
        waiting = [links.pop(0)]
        while waiting:
            folder = waiting.pop()
            try:
                facts = os.stat(folder)
            except OSError:
                continue
            if (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
            yield folder
            below: list[str] = []
            for entry in list_folder(folder) or ():
                if entry.name.startswith(".") or not is_folder(entry) or is_whole(entry.path):
                    continue
                (links if entry.is_symlink() else below).append(entry.path)
            waiting += reversed(below)


def _is_wanted(path: str) -> bool:
    """A file, or a link to nothing, which is accounted for as missing."""
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))
