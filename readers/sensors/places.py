"""Which stores a job means, what addresses call them, and what they look like from outside: bytes and time of change.

An address names a store relative to a root, a folder or a URL, so that an archive may move. A Zarr store is many files;
its size is theirs together, and its time that of the newest one, so that a chunk that was written again shows.
"""

from __future__ import annotations

import glob
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from s1batch.errors import MissingExtra, SourceError, UsageError
from s1batch.paths import decode_path, encode_path
from s1batch.readers.extras import need
from s1batch.readers.failures import as_source_error
from s1batch.readers.files import absolute, expand, is_below, split_pattern
from s1batch.readers.sensors.file_store import FileStore, engine_of
from s1batch.readers.sensors.retry import Retry
from s1batch.readers.sensors.spec import SensorsSource
from s1batch.readers.sensors.stores import ArrayStore
from s1batch.readers.sensors.zarr_store import METADATA, ZarrStore, is_zarr_folder

ROOT_NAME = "archive"
"""What every address calls the root."""

_LOOK_AGAIN_S = 1.0
_LOOK_SHARE = 20
"""A store is looked at again after this time, and not before so many times as long as looking took."""

_MOST_DESCRIBED = 4
"""Zarr stores whose descriptions are kept between calls."""

_FILE_ENDINGS = (".nc", ".nc4", ".cdf", ".netcdf", ".h5", ".hdf5", ".hdf", ".he5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a store looks like from outside.

    Attributes:
        size: Bytes of all its files.
        mtime_ns: When the newest of them changed.
    """

    size: int
    mtime_ns: int


class Places:
    """Finds, opens and looks at the stores of a job.

    Args:
        spec: The source block.
        base_dir: The folder of the job file, which relative paths start from.
        first_delay_s: Pause before a remote store is asked a second time.
    """

    def __init__(self, spec: SensorsSource, base_dir: Path, first_delay_s: float = 0.5) -> None:
        self._spec = spec
        self._base_dir = base_dir
        self.is_remote = "://" in spec.paths[0]
        self.retry = Retry(times=spec.retries if self.is_remote else 0, first_s=first_delay_s)
        self.root = self._remote_root() if self.is_remote else self._local_root()
        self._looked: dict[str, tuple[float, Facts]] = {}
        self._described: dict[str, tuple[Facts, ZarrStore]] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_looked": {}, "_described": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def names(self) -> list[str]:
        """Return the encoded names of all stores below the root, each once, sorted.

        Raises:
            UsageError: A pattern matches nothing, or a store lies outside of the root.
        """
        found: set[str] = set()
        for pattern in self._spec.paths:
            matches = list(self._remote(pattern) if self.is_remote else self._local(pattern))
            if not matches:
                raise UsageError(
                    f"source.paths: {pattern} matches nothing (relative paths start from {self._base_dir})"
                )
            found.update(self._name(match) for match in matches)
        return sorted(found)

    def where(self, name: str) -> str:
        """Return the absolute path or URL of a store.

        Raises:
            SourceError: `source_missing`: the name leads out of the root.
        """
        if self.is_remote:
            parts = name.split("/")
            if ".." in parts or name.startswith("/") or "://" in name:
                raise SourceError("source_missing", f"{name} is nothing below the source's root")
            return f"{self.root}/{decode_path(name)}"
        path = os.path.normpath(os.path.join(self.root, decode_path(name)))
        if not is_below(self.root, path):
            raise SourceError("source_missing", f"{name} is nothing below the source's root")
        return path

    def open(self, name: str) -> ArrayStore:
        """Open a store.

        Raises:
            SourceError: It is not there, cannot be reached or cannot be read.
            MissingExtra: The library that reads it is not installed.
        """
        where = self.where(name)
        if self.is_remote:
            return self._open_remote(where, name)
        if os.path.isdir(where):
            return self._zarr(where, name)
        try:
            with open(where, "rb") as file:
                engine = engine_of(file, name)
        except OSError as error:
            raise as_source_error(error, f"{name}: ") from error
        return FileStore(where, name, engine, self.retry)

    def facts(self, name: str, *, now: bool = False) -> Facts:
        """Return what a store looks like from outside; looked up at most so often that it costs no time.

        Args:
            name: The store.
            now: Look again in any case.

        Raises:
            SourceError: It is not there or cannot be reached.
        """
        with self._lock:
            known = self._looked.get(name)
            began = time.monotonic()
            if known is not None and not now and began < known[0]:
                return known[1]
            where = self.where(name)
            try:
                found = self._remote_facts(where) if self.is_remote else _local_facts(where)
            except OSError as error:
                raise as_source_error(error, f"{name}: ") from error
            ended = time.monotonic()
            self._looked[name] = (ended + max(_LOOK_AGAIN_S, _LOOK_SHARE * (ended - began)), found)
            return found

    def bytes_below(self, name: str, inner: str) -> int:
        """Return the bytes of a group or array in a store on disk; 0 at a URL and in files."""
        folder = os.path.join(self.where(name), inner)
        return _local_facts(folder).size if not self.is_remote and os.path.isdir(folder) else 0

    def _zarr(self, where: str, name: str) -> ZarrStore:
        """Return a Zarr store; its descriptions are read again only when it changed. It holds no open files."""
        facts = self.facts(name)
        with self._lock:
            known = self._described.get(name)
        if known is not None and known[0] == facts:
            return known[1]
        store = ZarrStore(where, name, self._spec.storage_options, self.retry)
        with self._lock:
            while len(self._described) >= _MOST_DESCRIBED:
                del self._described[next(iter(self._described))]
            self._described[name] = (facts, store)
        return store

    # ------------------------------------------------------------------------------------------- on disk

    def _local_root(self) -> str:
        if self._spec.root is not None:
            return absolute(self._spec.root, self._base_dir)
        return os.path.commonpath([absolute(split_pattern(pattern)[0], self._base_dir) for pattern in self._spec.paths])

    def _local(self, pattern: str) -> Iterable[str]:
        full = absolute(pattern, self._base_dir)
        if glob.has_magic(pattern) and not os.path.lexists(full):
            folder, parts = split_pattern(pattern)
            return expand(absolute(folder, self._base_dir), parts, is_zarr_folder)
        if os.path.isdir(full) and not is_zarr_folder(full):
            raise UsageError(
                f"source.paths: {pattern} is a folder and no Zarr store; write {pattern.rstrip('/')}/**/* for all in it"
            )
        return (full,)

    def _name(self, where: str) -> str:
        if self.is_remote:
            return encode_path(where[len(self.root) + 1 :])
        if not is_below(self.root, where):
            raise UsageError(
                f"{encode_path(where)} lies outside of the root {encode_path(self.root)}; set source.root to a folder "
                "that holds all stores"
            )
        return encode_path(os.path.relpath(where, self.root))

    # ------------------------------------------------------------------------------------------- at a URL

    def _remote_root(self) -> str:
        if self._spec.root is not None:
            return self._spec.root.rstrip("/")
        folders = []
        for pattern in self._spec.paths:
            protocol, _, path = pattern.partition("://")
            parts = path.rstrip("/").split("/")
            fixed = next((k for k, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
            folders.append((protocol, parts[: max(1, min(fixed, len(parts) - 1))]))
        if len({protocol for protocol, _ in folders}) > 1:
            raise UsageError("source.paths: URLs of different kinds; make a job for each")
        shared = zip(*(parts for _, parts in folders), strict=False)
        common = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, shared)]
        return f"{folders[0][0]}://{'/'.join(common)}"

    def _file_system(self, where: str) -> tuple[Any, str]:
        fsspec = need("fsspec", "sensors", f"{where}: URLs")
        try:
            system, path = fsspec.core.url_to_fs(where, **self._spec.storage_options)
        except ImportError as error:
            extra = "s3" if where.startswith(("s3://", "s3a://")) else ""
            hint = f"run: pip install 's1batch[{extra}]'" if extra else str(error)
            raise MissingExtra(f"{where}: the library for such URLs is not installed; {hint}") from error
        return system, path

    def _remote(self, pattern: str) -> list[str]:
        if not glob.has_magic(pattern.partition("://")[2]):
            return [pattern.rstrip("/")]
        system, path = self._file_system(pattern)
        protocol = pattern.partition("://")[0]

        def listed() -> list[str]:
            system.invalidate_cache()
            found: list[str] = []
            for match, facts in sorted(system.glob(path, detail=True).items()):
                if found and match.startswith(f"{found[-1]}/"):
                    continue
                if facts.get("type") == "directory":
                    if match.endswith(".zarr") or any(system.exists(f"{match}/{name}") for name in METADATA):
                        found.append(match)
                else:
                    found.append(match)
            return [f"{protocol}://{match}" for match in found]

        try:
            return self.retry.call(pattern, listed)
        except (SourceError, OSError) as error:
            raise UsageError(f"source.paths: {pattern} cannot be listed: {error}") from error

    def _open_remote(self, where: str, name: str) -> ArrayStore:
        system, path = self._file_system(where)
        if not path.lower().endswith(_FILE_ENDINGS):
            return self._zarr(where, name)
        try:
            file = self.retry.call(name, lambda: system.open(path, "rb"))
            engine = self.retry.call(name, lambda: engine_of(file, name))
        except OSError as error:
            raise as_source_error(error, f"{name}: ") from error
        file.seek(0)
        if engine == "scipy":
            file.close()
            raise SourceError("unknown_format", f"{name}: NetCDF 3 at a URL would be read as a whole; copy it first")
        return FileStore(file, name, engine, self.retry)

    def _remote_facts(self, where: str) -> Facts:
        system, path = self._file_system(where)

        def look() -> Facts:
            system.invalidate_cache()
            if path.lower().endswith(_FILE_ENDINGS):
                return _sum([system.info(path)])
            found = system.find(path, detail=True)
            if not found:
                raise FileNotFoundError(2, "there is nothing")
            return _sum(found.values())

        return self.retry.call(where, look)


def _local_facts(path: str) -> Facts:
    facts = os.stat(path)
    if not os.path.isdir(path):
        return Facts(size=facts.st_size, mtime_ns=facts.st_mtime_ns)
    size = newest_ns = 0
    waiting = [path]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file():
                    facts = entry.stat()
                    size += facts.st_size
                    newest_ns = max(newest_ns, facts.st_mtime_ns)
    return Facts(size=size, mtime_ns=newest_ns)


def _sum(files: Iterable[Mapping[str, Any]]) -> Facts:
    size = newest_ns = 0
    for facts in files:
        size += int(facts.get("size") or 0)
        changed = facts.get("LastModified") or facts.get("mtime") or facts.get("created") or facts.get("last_modified")
        if isinstance(changed, datetime):
            newest_ns = max(newest_ns, round(changed.timestamp() * 1e6) * 1000)
        elif isinstance(changed, (int, float)):
            newest_ns = max(newest_ns, round(changed * 1e6) * 1000)
    return Facts(size=size, mtime_ns=newest_ns)
