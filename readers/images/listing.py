"""Which files the job means: those of folders and globs, or those that a manifest names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s1batch.errors import JobFileError, SourceError
from s1batch.paths import decode_path, encode_path
from s1batch.readers.failures import as_source_error
from s1batch.readers.files import expand, split_pattern
from s1batch.readers.images.sidecars import SIDECAR_ENDINGS, sidecars_of
from s1batch.readers.images.spec import ImageSource

if TYPE_CHECKING:
    import polars as pl

_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """A file that the job means.

    Attributes:
        path: Absolute.
        name: Relative to the root, encoded; what a manifest says, where that leads out of the root.
        sidecars: Names of its sidecars, relative to the root and encoded.
        problem: Why it is not opened; None when it is.
    """

    path: str
    name: str
    sidecars: tuple[str, ...] = ()
    problem: SourceError | None = None


@dataclass(frozen=True)
class Listing:
    """Finds the files of a job.

    Attributes:
        spec: The `source:` block.
        base_dir: Folder of the job file.
    """

    spec: ImageSource
    base_dir: Path
    _tables: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def root(self) -> str:
        """The folder that names are relative to; it follows from the job file alone where that is possible."""
        if self.spec.root is not None:
            return os.path.abspath(self.base_dir / self.spec.root)
        if self.spec.manifest is not None:
            return os.path.dirname(os.path.abspath(self.base_dir / self.spec.manifest))
        folders = [pattern if os.path.isdir(pattern) else split_pattern(pattern)[0] for pattern in self._patterns()]
        return os.path.commonpath(folders)

    def files(self) -> Iterator[ListedFile]:
        """Yield the files by name; those of a manifest in its order.

        Raises:
            JobFileError: A pattern matches nothing or leads out of `source.root`, or the manifest is no such table.
        """
        root = self.root
        real = _real_folder(root)
        if self.spec.manifest is not None:
            for name in self._manifest()["path"]:
                yield self._named(str(name or ""), root, real)
            return
        for path in self._found():
            if not path.startswith(os.path.join(root, "")):
                raise JobFileError(f"source.root: {path} does not lie below {root}")
            yield self._listed(path, root, real)

    def metadata(self, name: str) -> Mapping[str, Any]:
        """Return what the manifest says about a file of this encoded name; nothing where there is no manifest."""
        if self.spec.manifest is None:
            return {}
        table = self._manifest()
        places = self._tables.get("places")
        if places is None:
            import numpy as np

            hashes = table["path"].hash().to_numpy()
            order = np.argsort(hashes, kind="stable")
            places = self._tables["places"] = (hashes[order], order)
        import polars as pl

        hashes, order = places
        plain = decode_path(name)
        wanted = pl.Series([plain]).hash().to_numpy()[0]
        place = int(hashes.searchsorted(wanted))
        if place >= len(hashes) or hashes[place] != wanted:
            # Named in another way, such as `./a.png`.
            rows = [row for row, given in enumerate(table["path"]) if os.path.normpath(str(given)) == plain]
            if not rows:
                return {}
            row = rows[0]
        else:
            row = int(order[place])
        found = table.row(row, named=True)
        del found["path"]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"spec": self.spec, "base_dir": self.base_dir, "_tables": {}}

    def _patterns(self) -> list[str]:
        return [os.path.abspath(os.path.join(self.base_dir, given)) for given in self.spec.paths or ()]

    def _found(self) -> list[str]:
        found: set[str] = set()
        for given, pattern in zip(self.spec.paths or (), self._patterns(), strict=True):
            # A name that holds brackets is a file first, and a pattern only where there is no such file.
            if os.path.isfile(pattern):
                files = {pattern}
            elif os.path.isdir(pattern):
                files = set(expand(pattern, ["**"]))
            elif glob.has_magic(pattern):
                files = set(expand(*split_pattern(pattern)))
            else:
                files = {pattern} if os.path.islink(pattern) else set()
            if not files:
                raise JobFileError(f"source.paths: {given!r} matches no file in {self.base_dir}")
            found |= files
        if self.spec.sidecars:
            found -= _sidecars_among(found)
        return sorted(found, key=os.fsencode)

    def _named(self, given: str, root: str, real: str) -> ListedFile:
        """Return the file that a line of the manifest names."""
        shown = given[:_LONGEST_NAME]
        outside = SourceError("not_readable", f"{shown!r} leads out of the folder of the images")
        if os.path.isabs(given) or ".." in given.split("/") or "\0" in given or not given.strip("./"):
            return ListedFile(path="", name=encode_path(shown.replace("\0", "?")), problem=outside)
        return self._listed(os.path.join(root, os.path.normpath(given)), root, real)

    def _listed(self, path: str, root: str, real: str) -> ListedFile:
        name = encode_path(os.path.relpath(path, root))
        try:
            inside = os.path.join(os.path.realpath(path, strict=True), "").startswith(real)
        except OSError as error:
            why = as_source_error(error, "the file cannot be opened: ")
            return ListedFile(path=path, name=name, problem=why)
        if not inside:
            why = SourceError("not_readable", "a link leads out of the folder of the images")
            return ListedFile(path=path, name=name, problem=why)
        if not os.path.isfile(path):
            what = "a folder that cannot be listed" if os.path.isdir(path) else "no regular file"
            why = SourceError("not_readable", f"it is {what}")
            return ListedFile(path=path, name=name, problem=why)
        beside = sidecars_of(path) if self.spec.sidecars else []
        trusted = [each for each in beside if os.path.realpath(each).startswith(real)]
        return ListedFile(
            path=path, name=name, sidecars=tuple(encode_path(os.path.relpath(each, root)) for each in trusted)
        )

    def _manifest(self) -> pl.DataFrame:
        table: pl.DataFrame | None = self._tables.get("manifest")
        if table is None:
            table = self._tables["manifest"] = _read_manifest(self.base_dir / (self.spec.manifest or ""))
        return table


def _read_manifest(path: Path) -> pl.DataFrame:
    """Read a manifest; the fields of a CSV stay text.

    Raises:
        JobFileError: It is no CSV or Parquet with a column `path` of text that names each file once.
    """
    import polars as pl

    try:
        table = (
            pl.read_parquet(path)
            if path.suffix.lower() in (".parquet", ".pq")
            else pl.read_csv(path, infer_schema=False, separator="\t" if path.suffix.lower() == ".tsv" else ",")
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise JobFileError(f"source.manifest: {path} cannot be read: {error}") from error
    if "path" not in table.columns or table["path"].dtype != pl.String:
        raise JobFileError(f"source.manifest: {path} has no column `path` of text (it has {', '.join(table.columns)})")
    twice = table["path"].filter(table["path"].is_duplicated())
    if len(twice):
        raise JobFileError(f"source.manifest: {path} names {twice[0]!r} more than once; give each file one line")
    return table


def _sidecars_among(paths: set[str]) -> set[str]:
    """Return those files that are sidecars of other ones."""
    beside = {path for path in paths if path.endswith(SIDECAR_ENDINGS)}
    stems: set[str] = set()
    for path in paths - beside:
        stems.add(path)
        stems.add(os.path.splitext(path)[0])
    return {path for path in beside if os.path.splitext(path)[0] in stems}


def _real_folder(root: str) -> str:
    return os.path.join(os.path.realpath(root), "")
