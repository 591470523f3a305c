"""Which files a source of papers means, and what an address calls them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s1batch.errors import SourceError, UsageError
from s1batch.paths import decode_path, encode_path
from s1batch.readers.files import absolute, expand_pattern, is_below, manifest_paths, split_pattern
from s1batch.readers.papers.spec import PaperSource

ROOT = "archive"
"""The name of the root folder in addresses."""


@dataclass(frozen=True)
class PaperFiles:
    """The files of a source.

    Attributes:
        spec: The `source:` block.
        base_dir: Folder of the job file.
    """

    spec: PaperSource
    base_dir: Path

    @property
    def root(self) -> str:
        """The absolute folder that addresses are relative to; it follows from the job file alone."""
        spec = self.spec
        if spec.root is not None:
            return absolute(spec.root, self.base_dir)
        if spec.manifest is not None:
            return os.path.dirname(absolute(spec.manifest, self.base_dir))
        folders = [absolute(split_pattern(os.path.expanduser(each))[0], self.base_dir) for each in spec.paths or ()]
        return os.path.commonpath(folders)

    def names(self) -> Iterator[str]:
        """Yield the files, each once, in the order of their names, encoded and relative to the root.

        A path of a manifest that leads out of the root is passed on as it stands there: `path_of` refuses it.

        Raises:
            UsageError: No file matches, the manifest cannot be used, or a path of the job file leads out of the root.
        """
        root = self.root
        found: set[str] = set()
        if self.spec.manifest is not None:
            for text in manifest_paths(absolute(self.spec.manifest, self.base_dir), self.spec.manifest):
                path = absolute(decode_path(text), root)
                found.add(encode_path(os.path.relpath(path, root)) if is_below(root, path) else text)
        for pattern in self.spec.paths or ():
            for path in expand_pattern(pattern, self.base_dir, "source.paths"):
                if not is_below(root, path):
                    raise UsageError(f"{encode_path(path)} lies outside of source.root {encode_path(root)}")
                found.add(encode_path(os.path.relpath(path, root)))
        if not found:
            shown = self.spec.manifest or ", ".join(self.spec.paths or ())
            raise UsageError(
                f"source: {shown} matches no file (relative paths start from {encode_path(self.base_dir)})"
            )
        yield from sorted(found, key=lambda name: os.fsencode(decode_path(name)))

    def path_of(self, name: str) -> Path:
        """Return where a file is now, absolute.

        Raises:
            SourceError: Its name leads out of the root.
        """
        path = absolute(decode_path(name), self.root)
        if not is_below(self.root, path):
            raise SourceError("not_readable", f"the path leads out of {encode_path(self.root)}; nothing there is read")
        return Path(path)
