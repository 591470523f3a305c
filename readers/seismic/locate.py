"""Which files a seismic source means, and what an address calls them.

An address names a file relative to a root folder, so that an archive may move: `source.root`, or else the deepest
folder that all patterns share before their first wildcard, the SDS archive, or the manifest's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from s1batch.errors import SourceError, UsageError
from s1batch.paths import decode_path, encode_path
from s1batch.readers.files import absolute, expand_pattern, is_below, manifest_paths, split_pattern
from s1batch.readers.seismic.sds import sds_files
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.records import Address

ROOT_NAME = "archive"
"""What every address calls the root folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file of the archive.

    Attributes:
        path: Where it is, absolute, as the operating system's functions take it.
        name: Below the root, encoded, as addresses have it.
    """

    path: str
    name: str


def locate(spec: SeismicSource, base_dir: Path) -> list[SourceFile]:
    """Return the files of a source, each once, sorted by name.

    A file that was named outright need not exist, and a folder that cannot be listed stands for what is in it: who
    opens them finds out.

    Args:
        spec: The source.
        base_dir: The folder of the job file, which relative paths start from.

    Raises:
        UsageError: No file matches, a manifest cannot be used, or a file lies outside of the root.
    """
    root = root_folder(spec, base_dir)
    found = {os.path.normpath(path) for path in _candidates(spec, base_dir)}
    files = [SourceFile(path=path, name=_name_below(root, path)) for path in found]
    if not files:
        raise UsageError(f"{_describe(spec)} matches no file (relative paths start from {encode_path(base_dir)})")
    return sorted(files, key=lambda file: os.fsencode(file.path))


def root_folder(spec: SeismicSource, base_dir: Path) -> str:
    """Return the absolute path of the folder that addresses are relative to.

    It depends on the job file alone, never on what files there are.
    """
    if spec.root is not None:
        return absolute(spec.root, base_dir)
    if spec.sds is not None:
        return absolute(spec.sds, base_dir)
    if spec.manifest is not None:
        return os.path.dirname(absolute(spec.manifest, base_dir))
    return os.path.commonpath([absolute(split_pattern(pattern)[0], base_dir) for pattern in spec.paths or ()])


def resolve(spec: SeismicSource, base_dir: Path, address: Address) -> str:
    """Return where the file of an address is, absolute, as the operating system's functions take it.

    Raises:
        SourceError: `source_missing`: the address leads out of the root.
    """
    root = root_folder(spec, base_dir)
    path = os.path.normpath(os.path.join(root, decode_path(address.path)))
    if address.root != ROOT_NAME or not is_below(root, path):
        raise SourceError("source_missing", f"{address.root}/{address.path} is no file below the source's root")
    return path


def _candidates(spec: SeismicSource, base_dir: Path) -> Iterable[str]:
    if spec.sds is not None:
        root = absolute(spec.sds, base_dir)
        if not os.path.isdir(root):
            raise UsageError(f"source.sds: {spec.sds} is no folder")
        return sds_files(root, spec)
    if spec.manifest is not None:
        path = absolute(spec.manifest, base_dir)
        folder = Path(os.path.dirname(path))
        return (absolute(decode_path(text), folder) for text in manifest_paths(path, spec.manifest))
    return (path for pattern in spec.paths or () for path in expand_pattern(pattern, base_dir, "source.paths"))


def _name_below(root: str, path: str) -> str:
    if not is_below(root, path):
        raise UsageError(
            f"{encode_path(path)} lies outside of the root {encode_path(root)}; set source.root to a folder that holds "
            "all files"
        )
    return encode_path(os.path.relpath(path, root))


def _describe(spec: SeismicSource) -> str:
    if spec.sds is not None:
        return f"source.sds ({spec.sds}, with its network, station, location and channel patterns)"
    if spec.manifest is not None:
        return f"source.manifest ({spec.manifest})"
    return f"source.paths ({', '.join(spec.paths or ())})"
