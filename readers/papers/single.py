"""Files that hold one paper each, as against corpora."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from s1batch.errors import SourceError
from s1batch.readers.papers.paper import Found, Paper, Place


class OnePaper(ABC):
    """A format whose files hold one paper each."""

    __slots__ = ()

    def scan(self, path: Path, after: int = 0) -> Iterator[Found]:
        """Yield the paper."""
        if not after:
            yield Found(place=Place(), paper=self._paper(path))

    def read(self, path: Path, places: Sequence[Place]) -> Iterator[Paper | SourceError]:
        """Yield the paper, once for each place."""
        if places:
            paper = self._paper(path)
            yield from (paper for _ in places)

    @abstractmethod
    def _paper(self, path: Path) -> Paper:
        """Return the paper of a file.

        Raises:
            SourceError: It cannot be read.
            OSError: It cannot be opened.
        """
