"""The seam between s1batch and a kind of data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from s1batch.columns import Column
from s1batch.records import Chunk, InventoryItem, PlanEntry, Record, Refusal


class Reader(Protocol):
    """Plans an archive from its metadata and reads planned chunks.

    A reader pickles (workers get a copy), and `read` may be called from several threads at once. Between calls it may
    keep a few files open, to go on from where it was, as long as it notices that one was replaced.
    """

    @property
    def lineage(self) -> tuple[Column, ...]:
        """The columns that tell where a row's data came from; every `Record.lineage` holds just these."""

    def plan(self) -> Iterator[InventoryItem | PlanEntry]:
        """Scan headers and yield the whole archive as inventory items, and every chunk exactly once.

        Items and entries may be interleaved. The items' counts add up to the archive; every sample of a `selected`
        item lies in at least one chunk; a file that cannot be opened yields an `unreadable` item and one entry whose
        refusal says so. The order is that of the files, and is the same in every process.
        """

    def files(self) -> Iterator[str]:
        """Yield the encoded relative paths of all files, without opening them."""

    def locate(self, path: str) -> Path:
        """Return where the file of an encoded relative path is now, absolute."""

    def read(self, chunks: Sequence[Chunk]) -> Iterator[Record]:
        """Yield one record for each chunk, in the order given, opening each file once per call where that pays.

        A chunk that cannot be read yields a record with a `refusal`; nothing is raised for bad data.
        """


@runtime_checkable
class KnowsValues(Protocol):
    """What a reader has besides that can tell single values of a chunk without reading all of it."""

    def values_of(self, chunks: Sequence[Chunk], names: Sequence[str]) -> Iterator[Mapping[str, Any] | Refusal]:
        """Yield values and lineage of each chunk by name, at least those that are asked for and there, or why not."""


@runtime_checkable
class LooksAtSources(Protocol):
    """A reader whose sources are not all plain files: it says itself what they look like from outside."""

    def look_at(self, path: str) -> tuple[int, int]:
        """Return size in bytes and time of the last change (ns) of a source now, as its inventory item has them.

        Raises:
            SourceError: It is not there or cannot be reached.
        """


@runtime_checkable
class HoldsReaders(Protocol):
    """A reader that reads through others, and whose paths say through which."""

    def reader_of(self, path: str) -> tuple[Reader, str]:
        """Return the reader of a file, and the file's path as that reader knows it."""
