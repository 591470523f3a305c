"""Remembers where papers were cut, so that plan, run and resume do not read and cut a corpus again.

One SQLite file holds, for every file of a corpus (its path, size and time of modification, and what decides about its
passages), blocks of what its papers became. A planning pass that was interrupted goes on behind its last block. A cache
that cannot be used costs its time only: nothing depends on it.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson

LARGEST_BYTES = 512 * 2**20
"""Size at which the files that were not looked at for longest are forgotten."""

BLOCK_PAPERS = 256
"""Papers of one block."""

_VERSION = "1"
Result = TypeVar("Result")
_WAIT_S = 2.0
_SCHEMA = """
create table if not exists blocks (
    file text, block integer, used real, data blob, primary key (file, block)
) without rowid;
create index if not exists blocks_used on blocks (used);
"""


def cache_folder(setting: str | None, base_dir: Path) -> Path | None:
    """Return the folder of the cache that a job file names; None for none.

    Args:
        setting: `source.cache`: a folder, `off`, or None for the user's own cache folder.
        base_dir: Folder of the job file.
    """
    if setting == "off":
        return None
    if setting is not None:
        return base_dir / Path(setting).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "s1batch"


class CutCache:
    """Blocks of lines for files; every method does nothing once the cache turned out not to be usable.

    Args:
        folder: Where its file is; None remembers nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._connection: sqlite3.Connection | None = None
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                folder / f"papers-{_VERSION}.sqlite", timeout=_WAIT_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error):
            return
        self._connection = connection
        # A torn file after a power cut is a cache that is made anew, so nothing waits for the disk.
        self._try(lambda database: database.execute("pragma synchronous = off"))
        self._try(lambda database: database.executescript(_SCHEMA))

    def __enter__(self) -> CutCache:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what is too much, and close the file."""
        self._try(_shrink)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def blocks(self, file: str) -> Iterator[list[Any]]:
        """Yield the lines of the blocks of a file that follow one another from the first."""
        for number in itertools.count():
            lines = self._try(partial(_block, file=file, number=number))
            if lines is None:
                return
            yield lines

    def put(self, file: str, number: int, lines: list[Any]) -> None:
        """Keep a block."""
        row = (file, number, time.time(), zlib.compress(orjson.dumps(lines), 1))
        self._try(lambda database: database.execute("insert or replace into blocks values (?, ?, ?, ?)", row))

    def _try(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """Do something with the database; what goes wrong with it ends the use of the cache and nothing else."""
        if self._connection is None:
            return None
        try:
            return work(self._connection)
        except (sqlite3.Error, zlib.error, orjson.JSONDecodeError):
            self._connection.close()
            self._connection = None
            return None


def _block(database: sqlite3.Connection, file: str, number: int) -> list[Any] | None:
    row = database.execute("select data from blocks where file = ? and block = ?", (file, number)).fetchone()
    if row is None:
        return None
    lines: list[Any] = orjson.loads(zlib.decompress(row[0]))
    if number == 0:
        database.execute("update blocks set used = ? where file = ?", (time.time(), file))
    return lines


def _shrink(database: sqlite3.Connection) -> None:
    def held() -> int:
        pages, free, size = (
            int(database.execute(f"pragma {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    while held() > LARGEST_BYTES:
        oldest = database.execute("select file from blocks order by used limit 1").fetchone()
        if oldest is None:
            return
        database.execute("delete from blocks where file = ?", oldest)
