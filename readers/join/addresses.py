"""How the addresses of several sources stand side by side in one chunk, and come apart again.

`root` names the source, and so does the beginning of `path`: files of two sources may have one name. What belongs to a
partner has its source before its stream too, since time series are told apart by their streams alone. An address
without a path stands between two pieces of one source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from s1batch.canonical import plain_digest
from s1batch.records import Address, Chunk, InventoryItem

_COMMON_ROOT = "archive"


@dataclass(frozen=True, slots=True)
class Names:
    """How the names of sources stand in addresses.

    Attributes:
        primary: The source whose streams keep their names.
    """

    primary: str

    def item(self, alias: str, item: InventoryItem) -> InventoryItem:
        """Return a line of a source's inventory as one of all sources; partners count as far as they are called for."""
        optional = alias != self.primary and item.status == "selected"
        return replace(
            item,
            root=_root(alias, item.root),
            path=outer_path(alias, item.path),
            source=self._stream(alias, item.source),
            status="optional" if optional else item.status,
        )

    def joined(self, pieces: Sequence[tuple[str, Chunk]]) -> Chunk:
        """Return pieces of sources as one chunk; its key is made of their keys."""
        inputs: list[Address] = []
        before = ""
        for alias, chunk in pieces:
            if alias == before:
                inputs.append(Address(root=alias, path=""))
            before = alias
            inputs += (self._address(alias, address) for address in chunk.inputs)
        key = plain_digest([[alias, chunk.key] for alias, chunk in pieces])
        first_alias, first = pieces[0]
        return Chunk.planned(key, tuple(inputs), first.core if first_alias == self.primary else None)

    def parted(self, chunk: Chunk) -> list[tuple[str, Chunk]]:
        """Return the pieces that `joined` put together."""
        found: list[tuple[str, list[Address]]] = []
        for address in chunk.inputs:
            alias = address.root.partition(":")[0]
            if not found or found[-1][0] != alias or not address.path:
                found.append((alias, []))
            if address.path:
                found[-1][1].append(self._inner(alias, address))
        return [
            (alias, Chunk(tuple(inputs), chunk.core if number == 0 and alias == self.primary else None))
            for number, (alias, inputs) in enumerate(found)
        ]

    def _address(self, alias: str, address: Address) -> Address:
        return replace(
            address,
            root=_root(alias, address.root),
            path=outer_path(alias, address.path),
            source=self._stream(alias, address.source),
        )

    def _inner(self, alias: str, address: Address) -> Address:
        _, colon, root = address.root.partition(":")
        source = address.source
        return replace(
            address,
            root=root if colon else _COMMON_ROOT,
            path=inner_path(address.path)[1],
            source=source if alias == self.primary else source.removeprefix(f"{alias}/"),
        )

    def _stream(self, alias: str, stream: str) -> str:
        return stream if alias == self.primary else f"{alias}/{stream}"


def outer_path(alias: str, path: str) -> str:
    """Return the path of a source's file among those of all sources."""
    return f"{alias}/{path}"


def inner_path(path: str) -> tuple[str, str]:
    """Return the source that a path belongs to, and the path there."""
    alias, _, inner = path.partition("/")
    return alias, inner


def _root(alias: str, root: str) -> str:
    return alias if root == _COMMON_ROOT else f"{alias}:{root}"
